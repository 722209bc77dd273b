//! Another build host: its `buildhost`, called by ssh.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use config::MachineName;
use config::canary::Terms;
use serde::de::DeserializeOwned;
use sys::command::{CommandError, Running};
use sys::ssh::{SshCommand, UNATTENDED};

use super::session::{self, Announcement, Greeting, Reply, Request};
use super::{RemoteRefusal, quote, ssh};
use crate::{Result, StoreError};
use btrfs::error::IoContext;
use btrfs::stream::{READ_TIMEOUT, SendStream, Sender, TimeoutReader};

/// The time limit for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The time limit after the end of a stream: the receiver verifies the content and commits it
/// to the disk.
const INGEST_TIMEOUT: Duration = Duration::from_hours(1);
/// The exit code of an ssh that has failed itself.
const SSH_FAILED: i32 = 255;
/// The exit code of a `buildhost` that does not know the command.
const USAGE: i32 = 2;
/// The exit code of a shell that does not find the program.
const NO_PROGRAM: i32 = 127;

/// Another host with a volume.
#[derive(Debug, Clone)]
pub struct RemoteHost {
    /// The ssh command with its options.
    pub ssh: SshCommand,
    /// The host, as `[user@]host`.
    pub host: String,
    /// The program to call on the host.
    pub program: String,
    /// The volume on the host; `None` for its default.
    pub volume: Option<PathBuf>,
}

impl RemoteHost {
    /// Connects to the host to send it a revision of a machine. The host describes the machine. It
    /// prunes old revisions after the new one has arrived.
    ///
    /// # Errors
    /// The host cannot be reached, or its answer is not understood.
    pub fn connect_to_send(
        &self,
        machine: &MachineName,
        keep: Option<NonZeroU32>,
        trial: Option<Terms>,
    ) -> Result<RemoteSession> {
        let keep = keep.map(|keep| keep.to_string());
        // Without a space, because a shell reads it.
        let trial = trial.map(|terms| terms.to_string().replace(" of ", "/"));
        let mut words = vec!["receive", machine.as_str(), "--quiet"];
        words.extend(keep.iter().flat_map(|keep| ["--keep", keep]));
        words.extend(trial.iter().flat_map(|trial| ["--canary", trial]));
        self.connect(&words)
    }

    /// Connects to the host to fetch a revision of a machine. The host describes the machine.
    ///
    /// # Errors
    /// The host cannot be reached, or its answer is not understood.
    pub fn connect_to_fetch(&self, machine: &MachineName) -> Result<RemoteSession> {
        self.connect(&["provide", machine.as_str(), "--quiet"])
    }

    fn connect(&self, words: &[&str]) -> Result<RemoteSession> {
        let mut call = self.call(words);
        call.stdin(Stdio::piped());
        let (reader, writer) = io::pipe().context("create a pipe for", &self.host)?;
        call.stdout(writer);
        let running = Running::start(call).map_err(|error| self.explain(error))?;
        let mut answer = TimeoutReader::pipe(reader)?;
        let (running, greeting) = self.read_line(running, &mut answer)?;
        Ok(RemoteSession {
            peer: Peer::Program(running, self.clone()),
            host: self.host.clone(),
            greeting,
            answer,
        })
    }

    /// Reads a line that the program on the host must print. Without one, the program's failure
    /// is the error.
    fn read_line<T: DeserializeOwned>(
        &self,
        mut running: Running,
        answer: &mut TimeoutReader,
    ) -> Result<(Running, T)> {
        match session::read_line(answer) {
            Ok(Some(line)) => Ok((running, line)),
            Ok(None) => {
                drop(running.child.stdin.take());
                let ended = running.finish(ANSWER_TIMEOUT);
                Err(match ended {
                    Err(error) => self.explain(error),
                    Ok(()) => self.failed(None, String::new()),
                })
            }
            Err(error) => {
                let program = &self.program;
                let message = format!(
                    "the answer of `{program}` is not understood: `{error}`; its shell must print nothing else"
                );
                Err(self.failed(None, message))
            }
        }
    }

    fn call(&self, arguments: &[&str]) -> Command {
        let mut ssh = self.ssh.prepare();
        ssh.args(UNATTENDED);
        // A shell on the host parses the line. Only the path needs quotes.
        let mut line = vec![self.program.clone()];
        if let Some(volume) = &self.volume {
            line.extend(["--volume".to_owned(), quote(volume)]);
        }
        line.extend(arguments.iter().map(|word| (*word).to_owned()));
        ssh.arg("--").arg(&self.host).arg(line.join(" "));
        ssh
    }

    /// Turns the failure of ssh into the host's refusal.
    fn explain(&self, error: CommandError) -> StoreError {
        match error {
            CommandError::Failed { status, stderr, .. } => match status.code() {
                None | Some(SSH_FAILED) => ssh::refusal(&self.host, status, &stderr).into(),
                Some(USAGE) => {
                    let program = &self.program;
                    let message =
                        format!("its `{program}` is older than this one; upgrade it first");
                    self.failed(Some(USAGE), message)
                }
                Some(NO_PROGRAM) => self.failed(status.code(), self.no_program()),
                code => self.failed(code, without_program(&stderr).to_owned()),
            },
            CommandError::TimedOut { limit, .. } => RemoteRefusal::Unreachable {
                host: self.host.clone(),
                message: format!("no answer within {} s", limit.as_secs()),
            }
            .into(),
            error @ CommandError::Start { .. } => error.into(),
        }
    }

    fn no_program(&self) -> String {
        format!(
            "there is no program `{}`; install it there with `scripts/install`, or name it with `--remote-program`",
            self.program
        )
    }

    fn failed(&self, code: Option<i32>, mut message: String) -> StoreError {
        if message.trim().is_empty() {
            message = match code {
                Some(code) => format!("`{}` failed without a message ({code})", self.program),
                None => format!("`{}` answered nothing", self.program),
            };
        }
        RemoteRefusal::Failed {
            host: self.host.clone(),
            code,
            message,
        }
        .into()
    }
}

/// The other end of a session.
#[derive(Debug)]
enum Peer {
    /// A program on another host, started by ssh. Its standard output is the answer, which has to be
    /// read, because ssh ends otherwise.
    Program(Running, RemoteHost),
    /// A connection that the caller has opened.
    Connection(UnixStream),
}

impl Peer {
    /// Returns the place to which lines and streams are written.
    fn sink(&mut self) -> Option<Box<dyn Write>> {
        match self {
            Self::Program(running, _) => Some(Box::new(running.child.stdin.take()?)),
            Self::Connection(stream) => Some(Box::new(stream.try_clone().ok()?)),
        }
    }

    /// Reads a line that the other end must write.
    fn read_line<T: DeserializeOwned>(
        self,
        name: &str,
        answer: &mut TimeoutReader,
    ) -> Result<(Self, T)> {
        let unreachable = |message: String| RemoteRefusal::Unreachable {
            host: name.to_owned(),
            message,
        };
        match self {
            Self::Program(running, host) => {
                let (running, line) = host.read_line(running, answer)?;
                Ok((Self::Program(running, host), line))
            }
            Self::Connection(stream) => match session::read_line(answer) {
                Ok(Some(line)) => Ok((Self::Connection(stream), line)),
                Ok(None) => Err(unreachable("it has closed the connection".to_owned()).into()),
                Err(error) => Err(unreachable(error.to_string()).into()),
            },
        }
    }

    /// Waits for the end of a program. The end of a connection says nothing: streams have their own.
    fn finish(self, limit: Duration) -> Result<()> {
        match self {
            Self::Program(running, host) => {
                running.finish(limit).map_err(|error| host.explain(error))
            }
            Self::Connection(_) => Ok(()),
        }
    }
}

impl Sender for Peer {
    fn finish(self: Box<Self>) -> Result<()> {
        Self::finish(*self, ANSWER_TIMEOUT)
    }
}

/// A connection to a host that receives or sends a revision. Dropping it ends the program there,
/// which changes nothing.
#[derive(Debug)]
pub struct RemoteSession {
    peer: Peer,
    host: String,
    greeting: Greeting,
    answer: TimeoutReader,
}

impl RemoteSession {
    /// Begins to fetch over a connection, at whose other end [`super::provide`] runs on `host`.
    ///
    /// # Errors
    /// The other end does not describe its machine.
    pub fn over(stream: UnixStream, host: String) -> Result<Self> {
        let mut answer = TimeoutReader::pipe(&stream)?;
        let (peer, greeting) = Peer::Connection(stream).read_line(&host, &mut answer)?;
        Ok(Self {
            peer,
            host,
            greeting,
            answer,
        })
    }

    /// Returns the host's description of itself and of the machine.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Returns the name of the host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Requests a revision from the host. `counter` counts the bytes of its stream.
    ///
    /// # Errors
    /// The host cannot be reached, or does not send the revision.
    pub fn request(
        self,
        request: &Request,
        counter: Arc<AtomicU64>,
    ) -> Result<(Reply, RemoteStream)> {
        let Self {
            mut peer,
            host,
            answer,
            ..
        } = self;
        if let Some(mut sink) = peer.sink() {
            // A host that has gone reports the reason below.
            let _ = session::write_line(&mut sink, request);
        }
        let mut answer = answer.with_timeout(session::DECISION_TIMEOUT);
        let (peer, reply) = peer.read_line(&host, &mut answer)?;
        let stream = RemoteStream {
            sender: Box::new(peer),
            input: answer.with_timeout(READ_TIMEOUT).counted(counter),
        };
        Ok((reply, stream))
    }

    /// Sends a stream to the host, which verifies it, makes it the current revision, and then
    /// prunes old revisions. Calls `progress` with the number of bytes sent so far.
    ///
    /// # Errors
    /// The host refuses the stream or fails; its machine is as it was before.
    pub fn send(
        self,
        announcement: &Announcement,
        stream: SendStream,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let Self {
            mut peer, answer, ..
        } = self;
        if let Some(sink) = peer.sink() {
            let mut sink = ProgressWriter {
                sink,
                count: 0,
                progress,
            };
            // A host that has gone reports the reason below.
            let announced = session::write_line(&mut sink.sink, announcement);
            if let Ok(Err(error)) = announced.map(|()| stream.copy_to(&mut sink)) {
                // ssh is killed before its input ends, so that the host cannot take a cut stream
                // for a complete one.
                drop(peer);
                return Err(error);
            }
        }
        let ended = peer.finish(INGEST_TIMEOUT);
        drop(answer);
        ended
    }
}

/// A stream that another host sends.
#[derive(Debug)]
pub struct RemoteStream {
    /// The program on the host.
    pub sender: Box<dyn Sender>,
    /// The bytes of the stream.
    pub input: TimeoutReader,
}

/// Returns a message without the name of the program before it.
fn without_program(message: &str) -> &str {
    ["buildhost: ", "machinectl: "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        .unwrap_or(message)
}

/// A writer that reports the number of bytes written so far.
struct ProgressWriter<'a, W> {
    sink: W,
    count: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<W: Write> Write for ProgressWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.count += written as u64;
        (self.progress)(self.count);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
