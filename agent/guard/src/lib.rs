//! The guard of a guest: a process beside the agent that ends the guest at the deadline of its lease,
//! also when the agent is dead, is stopped, or waits for its disk.
//!
//! The guard is there before its guest. The guest holds the end of a pipe, by which the guard notices
//! its end. The agent notices the end of the guard, and ends a guest without one. The deadline is in a file of the run directory, which is in memory; the guard holds a lock on
//! it, by which an agent sees that it is alive. Deadlines are on the clock that counts from the boot of
//! the host and continues while the host is suspended.

mod deadline;
mod start;
mod watch;

pub use deadline::{Deadline, now};
pub use start::{StartError, adopt, program, start};
pub use watch::watch;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The name of the program.
pub const PROGRAM: &str = "buildhost-guard";
/// The name of the file with the deadline, in the run directory of a guest.
const FILE: &str = "guard";

fn file_in(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

/// Moves the deadline of a guest. Returns false if the guest has no guard.
///
/// # Errors
/// The file cannot be written.
pub fn move_to(run_dir: &Path, deadline: Deadline) -> io::Result<bool> {
    match sys::trusted::open_read_write(file_in(run_dir)) {
        Ok(file) => deadline.write(&file).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the deadline of a guest; `None` if it has no guard that is alive.
///
/// # Errors
/// The file cannot be read.
pub fn of_guest(run_dir: &Path) -> io::Result<Option<Deadline>> {
    let file = match sys::trusted::open_read_write(file_in(run_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if is_alive(&file) {
        Deadline::read(&file).map(Some)
    } else {
        Ok(None)
    }
}

/// Returns true if a guard holds the lock.
fn is_alive(file: &File) -> bool {
    file.try_lock_shared().is_err()
}

#[cfg(test)]
mod tests;
