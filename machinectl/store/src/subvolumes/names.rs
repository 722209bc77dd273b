//! What both pools do to names, on any file system.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use super::Change;

/// Takes "it was not there" as an answer.
pub(super) fn gone(result: io::Result<()>) -> io::Result<Change> {
    match result {
        Ok(()) => Ok(Change::Changed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

/// Takes "it is there already" as an answer.
pub(super) fn there(result: io::Result<()>) -> io::Result<Change> {
    match result {
        Ok(()) => Ok(Change::Changed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    Ok(())
}
