//! The handshake on the control port: the worker waits for the host to start the task.
//!
//! While it waits, the host may save a checkpoint of the machine and restore it any number
//! of times. The copies are identical up to the end of the handshake.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use config::task::{self, Preload, StartMessage};
use tftp::client::Client;

use crate::log::Log;
use crate::port::{self, Lines};
use crate::{WorkerError, rehearsal, reseed, virtio_port};

/// The time that the host has to answer. The clock of a checkpoint stands still, so its age
/// does not count.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The interval at which [`task::READY`] is repeated: another agent may listen by then.
const READY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest line that the host may send.
const LINE_MAX: usize = 1024;

/// The control port. It can be opened once at a time.
#[derive(Debug)]
pub struct ControlPort {
    lines: Lines,
}

/// Waits for the host to start the task, and applies its start message. Returns the control
/// port. Preloads and rehearses with the client before that if the host wants it. Returns `None` at
/// once on a machine without [`task::CONTROL_PORT`], and on one that may not set its clock and reseed
/// its random numbers: such a machine gets no checkpoint.
///
/// # Errors
/// The host does not answer, or its answer is invalid.
pub fn wait_for_start(
    client: &Client,
    preload: Option<impl FnOnce(Preload, &mut Log)>,
    log: &mut Log,
) -> Result<Option<ControlPort>, WorkerError> {
    let classes = Path::new(virtio_port::CLASSES);
    let Some(device) = virtio_port::device(task::CONTROL_PORT, classes, Path::new("/dev")) else {
        return Ok(None);
    };
    match reseed::check().and_then(|()| port::open(&device)) {
        Ok(file) => {
            let mut port = ControlPort::new(file);
            let preload = preload.map(|preload| |request| preload(request, log));
            let message = port.receive_start(|| rehearsal::run(client), preload);
            message
                .and_then(|message| reseed::apply(&message))
                .map_err(WorkerError::Handshake)?;
            Ok(Some(port))
        }
        Err(error) => {
            log.line(&format!("this machine cannot be checkpointed: {error}"));
            Ok(None)
        }
    }
}

impl ControlPort {
    pub(crate) fn new(file: File) -> Self {
        let lines = Lines::new(file, LINE_MAX);
        Self { lines }
    }

    /// Returns the lines of the port, for a protocol with longer ones.
    pub(crate) fn lines(&mut self, bytes_max: usize) -> &mut Lines {
        self.lines.set_bytes_max(bytes_max.max(LINE_MAX));
        &mut self.lines
    }

    /// Reads a line. Returns `None` if no line arrives before `deadline`, which may have passed.
    pub(crate) fn read_line(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        self.lines.read(deadline)
    }

    /// Sends [`task::PRELOAD`] until it has preloaded, [`task::REHEARSAL`] and [`task::READY`],
    /// until the host starts the task. Preloads once and rehearses whenever the host wants that.
    fn receive_start(
        &mut self,
        rehearse: impl Fn(),
        mut preload: Option<impl FnOnce(Preload)>,
    ) -> io::Result<StartMessage> {
        let mut deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            // If a line cannot be written now, the next repetition makes up for it.
            if preload.is_some() {
                let _ = self.lines.write(task::PRELOAD);
            }
            let _ = self.lines.write(task::REHEARSAL);
            let Some(line) = self.exchange_ready()? else {
                continue;
            };
            if let Some(request) = Preload::parse(&line) {
                if let Some(preload) = preload.take() {
                    preload(request);
                }
            } else if line.trim() == task::REHEARSAL {
                rehearse();
            } else {
                return StartMessage::parse(&line).map_err(io::Error::other);
            }
            deadline = Instant::now() + TIMEOUT;
        }
        Err(timed_out())
    }

    /// Sends [`task::READY`] until the host lets the processes of a build continue.
    pub(crate) fn receive_continue(&mut self) -> io::Result<StartMessage> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(line) = self.exchange_ready()? {
                return StartMessage::parse(&line).map_err(io::Error::other);
            }
        }
        Err(timed_out())
    }

    /// Sends [`task::READY`] and returns the answer; `None` if none arrives within
    /// [`READY_INTERVAL`].
    fn exchange_ready(&mut self) -> io::Result<Option<String>> {
        // If the line cannot be written now, the next repetition makes up for it.
        let _ = self.lines.write(task::READY);
        self.read_line(Instant::now() + READY_INTERVAL)
    }
}

fn timed_out() -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        format!(
            "no start message within {} seconds on the port {}",
            TIMEOUT.as_secs(),
            task::CONTROL_PORT
        ),
    )
}
#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Returns the guest's and the host's end of a port.
    fn port() -> (ControlPort, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (ControlPort::new(File::from(OwnedFd::from(guest))), host)
    }

    const NO_PRELOAD: Option<fn(Preload)> = None;

    #[test]
    fn a_worker_preloads_once_and_offers_it_until_then() {
        let (mut port, host) = port();
        let message = StartMessage {
            time: Duration::from_secs(1),
            random: [1; 64],
            fork: None,
        };
        let line = message.print();
        let answer = std::thread::spawn(move || {
            let mut lines = BufReader::new(host.try_clone().unwrap()).lines();
            let mut next = || lines.next().unwrap().unwrap();
            assert_eq!([next(), next(), next()], ["preload", "rehearsal", "ready"]);
            (&host).write_all(b"preload cache\npreload\n").unwrap();
            assert_eq!([next(), next()], ["rehearsal", "ready"]);
            (&host).write_all(line.as_bytes()).unwrap();
            host
        });
        let requests = std::cell::RefCell::new(Vec::new());
        let preload = |request| requests.borrow_mut().push(request);
        assert_eq!(port.receive_start(|| {}, Some(preload)).unwrap(), message);
        assert_eq!(
            requests.take(),
            [Preload {
                cache: true,
                hashserv: false
            }]
        );
        answer.join().unwrap();
    }

    #[test]
    fn ready_is_repeated_until_the_host_answers() {
        let (mut port, host) = port();
        let message = StartMessage {
            time: Duration::new(1_700_000_000, 5),
            random: [7; 64],
            fork: None,
        };
        let line = message.print();
        let answer = std::thread::spawn(move || {
            let mut lines = BufReader::new(host.try_clone().unwrap()).lines();
            for _ in 0..2 {
                assert_eq!(lines.next().unwrap().unwrap(), task::REHEARSAL);
                assert_eq!(lines.next().unwrap().unwrap(), task::READY);
            }
            let (head, rest) = line.as_bytes().split_at(10);
            (&host).write_all(head).unwrap();
            (&host).write_all(rest).unwrap();
            host
        });
        assert_eq!(port.receive_start(|| {}, NO_PRELOAD).unwrap(), message);
        answer.join().unwrap();
    }

    #[test]
    fn a_worker_rehearses_as_often_as_the_host_wants_it() {
        let (mut port, mut host) = port();
        let message = StartMessage {
            time: Duration::from_secs(1),
            random: [1; 64],
            fork: None,
        };
        let lines = format!("rehearsal\nrehearsal\n{}", message.print());
        host.write_all(lines.as_bytes()).unwrap();
        let rehearsals = std::cell::Cell::new(0);
        let count = || rehearsals.set(rehearsals.get() + 1);
        assert_eq!(port.receive_start(count, NO_PRELOAD).unwrap(), message);
        assert_eq!(rehearsals.get(), 2);
    }

    #[test]
    fn an_invalid_start_message_is_an_error() {
        for answer in [&b"go away\n"[..], &[b'x'; 5000]] {
            let (mut port, mut host) = port();
            host.write_all(answer).unwrap();
            assert!(port.receive_start(|| {}, NO_PRELOAD).is_err());
        }
    }
}
