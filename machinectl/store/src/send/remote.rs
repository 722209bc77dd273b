//! The program on a remote host, called by ssh.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use config::{MachineName, Revision};
use serde::Deserialize;

use super::quote;
use crate::stream::Stream;
use crate::stream::input::Patient;
use crate::{Intent, Refusal, RefusalKind, Result, StoreError, Uuid};
use sys::command::{self, CommandError, Running};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_mins(1);
/// How long the other side may take when the stream has ended: it checks the
/// content and waits for its disk.
const FINISH_MAX: Duration = Duration::from_hours(1);
/// What ssh says when it is ssh that failed.
const SSH_FAILED: i32 = 255;

/// The exit code of a `buildhost` that does not know the machine.
const NOT_FOUND: i32 = 10;

/// A reason why another host does not do what was requested.
#[derive(Debug, thiserror::Error)]
pub enum RemoteRefusal {
    /// The host cannot be reached, or the connection broke.
    #[error("cannot reach {host}: {message}; nothing there is left half done, so retry later")]
    Unreachable {
        /// The host.
        host: String,
        /// The message of ssh.
        message: String,
    },
    /// The program on the host failed, or its answer is not understood.
    #[error("{host}: {message}")]
    Failed {
        /// The host.
        host: String,
        /// The program's exit code; `None` if it succeeded with an unknown answer.
        code: Option<i32>,
        /// The program's message or answer.
        message: String,
    },
}

impl Refusal for RemoteRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Unreachable { .. } | Self::Failed { code: None, .. } => RefusalKind::Unreachable,
            Self::Failed {
                code: Some(code), ..
            } => RefusalKind::Remote(*code),
        }
    }
}

/// Another host with a volume.
#[derive(Debug, Clone)]
pub struct FarSide {
    /// The ssh to use, with its options: `ssh -p 2222`.
    pub ssh: String,
    /// `[user@]host`.
    pub host: String,
    /// The program that is called there.
    pub program: String,
    /// The volume there; `None` for its default.
    pub volume: Option<PathBuf>,
}

/// What a machine is on the other host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FarView {
    /// The revision in effect.
    pub current: Option<Revision>,
    /// All revisions.
    pub revisions: Vec<FarRevision>,
}

/// A revision on the other host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FarRevision {
    /// Its number.
    pub revision: Revision,
    /// Whether it may be built upon.
    pub complete: bool,
    uuid: String,
    received_uuid: Option<String>,
}

impl FarRevision {
    /// Whether it carries the identity of what it was received from.
    pub fn is_received(&self) -> bool {
        self.received_uuid.is_some()
    }
}

impl FarView {
    /// The identities under which streams can build on what is there.
    pub fn identities(&self) -> Vec<Uuid> {
        let complete = self.revisions.iter().filter(|it| it.complete);
        let all = complete.flat_map(|it| [Some(&it.uuid), it.received_uuid.as_ref()]);
        all.flatten()
            .filter_map(|text| Uuid::parse_str(text).ok())
            .collect()
    }
}

impl FarSide {
    /// What a machine is there; `None` when it is not.
    ///
    /// # Errors
    /// When the host cannot be reached or does not understand us.
    pub fn look(&self, machine: &MachineName) -> Result<Option<FarView>> {
        let call = self.call(&["status", machine.as_str(), "--json"]);
        match command::run(call, ANSWER_MAX) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| {
                let said = String::from_utf8_lossy(&text).chars().take(100).collect();
                self.refusal(None, said)
            }),
            Err(error) => match self.refused(error) {
                error if error.kind() == Some(RefusalKind::Remote(NOT_FOUND)) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Passes a stream on to the other side, which checks it, makes it current, and
    /// then keeps only so many revisions.
    ///
    /// # Errors
    /// What the other side says; it is as it was then.
    pub fn bring_in(
        &self,
        intent: Intent,
        machine: &MachineName,
        stream: Stream<Patient>,
        keep: Option<NonZeroU32>,
        passed: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        let verb = match intent {
            Intent::Add => "add",
            Intent::Upgrade => "upgrade",
        };
        let keep = keep.map(|keep| keep.to_string());
        let mut words = vec![verb, machine.as_str(), "--from", "-", "--quiet"];
        words.extend(keep.iter().flat_map(|keep| ["--keep", keep]));
        let mut call = self.call(&words);
        call.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = Running::start(call).map_err(|error| self.refused(error))?;
        let sink = running.child.stdin.take();
        let poured = match sink {
            Some(sink) => stream.pour(Counted {
                sink,
                count: 0,
                passed,
            }),
            None => Ok(0),
        };
        if let Err(error) = poured {
            // What is cut must not look like an end to the other side.
            drop(running);
            return Err(error.into());
        }
        running
            .finish(FINISH_MAX)
            .map_err(|error| self.refused(error))?;
        Ok(poured.unwrap_or_default())
    }

    /// Starts to fetch a revision from there.
    ///
    /// # Errors
    /// When ssh cannot be started.
    pub fn send(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
    ) -> Result<(Running, Patient)> {
        let mut call = self.call_send(machine, revision, known, &[]);
        call.stdout(Stdio::piped());
        let mut running = Running::start(call).map_err(|error| self.refused(error))?;
        match running.child.stdout.take() {
            Some(stdout) => Ok((running, Patient::pipe(stdout)?)),
            None => Err(self.refusal(None, String::new())),
        }
    }

    /// About how many bytes a fetch will bring.
    ///
    /// # Errors
    /// When the other side cannot tell.
    pub fn measure(
        &self,
        machine: &MachineName,
        revision: Revision,
        known: &[Uuid],
    ) -> Result<u64> {
        let call = self.call_send(machine, Some(revision), known, &["--measure"]);
        let text = command::run(call, ANSWER_MAX).map_err(|error| self.refused(error))?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        text.parse().map_err(|_| self.refusal(None, text))
    }

    fn call_send(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
        options: &[&str],
    ) -> Command {
        let mut arguments = vec!["send".to_owned(), machine.to_string()];
        arguments.extend(revision.map(|revision| revision.to_string()));
        for uuid in known {
            arguments.extend(["--known".to_owned(), uuid.to_string()]);
        }
        let mut words: Vec<_> = arguments.iter().map(String::as_str).collect();
        words.extend(options);
        self.call(&words)
    }

    /// Ends a fetch; the other side's reason if it failed.
    ///
    /// # Errors
    /// What the other side says.
    pub fn sent(&self, running: Running) -> Result<()> {
        running
            .finish(ANSWER_MAX)
            .map_err(|error| self.refused(error))
    }

    fn call(&self, arguments: &[&str]) -> Command {
        let mut words = self.ssh.split_whitespace();
        let mut call = command::prepare(words.next().unwrap_or("ssh"));
        call.args(words).args([
            "-o",
            "BatchMode=yes",
            "-o",
            "ServerAliveInterval=15",
            "-o",
            "ConnectTimeout=20",
        ]);
        // A shell there reads this; all our words but the paths are plain names.
        let mut line = vec![self.program.clone()];
        if let Some(volume) = &self.volume {
            line.extend(["--volume".to_owned(), quote(volume)]);
        }
        line.extend(arguments.iter().map(|word| (*word).to_owned()));
        call.arg("--").arg(&self.host).arg(line.join(" "));
        call
    }

    fn refused(&self, error: CommandError) -> StoreError {
        match error {
            CommandError::Failed { status, stderr, .. } => {
                if status.code() == Some(SSH_FAILED) {
                    let (host, said) = (self.host.clone(), essence(&stderr));
                    return RemoteRefusal::Unreachable {
                        host,
                        message: said,
                    }
                    .into();
                }
                self.refusal(status.code(), without_name(&stderr).to_owned())
            }
            error => error.into(),
        }
    }

    fn refusal(&self, code: Option<i32>, said: String) -> StoreError {
        let host = self.host.clone();
        RemoteRefusal::Failed {
            host,
            code,
            message: said,
        }
        .into()
    }
}

/// What ssh has to say; of a host whose key has changed, what matters of its many words.
fn essence(stderr: &str) -> String {
    let lines: Vec<_> = stderr.split("; ").map(str::trim).collect();
    let find = |start: &str| lines.iter().find(|line| line.starts_with(start));
    match (find("Host key for "), find("ssh-keygen ")) {
        (Some(changed), Some(forget)) => {
            let changed = changed.trim_end_matches('.');
            format!("{changed}; if that is right, `{forget}` forgets the old one")
        }
        _ => stderr.to_owned(),
    }
}

/// Returns a message of the remote program without the name of the program before it.
fn without_name(message: &str) -> &str {
    ["buildhost: ", "machinectl: "]
        .iter()
        .find_map(|name| message.strip_prefix(name))
        .unwrap_or(message)
}

/// A pipe that tells how much has passed.
struct Counted<'a, W> {
    sink: W,
    count: u64,
    passed: &'a mut dyn FnMut(u64),
}

impl<W: std::io::Write> std::io::Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.count += written as u64;
        (self.passed)(self.count);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}
