//! QMP, the protocol of QEMU's monitor: one JSON object a line over a unix socket, both
//! ways. Every exchange has a deadline.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use super::socket::connect_to;

/// The time for one exchange; QEMU answers from its main loop.
const LIMIT: Duration = Duration::from_secs(10);
/// The size of the longest line; no expected answer is nearly as long.
const LINE_MAX: usize = 256 * 1024;
/// The number of characters of an unexpected message that an error quotes.
const QUOTED_MAX: usize = 200;

/// A reason why QEMU did not execute a command.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU or the connection is gone.
    #[error("cannot talk to QEMU's monitor")]
    Io(#[from] io::Error),
    /// QEMU sent a message that is no answer.
    #[error("QEMU's monitor sent an unexpected message: {0}")]
    Unexpected(String),
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's explanation.
        reason: String,
    },
    /// The transfer of a checkpoint's state failed or took too long.
    #[error("QEMU could not {0} the guest's state")]
    State(&'static str),
    /// The guest is a container.
    #[error("a container has no monitor and cannot be suspended or checkpointed")]
    Container,
    /// QEMU did not answer in time.
    #[error("QEMU's monitor did not answer within {} s", LIMIT.as_secs())]
    Timeout,
}

/// A connection to a monitor. QEMU serves one at a time.
pub(crate) struct Qmp {
    stream: UnixStream,
    /// The bytes after the last line that was read.
    received: Vec<u8>,
}

impl Qmp {
    /// Connects and negotiates the capabilities.
    pub(crate) fn connect(path: &Path) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream: connect_to(path)?,
            received: Vec::new(),
        };
        let greeting = qmp.read_message(Instant::now() + LIMIT)?;
        if greeting.get("QMP").is_none() {
            return Err(unexpected(&greeting.to_string()));
        }
        qmp.command("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Executes a command without arguments.
    pub(crate) fn command(&mut self, command: &str) -> Result<(), QmpError> {
        self.execute(command, &json!({})).map(|_| ())
    }

    /// Executes a command and returns its answer. Skips events before it.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let deadline = Instant::now() + LIMIT;
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.set_write_timeout(Some(LIMIT))?;
        self.stream.write_all(line.as_bytes()).map_err(timeout)?;
        self.read_answer(command, deadline)
    }

    /// Passes a descriptor to QEMU, under a name by which commands can use it.
    pub(crate) fn send_fd(&mut self, name: &str, fd: impl AsFd) -> Result<(), QmpError> {
        self.execute_with_fd("getfd", &json!({ "fdname": name }), fd)
    }

    /// Passes a descriptor to QEMU, in a set whose path `/dev/fdset/SET` commands can open.
    pub(crate) fn add_fd(&mut self, set: u32, fd: impl AsFd) -> Result<(), QmpError> {
        self.execute_with_fd("add-fd", &json!({ "fdset-id": set }), fd)
    }

    /// Executes a command together with a descriptor.
    fn execute_with_fd(
        &mut self,
        command: &str,
        arguments: &Value,
        fd: impl AsFd,
    ) -> Result<(), QmpError> {
        let deadline = Instant::now() + LIMIT;
        let line = json!({ "execute": command, "arguments": arguments });
        let line = line.to_string() + "\n";
        self.stream.set_write_timeout(Some(LIMIT))?;
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&fds));
        let data = [IoSlice::new(line.as_bytes())];
        let sent = sendmsg(&self.stream, &data, &mut rights, SendFlags::NOSIGNAL)
            .map_err(|error| timeout(error.into()))?;
        if sent < line.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        self.read_answer(command, deadline).map(|_| ())
    }

    fn read_answer(&mut self, command: &str, deadline: Instant) -> Result<Value, QmpError> {
        loop {
            let mut message = self.read_message(deadline)?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                let reason = error.get("desc").and_then(Value::as_str);
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason: quoted(reason.unwrap_or_default()),
                });
            }
            if message.get("event").is_none() {
                return Err(unexpected(&message.to_string()));
            }
        }
    }

    fn read_message(&mut self, deadline: Instant) -> Result<Value, QmpError> {
        let mut buffer = [0; 4096];
        let mut searched = 0;
        loop {
            let end = self.received[searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line: Vec<_> = self.received.drain(..=searched + end).collect();
                return serde_json::from_slice(&line)
                    .map_err(|_| unexpected(&String::from_utf8_lossy(&line)));
            }
            searched = self.received.len();
            if searched > LINE_MAX {
                return Err(unexpected(&String::from_utf8_lossy(&self.received)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::Timeout);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timeout(error)),
            }
        }
    }
}

/// Tells a socket's time limit from its errors.
fn timeout(error: io::Error) -> QmpError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => QmpError::Timeout,
        _ => error.into(),
    }
}

fn unexpected(message: &str) -> QmpError {
    QmpError::Unexpected(quoted(message))
}

fn quoted(message: &str) -> String {
    let start: String = message.chars().take(QUOTED_MAX).collect();
    config::text::printable(&start).to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const GREETING: &str = "{\"QMP\": {}}\n";
    const EMPTY: &str = "{\"return\": {}}\n";

    /// Executes a command against a monitor that sends one of these texts at the start and
    /// after each line that it receives.
    fn execute_against(messages: &'static [&'static str]) -> Result<Value, QmpError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut stream = BufReader::new(stream);
                for message in messages {
                    stream.get_mut().write_all(message.as_bytes()).unwrap();
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                }
            });
            Qmp::connect(&path)?.execute("query-x", &json!({}))
        })
    }

    #[test]
    fn events_before_an_answer_are_skipped() {
        let answer =
            execute_against(&[GREETING, EMPTY, "{\"event\": \"STOP\"}\n{\"return\": 7}\n"]);
        assert_eq!(answer.unwrap(), json!(7));
    }

    #[test]
    fn refusals_unexpected_messages_and_lost_connections_are_distinguished() {
        let refused = execute_against(&[GREETING, EMPTY, "{\"error\": {\"desc\": \"no\"}}\n"]);
        let error = refused.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused `query-x`: no");
        let no_json = execute_against(&[GREETING, EMPTY, "what\n"]);
        assert!(matches!(no_json, Err(QmpError::Unexpected(_))));
        let no_greeting = execute_against(&["{\"hello\": 1}\n"]);
        assert!(matches!(no_greeting, Err(QmpError::Unexpected(_))));
        let lost = execute_against(&[GREETING, EMPTY]);
        assert!(matches!(lost, Err(QmpError::Io(_))));
    }

    #[test]
    fn a_monitor_that_stays_silent_times_out() {
        let (stream, _peer) = UnixStream::pair().unwrap();
        let mut qmp = Qmp {
            stream,
            received: Vec::new(),
        };
        let deadline = Instant::now() + Duration::from_millis(20);
        let answer = qmp.read_message(deadline);
        assert!(matches!(answer, Err(QmpError::Timeout)));
    }
}
