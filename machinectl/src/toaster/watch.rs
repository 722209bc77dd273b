//! Stands for Toaster's runner of builds, so that what starts, wakes and ends one goes
//! on working. The agent runs the builds by itself; we say when it does not.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::Status;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Ending, Failure, Voice};
use client::Client;

/// How often the agent is looked at when nobody asks.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs until it is ended; SIGUSR1 makes it look at once.
pub(super) fn run(socket: &Path, voice: &Voice) -> Result<(), Failure> {
    let fault = |error: io::Error| Failure::new(Ending::Failed, error);
    // First of all: the threads of a client inherit what is blocked.
    let signals = signals().map_err(fault)?;
    let client = Client::new(socket)?;
    let pid_file =
        PathBuf::from(env::var_os("BUILDDIR").unwrap_or_else(|| ".".into())).join(".runbuilds.pid");
    let text = std::process::id().to_string();
    sys::file::replace(&pid_file, text.as_bytes()).map_err(|error| {
        let words = format!("cannot write {}: {error}", pid_file.display());
        Failure::new(Ending::Failed, words)
    })?;
    let watched = watch(&client, &signals, voice);
    remove(&pid_file).map_err(fault)?;
    watched.map_err(fault)
}

fn remove(pid_file: &Path) -> io::Result<()> {
    match std::fs::remove_file(pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn watch(client: &Client, signals: &SignalFd, voice: &Voice) -> io::Result<()> {
    let mut answered = true;
    loop {
        let answers = client.get::<Status>("status").is_ok();
        if answers != answered {
            voice.say(if answers {
                "the agent answers again"
            } else {
                "the agent does not answer; builds wait until it does"
            });
        }
        answered = answers;
        if next(signals)?.is_some_and(|signal| signal != Signal::SIGUSR1) {
            return Ok(());
        }
    }
}

/// The next signal, if one comes before it is time to look again.
fn next(signals: &SignalFd) -> io::Result<Option<Signal>> {
    let pause = Timespec::try_from(PAUSE).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&pause))?;
    let Some(signal) = signals.read_signal()? else {
        return Ok(None);
    };
    let number = i32::try_from(signal.ssi_signo).map_err(io::Error::other)?;
    Ok(Some(Signal::try_from(number)?))
}

/// The signals that mean something, which from now on come to us in no other way.
fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&set, flags)?)
}
