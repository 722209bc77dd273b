//! Child processes that see only chosen directories of the host.
//!
//! A tool that reads untrusted input as root is started in a mount namespace of its own, whose
//! root holds the programs of the host, read-only, and the mounts that its caller adds. It keeps
//! only the capabilities that its caller names, and cannot gain others.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_bind,
    mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};

use crate::command::{self, CommandError, Running, line};

/// The directories of programs and libraries. Those that exist are in every view.
const PROGRAM_DIRECTORIES: [&str; 8] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix", "/gnu",
];
/// The place at which a view is built before it becomes the root. It exists on every host, and
/// neither programs nor volumes lie below it.
const ROOT: &str = "/proc";
/// The flags of all mounts of a view.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// The directories that a child process sees.
#[derive(Debug, Default)]
pub struct MountView {
    mounts: Vec<ViewMount>,
    writable: Vec<PathBuf>,
}

#[derive(Debug)]
struct ViewMount {
    /// A mount that is not attached yet.
    tree: OwnedFd,
    target: PathBuf,
}

impl MountView {
    /// Adds a detached mount, read-only, at an absolute path of the view.
    pub fn mount(&mut self, tree: OwnedFd, target: impl Into<PathBuf>) {
        let target = target.into();
        self.mounts.push(ViewMount { tree, target });
    }

    /// Makes a directory of the view writable: one on a mount that was added.
    pub fn make_writable(&mut self, path: impl Into<PathBuf>) {
        self.writable.push(path.into());
    }

    /// Starts a program that sees only this view and has at most `capabilities`.
    ///
    /// # Errors
    /// The view cannot be built, which needs root, or the program cannot be started.
    pub fn start(
        &self,
        command: Command,
        capabilities: CapabilitySet,
    ) -> Result<Running, CommandError> {
        let command_line = line(&command);
        // The thread has the namespace and the root of the view. Both end with its child.
        let start = move || match self.enter(&command).and_then(|()| keep(capabilities)) {
            Ok(()) => Running::start(command),
            Err(source) => Err(CommandError::Start {
                command: command_line,
                source,
            }),
        };
        thread::scope(|scope| match scope.spawn(start).join() {
            Ok(running) => running,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Moves this thread into a new mount namespace with this view as its root.
    fn enter(&self, command: &Command) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        let root = Path::new(ROOT);
        let programs: Vec<_> = PROGRAM_DIRECTORIES
            .into_iter()
            .map(PathBuf::from)
            .chain(program_directory(command))
            .collect();
        mount("tmpfs", root, "tmpfs", FLAGS, c"mode=0755,size=1m")?;
        for directory in &programs {
            add_host_directory(root, directory)?;
        }
        add_null_device(root)?;
        for ViewMount { tree, target } in &self.mounts {
            let target = below(root, target);
            fs::create_dir_all(&target)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(tree.as_fd(), "", CWD, &target, flags)?;
        }
        for path in &self.writable {
            let path = below(root, path);
            mount_bind(&path, &path)?;
        }
        for ViewMount { target, .. } in &self.mounts {
            make_read_only(&below(root, target))?;
        }
        make_read_only(root)?;
        chdir(root)?;
        pivot_root(".", ".")?;
        // The old root lies over the new one, from which it is unmounted.
        unmount(".", UnmountFlags::DETACH)?;
        Ok(chdir("/")?)
    }
}

/// Limits the capabilities of the programs that this thread starts.
fn keep(capabilities: CapabilitySet) -> io::Result<()> {
    for capability in CapabilitySet::all().difference(capabilities).iter() {
        match remove_capability_from_bounding_set(capability) {
            // An older kernel does not have it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(set_no_new_privs(true)?)
}

/// Returns the directory of a program that is outside of the directories that all views have.
fn program_directory(command: &Command) -> Option<PathBuf> {
    let program = command::find(command.get_program())?;
    let mut known = PROGRAM_DIRECTORIES.iter();
    let is_known = known.any(|it| program.starts_with(it));
    program.parent().filter(|_| !is_known).map(Path::to_owned)
}

/// Adds a directory of the host to the view below `root`, or the link that it is.
fn add_host_directory(root: &Path, directory: &Path) -> io::Result<()> {
    let target = below(root, directory);
    if let Ok(link) = fs::read_link(directory) {
        return symlink(link, target);
    }
    if !directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(&target)?;
    mount_bind(directory, &target)?;
    make_read_only(&target)
}

/// Adds the null device, from which programs read when they get no input.
fn add_null_device(root: &Path) -> io::Result<()> {
    let null = Path::new("/dev/null");
    let target = below(root, null);
    fs::create_dir_all(root.join("dev"))?;
    fs::File::create(&target)?;
    Ok(mount_bind(null, target)?)
}

fn make_read_only(path: &Path) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | FLAGS;
    Ok(mount_remount(path, flags, "")?)
}

/// Returns the place of an absolute path in a view that is built below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
