//! The rendezvous with the host while the toolchain's `build` runs: the guest is about to be
//! forked. The processes of the build are stopped until the host answers, so that each copy has
//! random numbers, the time and an identity of its own before the build continues.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::task::{self, ForkIdentity};

use crate::WorkerError;
use crate::handshake::ControlPort;
use crate::log::Log;
use crate::processes::StoppedProcesses;
use crate::reseed;

/// The interval at which the control port is read.
const POLL: Duration = Duration::from_millis(50);

/// The rendezvous of a build.
#[derive(Debug)]
pub struct Rendezvous {
    /// `None` on a machine without one, and after it failed.
    port: Option<ControlPort>,
    /// The file that tells the build its identity.
    identity: PathBuf,
    next_poll: Instant,
}

impl Rendezvous {
    /// Creates the rendezvous of a build that was never forked, and the file with its identity.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(port: Option<ControlPort>, identity: PathBuf) -> Result<Self, WorkerError> {
        write_identity(&identity, ForkIdentity::default()).map_err(WorkerError::disk(&identity))?;
        Ok(Self {
            port,
            identity,
            next_poll: Instant::now(),
        })
    }

    /// Takes part in a fork if the host has asked for one. Must be called often.
    ///
    /// # Errors
    /// This copy cannot be given random numbers, the time or its identity.
    pub(crate) fn poll(&mut self, log: &mut Log) -> Result<(), WorkerError> {
        let now = Instant::now();
        if now < self.next_poll {
            return Ok(());
        }
        self.next_poll = now + POLL;
        let Some(port) = &mut self.port else {
            return Ok(());
        };
        match port.read_line(now) {
            Ok(Some(line)) if line.trim() == task::FORK => {
                let identity = meet(port, &self.identity);
                if let Some(fork) = identity.map_err(WorkerError::Handshake)? {
                    log.line(&message(fork));
                }
            }
            // An answer to a line that was repeated.
            Ok(_) => {}
            Err(error) => {
                log.line(&format!("this guest cannot be forked any more: {error}"));
                self.port = None;
            }
        }
        Ok(())
    }
}

/// Stops the processes of the build, and lets them go on when the host has answered. Returns the
/// identity that the host gave this copy.
fn meet(port: &mut ControlPort, identity: &Path) -> io::Result<Option<ForkIdentity>> {
    // The host refuses the fork if it hears nothing.
    let Ok(stopped) = StoppedProcesses::stop_all() else {
        return Ok(None);
    };
    let message = match port.receive_continue() {
        Ok(message) => message,
        // The host is gone: this is the source.
        Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(None),
        Err(error) => return Err(error),
    };
    reseed::apply(&message)?;
    if let Some(fork) = message.fork {
        write_identity(identity, fork)?;
    }
    drop(stopped);
    Ok(message.fork)
}

/// Replaces the file with the identity in one step.
fn write_identity(path: &Path, fork: ForkIdentity) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(format!("{fork}\n").as_bytes())?;
    fs::rename(new, path)
}

fn message(fork: ForkIdentity) -> String {
    match fork.number {
        0 => format!("forked into {} copies", fork.copies),
        _ => format!("continuing as copy {fork}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn other_lines_are_ignored_and_a_broken_port_ends_the_rendezvous() {
        let place = tempfile::tempdir().unwrap();
        let (guest, mut host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        let port = ControlPort::new(File::from(OwnedFd::from(guest)));
        let path = place.path().join("fork");
        let mut rendezvous = Rendezvous::new(Some(port), path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0 of 0\n");
        let mut log = Log::create(&place.path().join("log"), None).unwrap();
        host.write_all(b"go 1.000000000 00\n").unwrap();
        rendezvous.poll(&mut log).unwrap();
        assert!(rendezvous.port.is_some());
        host.write_all(&[b'x'; 5000]).unwrap();
        rendezvous.next_poll = Instant::now();
        rendezvous.poll(&mut log).unwrap();
        assert!(rendezvous.port.is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "0 of 0\n");
    }

    #[test]
    fn the_log_tells_copies_apart() {
        let of = |number| message(ForkIdentity { number, copies: 8 });
        assert_eq!(of(0), "forked into 8 copies");
        assert_eq!(of(3), "continuing as copy 3 of 8");
    }
}
