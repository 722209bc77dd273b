//! The files of a guest's snapshot, opened without following links.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt, fchown};

use sys::untrusted;

use crate::error::GuestError;
use crate::spec::Spec;

/// Opens a file of the snapshot that QEMU opens by name. The file becomes its user's if QEMU
/// writes it or others may not read it.
pub(super) fn open_for_user(spec: &Spec, name: &str, write: bool) -> Result<File, GuestError> {
    let (file, metadata) = open(spec, name, write)?;
    if (write || metadata.mode() & 0o004 == 0) && metadata.uid() != spec.user.uid {
        fchown(&file, Some(spec.user.uid), Some(spec.user.gid)).map_err(|source| {
            GuestError::Open {
                path: spec.directory.join(name),
                source,
            }
        })?;
    }
    Ok(file)
}

/// Opens a regular file of the snapshot. A link in it could lead to any file of the host.
pub(super) fn open(spec: &Spec, name: &str, write: bool) -> Result<(File, Metadata), GuestError> {
    let opened = if write {
        untrusted::open_writable(&spec.directory, name)
    } else {
        untrusted::open(&spec.directory, name)
    };
    opened
        .and_then(|file| file.metadata().map(|metadata| (file, metadata)))
        .map_err(|source| GuestError::Open {
            path: spec.directory.join(name),
            source,
        })
}
