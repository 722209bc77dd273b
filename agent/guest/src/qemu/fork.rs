//! Fork points: checkpoints of guests that run, and go on running.
//!
//! The memory of a restored guest is a private mapping of its checkpoint's memory file. A fork
//! point is that file with the pages that the guest has changed since, the state of its devices,
//! and a clone of its disk, all of the same instant. The guest stops only while these are
//! collected. Guests restored from a fork point continue where the source was.
//!
//! This rests on a command of QEMU's that is meant for Xen: it saves the state of the devices
//! without any memory. The key of the checkpoint names the QEMU.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::machine::{Firmware, Machine};
use config::settings::{Acceleration, Uefi};
use serde_json::json;
use sys::untrusted;

use super::accelerator::accelerator;
use super::checkpoint::files::{DISK, MEMORY, PARTIAL_STATE, STATE};
use super::checkpoint::{self, create};
use super::qmp::{Qmp, QmpError};
use crate::error::GuestError;
use crate::spec::{BootMode, Spec, User};

mod memory;
mod pages;
mod state;

use memory::{Changes, GuestMemory};

/// The number of the set of descriptors in QEMU that holds the file of the state.
const FD_SET: u32 = 9;
/// The largest size of the state of the devices.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// A reason why a guest cannot be forked.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The guest is a container.
    #[error("a container has no memory file and cannot be forked")]
    Container,
    /// The guest booted cold.
    #[error("its guest started cold; only a guest that was restored from a checkpoint is forked")]
    Cold,
    /// The machine boots by UEFI.
    #[error("its machine boots by UEFI, and only machines that boot by BIOS are forked")]
    Uefi,
    /// The checkpoint belongs to another QEMU, command line or processor.
    #[error("QEMU, the kernel or the settings have changed since its guest started")]
    Stale,
    /// The state of the checkpoint or of the devices has another format.
    #[error("QEMU's state has an unknown format: {0}; this version of QEMU cannot be forked")]
    Format(&'static str),
    /// A file of the fork point, or the guest's memory.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// QEMU does not answer or refuses.
    #[error("QEMU cannot be forked")]
    Qmp(#[from] QmpError),
}

impl ForkError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}

/// The guest to fork, and the place of its fork point.
#[derive(Debug)]
pub struct ForkSpec {
    /// The guest's snapshot.
    pub source: PathBuf,
    /// A snapshot of `source`, which becomes the fork point.
    pub target: PathBuf,
    /// The machine's manifest.
    pub machine: Machine,
    /// The accelerator that the settings ask for.
    pub acceleration: Acceleration,
    /// The host's firmware.
    pub uefi: Uefi,
}

/// A fork of a running guest that can be made at once.
#[derive(Debug)]
pub struct PreparedFork {
    spec: ForkSpec,
    memory: GuestMemory,
    changes: Changes,
    /// The head of the state.
    head: Vec<u8>,
}

/// Everything of one instant of the source, which runs again.
#[derive(Debug)]
pub struct CapturedFork {
    spec: ForkSpec,
    changes: Changes,
    head: Vec<u8>,
    stopped: Duration,
}

/// Prepares a fork: everything that can fail or take long before the guest must stop.
pub(crate) fn prepare(pid: u32, spec: ForkSpec) -> Result<PreparedFork, ForkError> {
    if spec.machine.firmware == Firmware::Uefi {
        return Err(ForkError::Uefi);
    }
    check_fits(&spec)?;
    let memory = GuestMemory::find(pid, spec.machine.memory_kib.get() * 1024)?;
    let head = configuration(&spec.target)?;
    // An incomplete fork point has no state.
    let state = spec.target.join(STATE);
    fs::remove_file(&state).map_err(ForkError::file(&state))?;
    // What is on disk already need not be written while the guest is stopped.
    let disk = spec.source.join(DISK);
    let synced = untrusted::open(&spec.source, DISK).and_then(|file| file.sync_data());
    synced.map_err(ForkError::file(&disk))?;
    let changes = memory.reserve()?;
    Ok(PreparedFork {
        spec,
        memory,
        changes,
        head,
    })
}

impl PreparedFork {
    /// Stops the guest, collects its parts of this instant, and lets it run again.
    pub(crate) fn capture(mut self, qmp: &mut Qmp) -> Result<CapturedFork, ForkError> {
        let began = Instant::now();
        qmp.command("stop")?;
        let collected = collect(qmp, &self.spec, &self.memory, &mut self.changes);
        let resumed = qmp.command("cont");
        let stopped = began.elapsed();
        collected?;
        resumed?;
        Ok(CapturedFork {
            spec: self.spec,
            changes: self.changes,
            head: self.head,
            stopped,
        })
    }
}

impl CapturedFork {
    /// Returns the time for which the source was stopped.
    pub fn stopped(&self) -> Duration {
        self.stopped
    }

    /// Returns the memory that the source had changed since its start, in bytes.
    pub fn changed(&self) -> u64 {
        self.changes.bytes()
    }

    /// Writes the memory and the state of the fork point, which is complete then, but need not
    /// be on disk.
    ///
    /// # Errors
    /// When a file cannot be written, or the state has an unknown format.
    pub fn complete(self) -> Result<(), ForkError> {
        let target = &self.spec.target;
        let path = target.join(MEMORY);
        let written = untrusted::open_writable(target, MEMORY).and_then(|memory| {
            // Its next user is another guest.
            fchown(&memory, Some(0), Some(0))?;
            self.changes.write(&memory)
        });
        written.map_err(ForkError::file(&path))?;
        let partial = target.join(PARTIAL_STATE);
        let devices = untrusted::open(target, PARTIAL_STATE)
            .and_then(|file| read_up_to(&file, STATE_BYTES_MAX));
        let devices = devices.map_err(ForkError::file(&partial))?;
        let whole = state::compose(&self.head, &devices).map_err(ForkError::Format)?;
        let path = target.join(STATE);
        sys::file::replace(&path, &whole).map_err(ForkError::file(&path))?;
        fs::remove_file(&partial).map_err(ForkError::file(&partial))
    }
}

/// Checks that guests can be restored from the fork point: QEMU may be another one since the
/// source was restored.
fn check_fits(fork: &ForkSpec) -> Result<(), ForkError> {
    let spec = Spec {
        name: String::new(),
        directory: fork.target.clone(),
        machine: fork.machine.clone(),
        user: User { uid: 0, gid: 0 },
        run_dir: PathBuf::new(),
        network: String::new(),
        port: None,
        acceleration: fork.acceleration,
        uefi: fork.uefi.clone(),
        durable: false,
        boot: BootMode::Restore,
        shared_memory: None,
        paused: true,
        keep_open: Vec::new(),
    };
    let accelerator = accelerator(fork.acceleration).map_err(|_| ForkError::Stale)?;
    match checkpoint::prepare(&spec, accelerator) {
        Ok(()) => Ok(()),
        // The source is a guest that was not restored.
        Err(GuestError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(ForkError::Cold)
        }
        Err(GuestError::Open { path, source }) => Err(ForkError::File { path, source }),
        Err(_) => Err(ForkError::Stale),
    }
}

/// Returns the head of the state of the checkpoint that the source was restored from.
fn configuration(target: &Path) -> Result<Vec<u8>, ForkError> {
    let path = target.join(STATE);
    let head = untrusted::open(target, STATE).and_then(|file| read_up_to(&file, state::HEAD_MAX));
    let head = head.map_err(ForkError::file(&path))?;
    let length = state::configuration_end(&head).map_err(ForkError::Format)?;
    Ok(head[..length].to_vec())
}

fn read_up_to(file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content)?;
    Ok(content)
}

/// Collects the fork point's parts of one instant. The guest is stopped.
fn collect(
    qmp: &mut Qmp,
    spec: &ForkSpec,
    memory: &GuestMemory,
    changes: &mut Changes,
) -> Result<(), ForkError> {
    let partial = spec.target.join(PARTIAL_STATE);
    let devices = create(&partial).map_err(ForkError::file(&partial))?;
    save_devices(qmp, &devices)?;
    memory.collect(changes)?;
    clone(spec, DISK)
}

/// Lets QEMU write the state of its devices to a file, which must be open for writing only.
fn save_devices(qmp: &mut Qmp, file: &File) -> Result<(), QmpError> {
    qmp.add_fd(FD_SET, file)?;
    let name = format!("/dev/fdset/{FD_SET}");
    // `live` would take the disk from the source.
    let arguments = json!({ "filename": name, "live": false });
    let saved = qmp.execute("xen-save-devices-state", &arguments);
    let set = json!({ "fdset-id": FD_SET });
    qmp.execute("remove-fd", &set)?;
    saved.map(|_| ())
}

/// Replaces a file of the fork point by a clone of the source's, or by a copy where the file
/// system has no clones.
fn clone(spec: &ForkSpec, name: &str) -> Result<(), ForkError> {
    let copy = || {
        let mut from = untrusted::open(&spec.source, name)?;
        let mut to = untrusted::open_writable(&spec.target, name)?;
        if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
            return Ok(());
        }
        to.set_len(0)?;
        io::copy(&mut from, &mut to).map(|_| ())
    };
    copy().map_err(ForkError::file(&spec.target.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_boots_by_uefi_is_refused() {
        let spec = Spec::example(": 1\nid: d\nsummary: d\nfirmware: uefi\n");
        let fork = ForkSpec {
            source: PathBuf::new(),
            target: PathBuf::new(),
            machine: spec.machine,
            acceleration: spec.acceleration,
            uefi: spec.uefi,
        };
        let refused = prepare(std::process::id(), fork);
        assert!(matches!(refused, Err(ForkError::Uefi)), "{refused:?}");
    }
}
