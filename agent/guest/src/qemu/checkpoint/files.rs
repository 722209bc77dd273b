//! The files of a checkpoint, beside those of the machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use config::machine::{Firmware, Machine, UEFI_VARIABLES};

use crate::sealed_memory::SealedMemory;

/// The guest's memory.
pub(in crate::qemu) const MEMORY: &str = "frozen.memory";
/// The state of the guest's devices.
pub(in crate::qemu) const STATE: &str = "frozen.state";
/// The state while it is being written.
pub(in crate::qemu) const PARTIAL_STATE: &str = "frozen.state.half";
/// The guest's disk, a clone of the machine's.
pub(in crate::qemu) const DISK: &str = "frozen.disk";
/// The guest's firmware variables.
pub(in crate::qemu) const VARIABLES: &str = "frozen.vars";
/// The key of everything that the checkpoint depends on.
pub(super) const KEY: &str = "frozen.key";
/// The maximum size of the key and of the reason, in bytes.
pub(super) const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// The reason why no checkpoint can be saved.
const UNSUPPORTED: &str = "frozen.unfit";

/// Returns true if a directory holds a checkpoint, which may be stale.
pub fn exists(directory: &Path) -> bool {
    [STATE, MEMORY, DISK, KEY]
        .iter()
        .all(|name| directory.join(name).is_file())
}

/// Returns the disk space that the memory of a checkpoint takes.
pub fn memory_bytes(directory: &Path) -> u64 {
    let memory = fs::metadata(directory.join(MEMORY));
    memory.map_or(0, |memory| memory.blocks() * 512)
}

/// Copies the memory of a checkpoint, for any number of guests that are restored from it.
///
/// # Errors
/// When the directory has no checkpoint, or the host has too little memory.
pub fn seal_memory(directory: &Path) -> io::Result<SealedMemory> {
    SealedMemory::copy_of(&sys::untrusted::open(directory, MEMORY)?)
}

/// Returns the reason why no checkpoint of the guest in this directory can be saved, if
/// [`mark_unsupported`] recorded one.
pub fn unsupported_reason(directory: &Path) -> Option<String> {
    sys::untrusted::read_text(directory, UNSUPPORTED, TEXT_BYTES_MAX).ok()
}

/// Records that no checkpoint of the guest in this directory can be saved.
///
/// # Errors
/// When the file cannot be written.
pub fn mark_unsupported(directory: &Path, reason: &str) -> io::Result<()> {
    sys::file::replace(&directory.join(UNSUPPORTED), reason.as_bytes())
}

/// Removes a checkpoint. Succeeds if there is no checkpoint.
///
/// # Errors
/// When one of its files exists and cannot be removed.
pub fn discard(directory: &Path) -> io::Result<()> {
    // The state first: a checkpoint without it does not exist.
    for name in [
        STATE,
        PARTIAL_STATE,
        MEMORY,
        DISK,
        VARIABLES,
        KEY,
        UNSUPPORTED,
    ] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the disk of a restored guest the machine's own and discards the checkpoint, so
/// that the machine boots cold from the state that the guest has reached.
///
/// # Errors
/// When a file cannot be renamed or removed.
pub fn convert_to_cold(directory: &Path, machine: &Machine) -> io::Result<()> {
    if machine.firmware == Firmware::Uefi {
        fs::rename(directory.join(VARIABLES), directory.join(UEFI_VARIABLES))?;
    }
    fs::rename(directory.join(DISK), directory.join(&machine.disk))?;
    discard(directory)
}
