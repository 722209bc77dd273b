//! Guests of the kind kvm: QEMU, started inside its network.
//!
//! QEMU receives almost everything that it works with as open descriptors: the tap, disks, and
//! the listening sockets on which the agent reaches it. The files that it opens by name are
//! mounted in its [`view`], which holds nothing else of the host but its program. Its processors
//! stay stopped until the process record is written.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use config::machine::Firmware;
use rustix::thread::CapabilitySet;
use sys::command;
use sys::mount_view::limit_capabilities;
use tracing::debug;

use crate::error::GuestError;
use crate::network::Network;
use crate::process::Process;
use crate::run_dir::{CONSOLE, CONTROL, EVENTS, LOG, MONITOR, StderrPipe};
use crate::spec::Spec;

mod accelerator;
pub mod checkpoint;
mod cmdline;
pub mod fork;
pub(crate) mod qmp;
mod snapshot_file;
pub(crate) mod socket;
mod uefi;
mod view;

pub use accelerator::{Accelerator, KvmAccess, accelerator};
pub use cmdline::command_line;
pub use uefi::check_firmware;

const PROGRAM: &str = "qemu-system-x86_64";

/// Starts QEMU with its processors stopped, and writes the process record.
pub(crate) fn start(spec: Spec) -> Result<Process, GuestError> {
    let accelerator = accelerator(spec.acceleration)?;
    uefi::prepare(&spec)?;
    checkpoint::prepare(&spec, accelerator)?;
    let network = Network::open(&spec.network)?;
    let program = view::program()?;
    let view = view::view(&spec, &program, accelerator)?;
    let stderr = StderrPipe::writer(&spec.run_dir).map_err(GuestError::run_dir(&spec.run_dir))?;
    let arguments = command_line(&spec, accelerator);
    let group = accelerator.group().unwrap_or(spec.user.gid);
    let uid = spec.user.uid;
    let (machine, name) = (spec.machine.clone(), spec.group());
    let (run_dir, root) = (spec.run_dir.clone(), spec.directory.clone());
    let descriptors = descriptors(spec, &network)?;
    let mut qemu = command::prepare(program);
    qemu.arg0(PROGRAM)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0)
        .uid(uid)
        .gid(group)
        .fd_mappings(descriptors)
        .map_err(|error| GuestError::Spawn(io::Error::other(error)))?;
    // Not waited for as a child: `Process` takes its status by the descriptor.
    let start = || {
        view.run(|| {
            limit_capabilities(CapabilitySet::empty())?;
            qemu.spawn()
        })
    };
    let child = network.enter(start).map_err(GuestError::Spawn)?;
    debug!(pid = child.id(), "started QEMU");
    Process::of_child(child.id(), machine.kind)
        .map_err(GuestError::Pidfd)?
        .limit_and_record(&machine, &name, &run_dir, &root)
}

/// Opens what QEMU uses by descriptors, under the numbers of its command line. It stays root's.
fn descriptors(spec: Spec, network: &Network) -> Result<Vec<FdMapping>, GuestError> {
    let mut mappings = Vec::new();
    let mut add = |parent_fd: OwnedFd, child_fd| {
        mappings.push(FdMapping {
            parent_fd,
            child_fd,
        });
    };
    let tap = network.open_tap(spec.port);
    add(tap.map_err(GuestError::Spawn)?, cmdline::TAP);
    for (name, number) in [
        (MONITOR, cmdline::MONITOR),
        (CONSOLE, cmdline::CONSOLE),
        (LOG, cmdline::LOG),
        (CONTROL, cmdline::CONTROL),
        (EVENTS, cmdline::EVENTS),
    ] {
        let path = spec.run_dir.join(name);
        let socket = UnixListener::bind(&path);
        let socket = socket.map_err(GuestError::run_dir(&path))?;
        add(socket.into(), number);
    }
    let open = |name: &str| snapshot_file::open(&spec, name, true).map(|(file, _)| file.into());
    add(open(checkpoint::disk(&spec))?, cmdline::DISK);
    if spec.machine.firmware == Firmware::Uefi {
        add(uefi::open_code(&spec.uefi)?, cmdline::FIRMWARE);
        add(open(uefi::variables(&spec))?, cmdline::VARIABLES);
    }
    if let Some(memory) = &spec.shared_memory {
        let memory = memory.descriptor().map_err(GuestError::Spawn)?;
        add(memory, cmdline::SHARED_MEMORY);
    }
    for (descriptor, number) in spec.keep_open.into_iter().zip(cmdline::KEEP_OPEN..) {
        add(descriptor, number);
    }
    Ok(mappings)
}
