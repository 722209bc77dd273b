//! The rehearsal of a ready guest: it runs until its worker has done once what it does at the start
//! of every build, and then stops. [`config::task`] describes the lines.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use config::task::{READY, REHEARSAL};
use guest::Guest;
use guest::gateway::addresses;
use guest::network::Network;
use tftp::server::{Event, Namespace, Offer, Server};
use tokio::sync::mpsc;

use super::SessionError;
use super::gateway::TFTP_PORT;

/// The time for the whole rehearsal. A worker reports every second that it is ready.
const LIMIT: Duration = Duration::from_secs(15);
/// The longest line that a worker sends.
const LINE_MAX: usize = 64;
/// The size of the file that the worker fetches, that of a task.
const FILE_BYTES: usize = 1000;
/// The number of events of the server that wait.
const EVENTS_MAX: usize = 64;

/// The server from which the worker of a ready guest fetches its file.
pub(super) struct Rehearsal {
    /// Serves until it is dropped.
    _server: Server,
    events: mpsc::Receiver<Event>,
}

impl Rehearsal {
    /// Serves the file in a guest's network. Blocks.
    pub(super) fn open(network: &Network) -> io::Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let mut files = Namespace::new(0, 0);
        files.offer(REHEARSAL, Offer::Bytes([b'\n'; FILE_BYTES].into()));
        let addresses: Vec<SocketAddr> = addresses(TFTP_PORT).collect();
        let server = network.enter(|| Server::start(&addresses, files, sender))?;
        Ok(Self {
            _server: server,
            events,
        })
    }

    /// Lets the worker of a restored guest rehearse, if it can, and stops the guest's processors.
    /// Blocks.
    ///
    /// # Errors
    /// The worker does not follow the protocol, or QEMU does not answer.
    pub(super) fn run(mut self, guest: &Guest) -> Result<(), SessionError> {
        if let Some(port) = guest.control()? {
            converse(port, || self.is_fetched())?;
        }
        Ok(guest.suspend()?)
    }

    /// Returns true if the worker has fetched the file.
    fn is_fetched(&mut self) -> bool {
        while let Ok(event) = self.events.try_recv() {
            if matches!(event, Event::Fetched { .. }) {
                return true;
            }
        }
        false
    }
}

/// The next step after a line of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    Rehearse,
    Stop,
}

/// The state of a rehearsal.
#[derive(Debug, Default)]
struct Progress {
    is_offered: bool,
    is_requested: bool,
    is_fetched: bool,
}

impl Progress {
    /// Returns the step after a line. A worker that does not offer a rehearsal, one of an older
    /// version, is stopped at once.
    fn step(&mut self, line: &[u8]) -> Step {
        if line == REHEARSAL.as_bytes() {
            self.is_offered = true;
            return Step::Wait;
        }
        if line != READY.as_bytes() {
            return Step::Wait;
        }
        if !self.is_offered {
            return Step::Stop;
        }
        if !self.is_requested {
            self.is_requested = true;
            return Step::Rehearse;
        }
        // A line that was sent before the rehearsal comes before the file is fetched.
        if self.is_fetched {
            Step::Stop
        } else {
            Step::Wait
        }
    }
}

/// Talks to a worker until its guest can be stopped.
fn converse(mut port: UnixStream, mut is_fetched: impl FnMut() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut progress = Progress::default();
    let mut received = Vec::new();
    let mut buffer = [0; LINE_MAX];
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            let message = "the worker of a restored guest does not report that it is ready";
            return Err(io::Error::new(ErrorKind::TimedOut, message));
        }
        port.set_read_timeout(Some(rest))?;
        let count = match port.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&buffer[..count]);
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = received.drain(..=end).collect();
            progress.is_fetched |= is_fetched();
            match progress.step(line.trim_ascii()) {
                Step::Wait => {}
                Step::Rehearse => port.write_all(format!("{REHEARSAL}\n").as_bytes())?,
                Step::Stop => return Ok(()),
            }
        }
        if received.len() > LINE_MAX {
            let message = "the guest sends too long a line on its control port";
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use super::*;

    #[test]
    fn a_guest_stops_when_its_worker_has_rehearsed_or_cannot() {
        use Step::{Rehearse, Stop, Wait};
        let steps = |lines: &[(&str, bool)]| {
            let mut progress = Progress::default();
            let step = |(line, is_fetched): &(&str, bool)| {
                progress.is_fetched |= is_fetched;
                progress.step(line.as_bytes())
            };
            lines.iter().map(step).collect::<Vec<_>>()
        };
        assert_eq!(steps(&[("ready", false)]), [Stop]);
        assert_eq!(steps(&[("noise", false), ("", false)]), [Wait, Wait]);
        let whole = [
            ("rehearsal", false),
            ("ready", false),
            // Sent before the worker had read the request.
            ("rehearsal", false),
            ("ready", false),
            ("rehearsal", true),
            ("ready", false),
        ];
        assert_eq!(steps(&whole), [Wait, Rehearse, Wait, Wait, Wait, Stop]);
    }

    #[test]
    fn the_worker_is_asked_once() {
        let (agent, guest) = UnixStream::pair().unwrap();
        let worker = thread::spawn(move || {
            let mut requests = BufReader::new(guest.try_clone().unwrap()).lines();
            (&guest).write_all(b"rehearsal\nready\n").unwrap();
            assert_eq!(requests.next().unwrap().unwrap(), REHEARSAL);
            (&guest).write_all(b"rehearsal\nready\n").unwrap();
            requests.next().is_none()
        });
        converse(agent, || true).unwrap();
        assert!(worker.join().unwrap());
    }

    #[test]
    fn a_broken_protocol_is_an_error() {
        let (agent, mut guest) = UnixStream::pair().unwrap();
        guest.write_all(&[b'x'; 500]).unwrap();
        let error = converse(agent, || false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let (agent, guest) = UnixStream::pair().unwrap();
        drop(guest);
        let error = converse(agent, || false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
