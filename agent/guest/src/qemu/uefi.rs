//! UEFI firmware: the host's code, which no guest can change, and the variables of a
//! machine, which lie beside its disk and belong to it like that.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use config::machine::{Firmware, UEFI_VARIABLES};
use config::settings::Uefi;

use super::checkpoint::files;
use crate::error::GuestError;
use crate::spec::{BootMode, Spec};

/// Checks that this host can start machines that boot by UEFI.
///
/// # Errors
/// When a file of the firmware is missing.
pub fn check_firmware(uefi: &Uefi) -> Result<(), GuestError> {
    look_up(&uefi.code)?;
    look_up(&uefi.variables).map(|_| ())
}

fn look_up(path: &Path) -> Result<Metadata, GuestError> {
    let metadata = fs::metadata(path).and_then(|metadata| {
        if metadata.is_file() {
            Ok(metadata)
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    });
    metadata.map_err(no_firmware(path))
}

fn no_firmware(path: &Path) -> impl FnOnce(io::Error) -> GuestError {
    let path = path.to_owned();
    |source| GuestError::NoFirmware { path, source }
}

/// Creates the variables of a machine that needs them and has none, and checks that they
/// fit the firmware.
pub(super) fn prepare(spec: &Spec) -> Result<(), GuestError> {
    if spec.machine.firmware != Firmware::Uefi {
        return Ok(());
    }
    check_firmware(&spec.uefi)?;
    let expected = look_up(&spec.uefi.variables)?.len();
    let path = spec.directory.join(UEFI_VARIABLES);
    let failed = |source| GuestError::Open {
        path: path.clone(),
        source,
    };
    match fs::symlink_metadata(&path) {
        Ok(own) if own.len() != expected && own.is_file() => Err(GuestError::UefiVariables {
            bytes: own.len(),
            path,
            expected,
        }),
        // Opening the file refuses anything else than a regular file.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let template = sys::trusted::read(&spec.uefi.variables);
            let written = template.and_then(|bytes| sys::file::replace(&path, &bytes));
            written.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Returns the name of the file with the variables of a guest.
pub(super) fn variables(spec: &Spec) -> &'static str {
    match spec.boot {
        BootMode::Cold => UEFI_VARIABLES,
        BootMode::CheckpointSource | BootMode::Restore => files::VARIABLES,
    }
}

/// Opens the firmware's code for reading.
pub(super) fn open_code(uefi: &Uefi) -> Result<OwnedFd, GuestError> {
    let opened = sys::trusted::open(&uefi.code).map_err(no_firmware(&uefi.code));
    opened.map(OwnedFd::from)
}

/// Returns a text that differs between firmwares, without reading them.
pub(super) fn identity(uefi: &Uefi) -> io::Result<String> {
    let file = fs::metadata(&uefi.code)?;
    let path = uefi.code.display();
    Ok(format!("{path} {} {}", file.len(), file.mtime()))
}
