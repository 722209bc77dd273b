//! Waits until the host lets a build begin. While we wait, the host may freeze the
//! machine, and wake it any number of times: whatever comes after is new each time.

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

/// How long we wait for a host that says nothing. A frozen machine's clock stands
/// still, so this does not limit how long it may be frozen.
const LIMIT: Duration = Duration::from_mins(1);
/// How often the host is told again that we are ready: it may be another one.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to rest when the host is not connected.
const AWAY: Duration = Duration::from_millis(2);
/// No line of the host is longer.
const LINE_MAX: usize = 1024;

/// Waits until the host lets us begin, and takes over what is new. Returns at once
/// on a machine without [`task::CONTROL_PORT`], and on one whose clock and random
/// numbers we may not set: then it is not to be frozen.
///
/// # Errors
/// The host does not let us begin, or not in a way that we understand.
pub fn for_the_task(log: &mut Log) -> Result<(), WorkerError> {
    let classes = Path::new(virtio_port::CLASSES);
    let Some(device) = virtio_port::device(task::CONTROL_PORT, classes, Path::new("/dev")) else {
        return Ok(());
    };
    match reseed::rehearse().and_then(|()| open(&device)) {
        Ok(mut port) => {
            let go = wait(&mut port).and_then(|go| reseed::take_over(&go));
            go.map_err(WorkerError::Wait)
        }
        Err(error) => {
            log.say(&format!("this machine cannot be frozen: {error}"));
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

/// Says that we are ready until the host answers.
fn wait(port: &mut File) -> io::Result<StartMessage> {
    let until = Instant::now() + LIMIT;
    let mut heard = Vec::new();
    while Instant::now() < until {
        // What the host cannot take now it is told again.
        let _ = port.write_all(format!("{}\n", task::READY).as_bytes());
        if let Some(line) = line(port, &mut heard, Instant::now() + AGAIN)? {
            return StartMessage::parse(&line).map_err(io::Error::other);
        }
    }
    Err(io::Error::new(
        ErrorKind::TimedOut,
        "it does not say when to begin",
    ))
}

/// Reads a line; `None` when none has come in time.
fn line(port: &mut File, heard: &mut Vec<u8>, until: Instant) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line = heard.drain(..=end).collect::<Vec<_>>();
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut buffer = [0; LINE_MAX];
        match port.read(&mut buffer) {
            Ok(0) => std::thread::sleep(AWAY.min(left)),
            Ok(count) if heard.len() + count <= LINE_MAX => {
                heard.extend_from_slice(&buffer[..count]);
            }
            Ok(_) => return Err(io::Error::other("it says too much")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(port, left)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read, or `left` is over.
fn pause(port: &File, left: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
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

    /// A port, and the host's side of it.
    fn port() -> (File, UnixStream) {
        let (ours, hosts) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (File::from(OwnedFd::from(ours)), hosts)
    }

    #[test]
    fn a_host_that_answers_late_is_told_again_that_we_are_ready() {
        let (mut port, hosts) = port();
        let go = StartMessage {
            time: Duration::new(1_700_000_000, 5),
            random: [7; 64],
        };
        let answer = go.print();
        let host = std::thread::spawn(move || {
            let mut lines = BufReader::new(hosts.try_clone().unwrap()).lines();
            for _ in 0..2 {
                assert_eq!(lines.next().unwrap().unwrap(), task::READY);
            }
            let (head, rest) = answer.as_bytes().split_at(10);
            (&hosts).write_all(head).unwrap();
            (&hosts).write_all(rest).unwrap();
            hosts
        });
        assert_eq!(wait(&mut port).unwrap(), go);
        host.join().unwrap();
    }

    #[test]
    fn what_is_no_permission_lets_nothing_begin() {
        let (mut port, mut hosts) = port();
        hosts.write_all(b"go away\n").unwrap();
        assert!(wait(&mut port).is_err());
        hosts.write_all(&[b'x'; 5000]).unwrap();
        assert!(wait(&mut port).is_err());
    }
}
