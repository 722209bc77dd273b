//! Operations on names that both backends share, on any file system.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::Change;

/// Reports a missing entry as no change.
pub(super) fn unchanged_if_missing(result: io::Result<()>) -> io::Result<Change> {
    unchanged_on(io::ErrorKind::NotFound, result)
}

/// Reports an existing entry as no change.
pub(super) fn unchanged_if_exists(result: io::Result<()>) -> io::Result<Change> {
    unchanged_on(io::ErrorKind::AlreadyExists, result)
}

fn unchanged_on(kind: io::ErrorKind, result: io::Result<()>) -> io::Result<Change> {
    match result {
        Ok(()) => Ok(Change::Changed),
        Err(error) if error.kind() == kind => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

/// Exchanges two entries in one step.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    Ok(())
}
