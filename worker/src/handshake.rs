//! The handshake on the control port: the worker waits for the host to start the task.
//!
//! While it waits, the host may save a checkpoint of the machine and restore it any number
//! of times. The copies are identical up to the end of the handshake.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use config::task::{self, StartMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::log::Log;
use crate::{WorkerError, reseed, virtio_port};

/// The time that the host has to answer. The clock of a checkpoint stands still, so its age
/// does not count.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The interval at which [`task::READY`] is repeated: another agent may listen by then.
const READY_INTERVAL: Duration = Duration::from_secs(1);
/// The pause while the host is not connected.
const DISCONNECTED_PAUSE: Duration = Duration::from_millis(2);
/// The longest line that the host may send.
const LINE_MAX: usize = 1024;

/// Waits for the host to start the task, and applies its start message. Returns at once
/// on a machine without [`task::CONTROL_PORT`], and on one that may not set its clock and
/// reseed its random numbers: such a machine gets no checkpoint.
///
/// # Errors
/// The host does not answer, or its answer is invalid.
pub fn wait_for_start(log: &mut Log) -> Result<(), WorkerError> {
    let classes = Path::new(virtio_port::CLASSES);
    let Some(device) = virtio_port::device(task::CONTROL_PORT, classes, Path::new("/dev")) else {
        return Ok(());
    };
    match reseed::check().and_then(|()| open(&device)) {
        Ok(mut port) => receive_start(&mut port)
            .and_then(|message| reseed::apply(&message))
            .map_err(WorkerError::Handshake),
        Err(error) => {
            log.line(&format!("this machine cannot be checkpointed: {error}"));
            Ok(())
        }
    }
}

fn open(device: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(device)
}

/// Sends [`task::READY`] until the host answers.
fn receive_start(port: &mut File) -> io::Result<StartMessage> {
    let deadline = Instant::now() + TIMEOUT;
    let mut received = Vec::new();
    while Instant::now() < deadline {
        // If the line cannot be written now, the next repetition makes up for it.
        let _ = port.write_all(format!("{}\n", task::READY).as_bytes());
        if let Some(line) = read_line(port, &mut received, Instant::now() + READY_INTERVAL)? {
            return StartMessage::parse(&line).map_err(io::Error::other);
        }
    }
    Err(io::Error::new(
        ErrorKind::TimedOut,
        format!(
            "no start message within {} seconds on the port {}",
            TIMEOUT.as_secs(),
            task::CONTROL_PORT
        ),
    ))
}

/// Reads a line. Returns `None` if no line arrives before `deadline`.
fn read_line(
    port: &mut File,
    received: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line = received.drain(..=end).collect::<Vec<_>>();
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut buffer = [0; LINE_MAX];
        match port.read(&mut buffer) {
            Ok(0) => std::thread::sleep(DISCONNECTED_PAUSE.min(left)),
            Ok(count) if received.len() + count <= LINE_MAX => {
                received.extend_from_slice(&buffer[..count]);
            }
            Ok(_) => return Err(io::Error::other("the host sent too long a line")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_readable(port, left)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the port is readable, for at most `timeout`.
fn wait_readable(port: &File, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(port, PollFlags::IN)], Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(()),
        polled => Ok(polled.map(|_| ())?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Returns the guest's and the host's end of a port.
    fn port() -> (File, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        (File::from(OwnedFd::from(guest)), host)
    }

    #[test]
    fn ready_is_repeated_until_the_host_answers() {
        let (mut port, host) = port();
        let message = StartMessage {
            time: Duration::new(1_700_000_000, 5),
            random: [7; 64],
        };
        let line = message.print();
        let answer = std::thread::spawn(move || {
            let mut lines = BufReader::new(host.try_clone().unwrap()).lines();
            for _ in 0..2 {
                assert_eq!(lines.next().unwrap().unwrap(), task::READY);
            }
            let (head, rest) = line.as_bytes().split_at(10);
            (&host).write_all(head).unwrap();
            (&host).write_all(rest).unwrap();
            host
        });
        assert_eq!(receive_start(&mut port).unwrap(), message);
        answer.join().unwrap();
    }

    #[test]
    fn an_invalid_start_message_is_an_error() {
        let (mut port, mut host) = port();
        host.write_all(b"go away\n").unwrap();
        assert!(receive_start(&mut port).is_err());
        host.write_all(&[b'x'; 5000]).unwrap();
        assert!(receive_start(&mut port).is_err());
    }
}
