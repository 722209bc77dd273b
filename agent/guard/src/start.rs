//! The start of a guard.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::Guest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use tracing::warn;

use crate::deadline::Deadline;
use crate::{PROGRAM, file_in};

/// The time in which a guard must be ready.
const READY_MAX: Duration = Duration::from_secs(10);

/// A failure to start a guard. Its guest must not start either.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program is not beside the agent.
    #[error("the program {PROGRAM} is missing; install the whole package")]
    Program(#[source] io::Error),
    /// The guard could not be started.
    #[error("cannot start the guard of the guest")]
    Start(#[from] io::Error),
    /// The guard did not get ready.
    #[error("the guard of the guest has ended, or did not get ready in time")]
    NotReady,
}

/// Returns the path of the program: beside that of this process, or where the package has it.
///
/// # Errors
/// It does not exist.
pub fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    let beside = directory.join(PROGRAM);
    if beside.exists() {
        return Ok(beside);
    }
    let installed = directory.join("../lib/buildhost").join(PROGRAM);
    installed.metadata()?;
    Ok(installed)
}

/// Starts the guard of a guest that is about to start with this run directory. Returns the descriptor
/// that the process of the guest must inherit: the guard ends when nobody holds it any more. Blocks
/// until the guard watches.
///
/// # Errors
/// The guard cannot be started. No process is left.
pub fn start(program: &Path, run_dir: &Path, deadline: Deadline) -> Result<OwnedFd, StartError> {
    let path = file_in(run_dir);
    // A guest of an earlier agent may have had the same name.
    sys::file::replace(&path, b"")?;
    let file = sys::trusted::open_read_write(&path)?;
    deadline.write(&file)?;
    // The lock is that of the open file, which the guard inherits.
    file.try_lock().map_err(io::Error::from)?;
    let (read_end, held) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let (ready, said) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    spawn(program, run_dir, file, read_end, said)?;
    if is_ready(&ready) {
        Ok(held)
    } else {
        // The guard ends, because nobody holds the pipe.
        Err(StartError::NotReady)
    }
}

fn spawn(
    program: &Path,
    run_dir: &Path,
    file: File,
    read_end: OwnedFd,
    said: OwnedFd,
) -> io::Result<()> {
    let mut command = sys::command::prepare(program);
    command
        .arg(run_dir)
        .current_dir("/")
        // See `main.rs`, which takes them up.
        .stdin(read_end)
        .stdout(file)
        .stderr(said)
        .process_group(0);
    let mut child = command.spawn()?;
    let run_dir = run_dir.to_owned();
    in_thread(move || {
        let _ = child.wait();
        end_unguarded(&run_dir);
    })
}

/// Watches the guard of a guest that an earlier agent has started.
///
/// # Errors
/// The file of the guard cannot be opened.
pub fn adopt(run_dir: &Path) -> io::Result<()> {
    let file = sys::trusted::open_read_write(file_in(run_dir))?;
    let run_dir = run_dir.to_owned();
    in_thread(move || {
        // The guard holds the lock as long as it lives.
        let _ = file.lock_shared();
        end_unguarded(&run_dir);
    })
}

/// Ends a guest whose guard has ended. A guard ends after its guest, so that one that is still there has
/// lost it, and nothing would end it at its deadline if this agent ended as well.
fn end_unguarded(run_dir: &Path) {
    if let Ok(Some(guest)) = Guest::find(run_dir) {
        let run_dir = run_dir.display();
        warn!(%run_dir, "the guard of a guest has ended; ending the guest");
        guest.kill();
    }
}

/// Runs a wait that takes as long as a guest.
fn in_thread(wait: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("guard".to_owned());
    thread.spawn(wait).map(drop)
}

/// Waits for the byte that a guard writes when it watches.
fn is_ready(ready: &OwnedFd) -> bool {
    let limit = Timespec {
        tv_sec: i64::try_from(READY_MAX.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let polled = poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&limit));
    let mut byte = [0; 1];
    polled.is_ok_and(|count| count > 0) && rustix::io::read(ready, &mut byte[..]) == Ok(1)
}
