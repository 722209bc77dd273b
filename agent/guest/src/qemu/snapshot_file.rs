//! The files of a guest's snapshot, opened without following links.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::error::GuestError;
use crate::spec::Spec;

/// Opens a file of the snapshot for QEMU. The file becomes its user's if QEMU writes it or
/// others may not read it, because QEMU opens again what it only reads.
pub(super) fn open_for_user(spec: &Spec, name: &str, write: bool) -> Result<OwnedFd, GuestError> {
    let path = spec.directory.join(name);
    let (file, metadata) = open(path.clone(), write)?;
    if (write || metadata.mode() & 0o004 == 0) && metadata.uid() != spec.user.uid {
        fchown(&file, Some(spec.user.uid), Some(spec.user.gid))
            .map_err(|source| GuestError::Open { path, source })?;
    }
    Ok(file.into())
}

/// Opens a regular file of a snapshot.
pub(super) fn open(path: PathBuf, write: bool) -> Result<(File, Metadata), GuestError> {
    // A link in a snapshot could point to any file of the host.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut options = File::options();
    options.read(true).write(write).custom_flags(flags);
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
