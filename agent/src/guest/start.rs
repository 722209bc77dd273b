//! Starting QEMU: opens what it needs, then spawns it inside its network.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use config::machine::{Kind, Machine};
use store::command;

use super::arguments::{self, arguments};
use super::process::Handle;
use super::{Accelerator, GuestError, Memory, Spec, User, accelerator, cgroup, frozen};
use crate::network::Network;

/// The sockets in a run directory.
pub(super) const MONITOR: &str = "monitor";
pub(super) const CONSOLE: &str = "console";
pub(super) const LOG: &str = "log";
pub(super) const CONTROL: &str = "control";
/// What QEMU complains about.
const COMPLAINTS: &str = "qemu.stderr";
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// How much of its complaints is told.
const COMPLAINTS_MAX: u64 = 1024;

/// Starts QEMU with its processors stopped, and writes the record.
pub(super) fn start(spec: Spec) -> Result<Handle, GuestError> {
    if spec.machine.kind != Kind::Kvm {
        return Err(GuestError::Kind);
    }
    if Handle::find(&spec.run)?.is_some() {
        return Err(GuestError::Running(spec.run));
    }
    let accelerator = accelerator(spec.acceleration)?;
    frozen::prepare(&spec, accelerator)?;
    let network = Network::open(&spec.network)?;
    let complaints = prepare_run(&spec.run).map_err(|source| GuestError::Run {
        path: spec.run.clone(),
        source,
    })?;
    let line = arguments(&spec, accelerator);
    let user = privileges(spec.user, accelerator);
    let run = spec.run.clone();
    let (machine, group) = (spec.machine.clone(), spec.network.clone());
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
    let mut handle = Handle::of(child.id()).map_err(GuestError::Watch)?;
    let settled = settle(&mut handle, &machine, &group, &run);
    if settled.is_err() {
        handle.kill();
    }
    settled.map(|()| handle)
}

/// Limits the process and writes the record, before its processors run.
fn settle(
    handle: &mut Handle,
    machine: &Machine,
    group: &str,
    run: &Path,
) -> Result<(), GuestError> {
    if let Some(root) = cgroup::root() {
        let cgroup = cgroup::enter(&root, group, machine, handle.pid());
        handle.in_cgroup(cgroup.map_err(GuestError::Limit)?);
    }
    handle.record(run)
}

/// Makes the run directory, without what an earlier guest left in it.
fn prepare_run(run: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(run)?;
    for name in [MONITOR, CONSOLE, LOG, CONTROL] {
        match fs::remove_file(run.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::create(run.join(COMPLAINTS))
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
    give(network.tap().map_err(GuestError::Start)?, arguments::TAP);
    for (name, number) in [
        (MONITOR, arguments::MONITOR),
        (CONSOLE, arguments::CONSOLE),
        (LOG, arguments::LOG),
        (CONTROL, arguments::CONTROL),
    ] {
        let path = spec.run.join(name);
        let socket = UnixListener::bind(&path);
        let socket = socket.map_err(|source| GuestError::Run { path, source })?;
        give(socket.into(), number);
    }
    give(file(&spec, frozen::disk(&spec), true)?, arguments::DISK);
    if let Some(boot) = &spec.machine.boot {
        give(file(&spec, &boot.kernel, false)?, arguments::KERNEL);
        if let Some(initrd) = &boot.initrd {
            give(file(&spec, initrd, false)?, arguments::INITRD);
        }
    }
    if spec.memory != Memory::Own {
        give(file(&spec, frozen::MEMORY, true)?, arguments::MEMORY);
    }
    for (kept, number) in spec.keep.into_iter().zip(arguments::KEEP..) {
        give(kept, number);
    }
    Ok(all)
}

/// Opens a file of the snapshot. QEMU opens those again that it only reads: they
/// become its user's when others may not read them. So does what it writes.
fn file(spec: &Spec, name: impl AsRef<Path>, write: bool) -> Result<OwnedFd, GuestError> {
    let path = spec.directory.join(name);
    let (file, metadata) = super::open(path.clone(), write)?;
    if (write || metadata.mode() & 0o004 == 0) && metadata.uid() != spec.user.uid {
        fchown(&file, Some(spec.user.uid), Some(spec.user.gid))
            .map_err(|source| GuestError::Open { path, source })?;
    }
    Ok(file.into())
}

/// The end of what QEMU complained about, on one line.
pub(super) fn complaints(run: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(run.join(COMPLAINTS))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(COMPLAINTS_MAX)))?;
        let mut end = Vec::new();
        file.take(COMPLAINTS_MAX).read_to_end(&mut end)?;
        let text = String::from_utf8_lossy(&end);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.collect::<Vec<_>>().join("; "))
    };
    read().unwrap_or_default()
}
