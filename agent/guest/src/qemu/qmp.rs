//! QEMU's monitor: one JSON object a line over a unix socket, both ways.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// How long QEMU may take for an answer; it answers from its main loop.
const LIMIT: Duration = Duration::from_secs(10);
/// No answer that we ask for is nearly as long.
const LINE_MAX: u64 = 256 * 1024;

/// Why QEMU did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It is gone, or the connection is.
    #[error("cannot talk to QEMU's monitor")]
    Talk(#[from] io::Error),
    /// It said something that is no answer.
    #[error("QEMU's monitor says what we do not understand: {0}")]
    Strange(String),
    /// It refused.
    #[error("QEMU refuses `{command}`: {reason}")]
    Refused {
        /// What it was told.
        command: String,
        /// What it says.
        reason: String,
    },
    /// What it was told to do goes on for too long, or came to nothing.
    #[error("QEMU could not {0} the guest's state")]
    State(&'static str),
    /// There is none to tell.
    #[error("a container has no monitor and cannot be stopped or frozen")]
    None,
    /// It does not answer.
    #[error("QEMU's monitor does not answer within {} s", LIMIT.as_secs())]
    Late,
}

/// A connection to a monitor. QEMU talks to one at a time.
pub(crate) struct Monitor {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Monitor {
    /// Connects and gets ready for commands.
    pub(crate) async fn connect(path: &Path) -> Result<Self, QmpError> {
        let connect = async {
            let (reader, writer) = UnixStream::connect(path).await?.into_split();
            let mut monitor = Self {
                reader: BufReader::new(reader),
                writer,
            };
            let greeting = monitor.line().await?;
            if greeting.get("QMP").is_none() {
                return Err(strange(&greeting));
            }
            Ok(monitor)
        };
        let mut monitor = timeout(LIMIT, connect)
            .await
            .map_err(|_| QmpError::Late)??;
        monitor.command("qmp_capabilities").await?;
        Ok(monitor)
    }

    /// Gives a command without arguments and waits until it is done.
    pub(crate) async fn command(&mut self, command: &str) -> Result<(), QmpError> {
        self.execute(command, json!({})).await.map(|_| ())
    }

    /// Gives a command and returns its answer. Events before it are passed over.
    pub(crate) async fn execute(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        let write = self.writer.write_all(line.as_bytes());
        timeout(LIMIT, write).await.map_err(|_| QmpError::Late)??;
        self.answer(command).await
    }

    /// The answer to the last command.
    async fn answer(&mut self, command: &str) -> Result<Value, QmpError> {
        let answer = async {
            loop {
                let mut said = self.line().await?;
                if let Some(answer) = said.get_mut("return") {
                    return Ok(answer.take());
                }
                if let Some(error) = said.get("error") {
                    let reason = error.get("desc").and_then(Value::as_str);
                    return Err(QmpError::Refused {
                        command: command.to_owned(),
                        reason: reason.unwrap_or_default().to_owned(),
                    });
                }
                if said.get("event").is_none() {
                    return Err(strange(&said));
                }
            }
        };
        timeout(LIMIT, answer).await.map_err(|_| QmpError::Late)?
    }

    /// Hands a descriptor over, under a name by which commands can use it.
    pub(crate) async fn give(&mut self, name: &str, fd: impl AsFd) -> Result<(), QmpError> {
        let line = json!({ "execute": "getfd", "arguments": { "fdname": name } });
        let line = line.to_string() + "\n";
        let stream: &UnixStream = self.writer.as_ref();
        let fds = [fd.as_fd()];
        let hand_over = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            rights.push(SendAncillaryMessage::ScmRights(&fds));
            let data = [IoSlice::new(line.as_bytes())];
            Ok(sendmsg(stream, &data, &mut rights, SendFlags::empty())?)
        };
        let sent = stream.async_io(Interest::WRITABLE, hand_over);
        let sent = timeout(LIMIT, sent).await.map_err(|_| QmpError::Late)??;
        if sent < line.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        self.answer("getfd").await.map(|_| ())
    }

    async fn line(&mut self) -> Result<Value, QmpError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(LINE_MAX);
        limited.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let unread = |_| QmpError::Strange(short(&String::from_utf8_lossy(&line)));
        serde_json::from_slice(&line).map_err(unread)
    }
}

fn strange(value: &Value) -> QmpError {
    QmpError::Strange(short(&value.to_string()))
}

fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A monitor that says these lines, one after each line that it hears.
    async fn against(lines: &'static [&'static str]) -> Result<Value, QmpError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("monitor");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            for line in lines {
                stream.write_all(line.as_bytes()).await.unwrap();
                let mut heard = String::new();
                stream.read_line(&mut heard).await.unwrap();
            }
        });
        let mut monitor = Monitor::connect(&path).await?;
        let answer = monitor.execute("query-x", json!({})).await;
        drop(monitor);
        server.await.unwrap();
        answer
    }

    const GREETING: &str = "{\"QMP\": {}}\n";

    #[tokio::test]
    async fn events_before_an_answer_are_passed_over() {
        let answer = against(&[
            GREETING,
            "{\"return\": {}}\n",
            "{\"event\": \"STOP\"}\n{\"return\": 7}\n",
        ]);
        assert_eq!(answer.await.unwrap(), json!(7));
    }

    #[tokio::test]
    async fn refusals_nonsense_and_silence_are_told_apart() {
        let refused = against(&[
            GREETING,
            "{\"return\": {}}\n",
            "{\"error\": {\"desc\": \"no\"}}\n",
        ]);
        let error = refused.await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refuses `query-x`: no");
        let nonsense = against(&[GREETING, "{\"return\": {}}\n", "what\n"]).await;
        assert!(matches!(nonsense, Err(QmpError::Strange(_))));
        let other = against(&["{\"hello\": 1}\n"]).await;
        assert!(matches!(other, Err(QmpError::Strange(_))));
        let gone = against(&[GREETING, "{\"return\": {}}\n"]).await;
        assert!(matches!(gone, Err(QmpError::Talk(_))));
    }
}
