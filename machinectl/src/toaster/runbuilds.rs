//! `runbuilds`: a compatibility stub for Toaster's build runner.
//!
//! It has the same PID file and signals, so scripts that start, signal and end a runner continue
//! to work. It runs no builds; it reports when the agent stops and starts answering.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Client;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::output::Output;

/// The time between two checks of the agent.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT; SIGUSR1 triggers a check.
pub(super) fn run(options: &GlobalOptions, output: &Output) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(ExitStatus::Failure, error);
    // Signals are blocked before the client exists: its threads inherit the mask.
    let signals = block_signals().map_err(failed)?;
    let client = options.client()?;
    let directory = env::var_os("BUILDDIR").unwrap_or_else(|| ".".into());
    let pid_file = PathBuf::from(directory).join(".runbuilds.pid");
    let pid = std::process::id().to_string();
    sys::file::replace(&pid_file, pid.as_bytes()).map_err(|error| {
        let text = format!("cannot write {}: {error}", pid_file.display());
        Failure::new(ExitStatus::Failure, text)
    })?;
    let watched = watch(&client, &signals, output);
    remove(&pid_file).map_err(failed)?;
    watched.map_err(failed)
}

fn remove(pid_file: &Path) -> io::Result<()> {
    match std::fs::remove_file(pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reports changes in the agent's availability until a signal ends the program.
fn watch(client: &Client, signals: &SignalFd, output: &Output) -> io::Result<()> {
    let mut was_available = true;
    loop {
        let is_available = client.status().is_ok();
        if is_available != was_available {
            output.status(if is_available {
                "the agent answers again"
            } else {
                "the agent does not answer; builds wait until it does"
            });
        }
        was_available = is_available;
        if next_signal(signals)?.is_some_and(|signal| signal != Signal::SIGUSR1) {
            return Ok(());
        }
    }
}

/// Returns the next signal, or `None` at the time of the next check.
fn next_signal(signals: &SignalFd) -> io::Result<Option<Signal>> {
    let interval = Timespec::try_from(CHECK_INTERVAL).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&interval))?;
    let Some(signal) = signals.read_signal()? else {
        return Ok(None);
    };
    let number = i32::try_from(signal.ssi_signo).map_err(io::Error::other)?;
    Ok(Some(Signal::try_from(number)?))
}

/// Blocks the signals of interest and returns the descriptor that delivers them.
fn block_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&set, flags)?)
}
