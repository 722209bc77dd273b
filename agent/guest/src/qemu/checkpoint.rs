//! Checkpoints of guests, saved at one instant and restored any number of times.
//!
//! A checkpoint lies beside the machine's own files: the guest's memory; the state of its
//! devices; its disk and its firmware's variables at that instant, clones of the machine's,
//! which stay unchanged for cold starts; and the key of everything that these depend on, so
//! that a checkpoint is restored only where it fits.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use config::machine::{Firmware, UEFI_VARIABLES};
use serde_json::{Value, json};
use sys::untrusted::read_text;

use super::qmp::{Qmp, QmpError};
use super::{PROGRAM, snapshot_file};
use crate::error::GuestError;
use crate::qemu::accelerator::Accelerator;
use crate::spec::{BootMode, Spec};

pub(super) mod files;
mod key;

pub use files::{
    convert_to_cold, discard, exists, mark_unsupported, memory_bytes, seal_memory,
    unsupported_reason,
};

use files::{DISK, KEY, MEMORY, PARTIAL_STATE, STATE, TEXT_BYTES_MAX, VARIABLES};
use key::key;

/// The name of the state's descriptor in QEMU.
const DESCRIPTOR: &str = "state";
/// The time in which QEMU must write or read the state of half a megabyte.
const TRANSFER_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two queries of the transfer's progress.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Prepares the files that QEMU opens for the guest's boot mode.
pub(super) fn prepare(spec: &Spec, accelerator: Accelerator) -> Result<(), GuestError> {
    let failed = |name: &str| {
        let path = spec.directory.join(name);
        |source| GuestError::Open { path, source }
    };
    match spec.boot {
        BootMode::Cold => Ok(()),
        BootMode::CheckpointSource => {
            discard(&spec.directory).map_err(failed(STATE))?;
            let memory = create(&spec.directory.join(MEMORY));
            let size = spec.machine.memory_kib.get() * 1024;
            memory
                .and_then(|file| file.set_len(size))
                .map_err(failed(MEMORY))?;
            clone(spec, spec.machine.disk.as_str(), DISK)?;
            if spec.machine.firmware == Firmware::Uefi {
                clone(spec, UEFI_VARIABLES, VARIABLES)?;
            }
            let key = key(spec, PROGRAM, accelerator).map_err(failed(KEY))?;
            let path = spec.directory.join(KEY);
            sys::file::replace(&path, key.as_bytes()).map_err(failed(KEY))
        }
        BootMode::Restore => {
            let expected = key(spec, PROGRAM, accelerator).map_err(failed(KEY))?;
            let saved = read_text(&spec.directory, KEY, TEXT_BYTES_MAX).map_err(failed(KEY))?;
            let is_complete = spec.directory.join(STATE).is_file();
            if is_complete && saved == expected {
                Ok(())
            } else {
                Err(GuestError::StaleCheckpoint)
            }
        }
    }
}

/// Copies a file of the machine, as a clone where the file system can.
fn clone(spec: &Spec, from: &str, to: &str) -> Result<(), GuestError> {
    let (mut from, _) = snapshot_file::open(spec, from, false)?;
    let path = spec.directory.join(to);
    let copied = create(&path).and_then(|mut to| {
        if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
            return Ok(());
        }
        io::copy(&mut from, &mut to).map(|_| ())
    });
    copied.map_err(|source| GuestError::Open { path, source })
}

/// Creates a new file that only its owner may open.
#[expect(
    clippy::disallowed_methods,
    reason = "it opens nothing that exists, so it follows no link"
)]
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)
}

/// Returns the name of the file with the disk of a guest.
pub(super) fn disk(spec: &Spec) -> &str {
    match spec.boot {
        BootMode::Cold => spec.machine.disk.as_str(),
        BootMode::CheckpointSource | BootMode::Restore => DISK,
    }
}

/// Stops the guest and saves its checkpoint, which is on disk afterwards.
pub(crate) fn save(qmp: &mut Qmp, directory: &Path) -> Result<(), QmpError> {
    qmp.command("stop")?;
    exclude_memory(qmp)?;
    let partial = directory.join(PARTIAL_STATE);
    let file = create(&partial)?;
    qmp.send_fd(DESCRIPTOR, &file)?;
    let uri = json!({ "uri": format!("fd:{DESCRIPTOR}") });
    qmp.execute("migrate", &uri)?;
    await_transfer(qmp, "save")?;
    file.sync_all()?;
    let memory = sys::untrusted::open(directory, MEMORY)?;
    // Its next user is another guest.
    fchown(&memory, Some(0), Some(0))?;
    memory.sync_all()?;
    sys::untrusted::open(directory, DISK)?.sync_all()?;
    // Its final name means that the checkpoint is complete.
    fs::rename(partial, directory.join(STATE))?;
    Ok(sys::trusted::open(directory)?.sync_all()?)
}

/// Loads the state of a checkpoint into a QEMU that waits for it.
pub(crate) fn load(qmp: &mut Qmp, directory: &Path) -> Result<(), QmpError> {
    exclude_memory(qmp)?;
    let file = sys::untrusted::open(directory, STATE)?;
    qmp.send_fd(DESCRIPTOR, &file)?;
    let uri = json!({ "uri": format!("fd:{DESCRIPTOR}") });
    qmp.execute("migrate-incoming", &uri)?;
    await_transfer(qmp, "load")
}

/// Checks that QEMU does not wait for the state of a checkpoint: the agent that was to load
/// it may have died.
pub(crate) fn check_loaded(qmp: &mut Qmp) -> Result<(), QmpError> {
    let status = qmp.execute("query-status", &json!({}))?;
    match status.get("status").and_then(Value::as_str) {
        Some("inmigrate") => Err(QmpError::State("load")),
        _ => Ok(()),
    }
}

/// Keeps the memory, which has a file of its own, out of the state.
fn exclude_memory(qmp: &mut Qmp) -> Result<(), QmpError> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    let capabilities = json!({ "capabilities": [capability] });
    qmp.execute("migrate-set-capabilities", &capabilities)?;
    Ok(())
}

/// Waits until QEMU has transferred the state.
fn await_transfer(qmp: &mut Qmp, action: &'static str) -> Result<(), QmpError> {
    let deadline = Instant::now() + TRANSFER_LIMIT;
    while Instant::now() < deadline {
        let state = qmp.execute("query-migrate", &json!({}))?;
        match state.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => break,
            _ => sleep(POLL_INTERVAL),
        }
    }
    Err(QmpError::State(action))
}
