//! Runs `btrfs receive`, which writes a stream to the disk.
//!
//! Every command of the stream is checked before the receiver reads it. The receiver is confined
//! all the same: it sees no file of the host but programs, the file system of the volume, which
//! it can only read, and the machine's directory, which is its root.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, statat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use rustix::thread::CapabilitySet;
use sys::command::{self, Running};
use sys::confined;
use sys::mount_view::{Ioctls, MountView, Rights};

use super::IngestRefusal;
use crate::Result;
use crate::lock::IngestLock;
use crate::mount_table::{self, Mount};
use btrfs::error::IoContext;
use btrfs::file_tool;
use btrfs::stream::{Command, SendStream};

/// The time limit for the receiver to write the rest after the end of the stream.
const FINISH_TIMEOUT: Duration = Duration::from_mins(10);
/// The capacity of the pipe to the receiver. It is twice as fast as the default of 64 KiB.
const PIPE_BYTES: usize = 1 << 20;
/// The place of the volume's file system in the receiver's view.
const VOLUME: &str = "/volume";
/// The number of the subvolume at the top of every file system.
const TOP_SUBVOLUME: &str = "5";
/// The rights of the receiver, which also creates subvolumes, and makes the volume its root.
const RIGHTS: Rights = Rights {
    capabilities: file_tool::CAPABILITIES
        .union(CapabilitySet::DAC_READ_SEARCH)
        .union(CapabilitySet::SYS_CHROOT),
    ioctls: Ioctls::All,
};

/// Receives a stream into a directory. `parent` is the directory of its parent. Commands that
/// reach outside the new subvolume are refused before they are applied; `applied` sees the others.
pub(super) fn receive(
    stream: SendStream,
    parent: Option<PathBuf>,
    directory: &Path,
    lock: &IngestLock,
    applied: impl FnMut(&Command<'_>),
) -> Result<()> {
    let mut receiver = Receiver::start(directory, lock)?;
    if let Some(mut sink) = receiver.running.child.stdin.take()
        && let Err(error) = stream.receive_into(&mut sink, parent, applied)
    {
        receiver.abort(sink);
        return Err(error);
    }
    receiver.finish()
}

/// A running `btrfs receive`.
///
/// It ends with this process, because its input does. It inherits the lock of the ingest, so that
/// no other one begins before that.
pub(super) struct Receiver<'a> {
    pub(super) running: Running,
    directory: &'a Path,
}

impl<'a> Receiver<'a> {
    /// Starts a receiver that creates its subvolume in a directory.
    pub(super) fn start(directory: &'a Path, lock: &IngestLock) -> Result<Self> {
        let located = locate(directory).context("find the file system of", directory)?;
        let destination = Path::new(VOLUME).join(&located.path);
        let mut receive = command::prepare("btrfs");
        receive.args(["--quiet", "receive", "-e", "--chroot", "-m", VOLUME]);
        receive.arg(&destination);
        receive.stdin(Stdio::piped());
        // It prints nothing to this descriptor, which only holds the lock.
        receive.stdout(lock.try_clone().context("share the lock of", directory)?);
        confined::limit(&mut receive, file_tool::LIMITS);
        let mut view = MountView::of_programs();
        view.mount(located.tree, VOLUME);
        view.make_writable(destination);
        let running = view.start(receive, RIGHTS)?;
        if let Some(sink) = &running.child.stdin {
            // A kernel that refuses is only slower.
            let _ = rustix::pipe::fcntl_setpipe_size(sink, PIPE_BYTES);
        }
        Ok(Self { running, directory })
    }

    /// Ends the receiver before its input ends, so that it cannot take a cut stream for a complete
    /// one.
    pub(super) fn abort(self, sink: ChildStdin) {
        drop(self.running);
        drop(sink);
    }

    /// Waits until the receiver has written everything.
    ///
    /// # Errors
    /// The receiver has failed.
    pub(super) fn finish(self) -> Result<()> {
        let finished = self.running.finish(FINISH_TIMEOUT);
        finished.map_err(|error| match error.system_error() {
            Some(kind) if sys::error_report::is_full(kind) => {
                IngestRefusal::Full(self.directory.to_owned()).into()
            }
            _ => error.into(),
        })
    }
}

/// A directory in a mount of its file system.
struct Located {
    /// The mount, which is attached nowhere.
    tree: OwnedFd,
    /// The path of the directory below it.
    path: PathBuf,
}

/// Returns a directory in a new mount of its file system, from the top of it if the device can
/// be mounted: the receiver finds parents by their paths from there. Otherwise, such as in a
/// container without the device, the present mount is used.
fn locate(directory: &Path) -> io::Result<Located> {
    let directory = fs::canonicalize(directory)?;
    let mounts = mount_table::read()?;
    let mount = mount_table::mount_of(&directory, &mounts)?;
    let path = directory.strip_prefix(&mount.point).unwrap_or(&directory);
    if let Ok(tree) = mount_top(mount) {
        let from_top = mount.root.join(path);
        let located = Located {
            tree,
            path: from_top.strip_prefix("/").unwrap_or(&from_top).to_owned(),
        };
        if located.is(&directory)? {
            return Ok(located);
        }
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(Located {
        tree: open_tree(CWD, &mount.point, flags)?,
        path: path.to_owned(),
    })
}

impl Located {
    /// Returns true if this is the directory at a path of the host.
    fn is(&self, directory: &Path) -> io::Result<bool> {
        let expected = fs::metadata(directory)?;
        let found = statat(self.tree.as_fd(), &self.path, AtFlags::empty());
        Ok(found.is_ok_and(|it| it.st_dev == expected.dev() && it.st_ino == expected.ino()))
    }
}

/// Mounts the top of a file system that is mounted already. The mount is attached nowhere.
fn mount_top(mount: &Mount) -> io::Result<OwnedFd> {
    let context = fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", &mount.source)?;
    fsconfig_set_string(context.as_fd(), "subvolid", TOP_SUBVOLUME)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}
