//! UEFI firmware: the host's code, which no guest can change, and the variables of a
//! machine, which lie beside its disk and are its own like that.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use config::machine::{Firmware, UEFI_VARIABLES};
use config::settings::Uefi;

use super::checkpoint as frozen;
use crate::error::GuestError;
use crate::guest::{BootMode, Spec};

/// Whether machines that boot by UEFI can be started on this host.
///
/// # Errors
/// With the file that is missing, and the way out.
pub fn firmware(uefi: &Uefi) -> Result<(), GuestError> {
    look(&uefi.code)?;
    look(&uefi.variables).map(|_| ())
}

fn look(path: &Path) -> Result<Metadata, GuestError> {
    let found = fs::metadata(path).and_then(|found| {
        if found.is_file() {
            Ok(found)
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    });
    found.map_err(missing(path))
}

fn missing(path: &Path) -> impl FnOnce(io::Error) -> GuestError {
    let path = path.to_owned();
    |source| GuestError::NoFirmware { path, source }
}

/// Makes sure that a machine which needs them has variables that fit the firmware.
pub(super) fn prepare(spec: &Spec) -> Result<(), GuestError> {
    if spec.machine.firmware != Firmware::Uefi {
        return Ok(());
    }
    firmware(&spec.uefi)?;
    let wanted = look(&spec.uefi.variables)?.len();
    let path = spec.directory.join(UEFI_VARIABLES);
    let failed = |source| GuestError::Open {
        path: path.clone(),
        source,
    };
    match fs::symlink_metadata(&path) {
        Ok(own) if own.len() != wanted && own.is_file() => Err(GuestError::Variables {
            bytes: own.len(),
            path,
            wanted,
        }),
        // What is no regular file is refused by who opens it.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let template = fs::read(&spec.uefi.variables);
            let written = template.and_then(|bytes| sys::file::replace(&path, &bytes));
            written.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The file with the variables of a guest.
pub(super) fn variables(spec: &Spec) -> &'static str {
    match spec.boot {
        BootMode::Cold => UEFI_VARIABLES,
        BootMode::CheckpointSource | BootMode::Restore => frozen::VARIABLES,
    }
}

/// The firmware, to read.
pub(super) fn code(uefi: &Uefi) -> Result<OwnedFd, GuestError> {
    let opened = File::open(&uefi.code).map_err(missing(&uefi.code));
    opened.map(OwnedFd::from)
}

/// Tells one firmware from another without reading it.
pub(super) fn identity(uefi: &Uefi) -> io::Result<String> {
    let file = fs::metadata(&uefi.code)?;
    let path = uefi.code.display();
    Ok(format!("{path} {} {}", file.len(), file.mtime()))
}
