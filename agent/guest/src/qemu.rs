//! The first kind of guest, a virtual machine: opens what QEMU needs, then spawns it
//! inside its network.
//!
//! QEMU gets everything that it works with as open descriptors and needs no path:
//! the tap, the files of its snapshot, and the sockets on which we reach it. The
//! processors of a guest do not run before its record is written.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, fchown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use config::machine::Firmware;
use config::settings::Acceleration;
use sys::command;
use tokio::net::UnixStream;
use tracing::debug;

use crate::error::GuestError;
use crate::guest::{BootMode, Spec, User};
use crate::network::Network;
use crate::process::Handle;
use crate::run_dir as run;
use crate::run_dir::{CONSOLE, CONTROL, LOG, MONITOR};

mod accelerator;
mod cmdline;
mod uefi;

pub(crate) mod checkpoint;
pub(crate) mod qmp;

pub use accelerator::{Accelerator, accelerator};
pub use cmdline::arguments;
pub use uefi::firmware;

const PROGRAM: &str = "qemu-system-x86_64";

/// Starts QEMU with its processors stopped, and writes the record.
pub(crate) fn start(spec: Spec) -> Result<Handle, GuestError> {
    let accelerator = accelerator(spec.acceleration)?;
    uefi::prepare(&spec)?;
    checkpoint::prepare(&spec, accelerator)?;
    let network = Network::open(&spec.network)?;
    let complaints = run::StderrPipe::writer(&spec.run).map_err(GuestError::run(&spec.run))?;
    let line = arguments(&spec, accelerator);
    let user = privileges(spec.user, accelerator);
    let (machine, group, run) = (spec.machine.clone(), spec.network.clone(), spec.run.clone());
    let descriptors = descriptors(spec, &network)?;
    let mut qemu = command::prepare(PROGRAM);
    qemu.args(line)
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(complaints)
        .process_group(0)
        .uid(user.uid)
        .gid(user.gid)
        .fd_mappings(descriptors)
        .map_err(|error| GuestError::Start(io::Error::other(error)))?;
    // Not waited for as a child: whoever watches it takes its status.
    let child = network.enter(|| qemu.spawn()).map_err(GuestError::Start)?;
    debug!(pid = child.id(), "the guest's process was started");
    let handle = Handle::of(child.id(), machine.kind).map_err(GuestError::Watch)?;
    handle.settle(&machine, &group, &run)
}

/// Connects to a socket of QEMU at once: it need not have called for us yet.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The user to run as. `/dev/kvm` is opened by QEMU itself: the group must be its.
fn privileges(user: User, accelerator: Accelerator) -> User {
    let device = match accelerator {
        Accelerator::Kvm => fs::metadata("/dev/kvm").ok(),
        Accelerator::Tcg => None,
    };
    let closed = device.filter(|device| device.mode() & 0o006 != 0o006);
    User {
        uid: user.uid,
        gid: closed.map_or(user.gid, |device| device.gid()),
    }
}

/// Everything that QEMU works with, under the numbers of its command line.
fn descriptors(spec: Spec, network: &Network) -> Result<Vec<FdMapping>, GuestError> {
    let mut all = Vec::new();
    let mut give = |parent_fd: OwnedFd, child_fd| {
        all.push(FdMapping {
            parent_fd,
            child_fd,
        });
    };
    give(network.tap().map_err(GuestError::Start)?, cmdline::TAP);
    for (name, number) in [
        (MONITOR, cmdline::MONITOR),
        (CONSOLE, cmdline::CONSOLE),
        (LOG, cmdline::LOG),
        (CONTROL, cmdline::CONTROL),
    ] {
        let path = spec.run.join(name);
        let socket = UnixListener::bind(&path);
        let socket = socket.map_err(GuestError::run(&path))?;
        give(socket.into(), number);
    }
    give(file(&spec, checkpoint::disk(&spec), true)?, cmdline::DISK);
    if spec.machine.firmware == Firmware::Uefi {
        give(uefi::code(&spec.uefi)?, cmdline::FIRMWARE);
        let variables = file(&spec, uefi::variables(&spec), true)?;
        give(variables, cmdline::VARIABLES);
    }
    if let Some(boot) = &spec.machine.boot {
        give(file(&spec, &boot.kernel, false)?, cmdline::KERNEL);
        if let Some(initrd) = &boot.initrd {
            give(file(&spec, initrd, false)?, cmdline::INITRD);
        }
    }
    if spec.boot != BootMode::Cold {
        give(file(&spec, checkpoint::MEMORY, true)?, cmdline::MEMORY);
    }
    for (kept, number) in spec.keep.into_iter().zip(cmdline::KEEP..) {
        give(kept, number);
    }
    Ok(all)
}

/// Opens a file of the snapshot. QEMU opens those again that it only reads: they
/// become its user's when others may not read them. So does what it writes.
fn file(spec: &Spec, name: impl AsRef<Path>, write: bool) -> Result<OwnedFd, GuestError> {
    let path = spec.directory.join(name);
    let (file, metadata) = open(path.clone(), write)?;
    if (write || metadata.mode() & 0o004 == 0) && metadata.uid() != spec.user.uid {
        fchown(&file, Some(spec.user.uid), Some(spec.user.gid))
            .map_err(|source| GuestError::Open { path, source })?;
    }
    Ok(file.into())
}

/// Opens a file of a guest's snapshot.
fn open(path: PathBuf, write: bool) -> Result<(File, fs::Metadata), GuestError> {
    // A link in a snapshot could lead to any file of the host.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut options = File::options();
    options.read(true).write(write);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    let opened = options.open(&path).and_then(|file| {
        let metadata = file.metadata()?;
        if metadata.is_file() {
            Ok((file, metadata))
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    });
    opened.map_err(|source| GuestError::Open { path, source })
}
