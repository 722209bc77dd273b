//! Child processes: started in one way, with a time limit, and with errors that name the
//! command line and the end of its standard error.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// The length of the end of standard error that is kept.
const STDERR_BYTES_MAX: usize = 1024;
/// The time limit for reading the rest of a pipe after the program's end. A process that the
/// program has started may hold the pipe open for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The messages of programs about errors of the system. GNU tar does not say why a write was short:
/// it ends so on a full disk.
const MESSAGES: [(&str, io::ErrorKind); 5] = [
    ("No space left on device", io::ErrorKind::StorageFull),
    ("Wrote only", io::ErrorKind::StorageFull),
    ("Disk quota exceeded", io::ErrorKind::QuotaExceeded),
    ("Operation not permitted", io::ErrorKind::PermissionDenied),
    ("Permission denied", io::ErrorKind::PermissionDenied),
];

/// A failure to run a program to a successful end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started, or its end could not be awaited.
    #[error("cannot run `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// The system's error.
        source: io::Error,
    },
    /// The program failed.
    #[error("`{command}` failed ({status}){}", after_colon(stderr))]
    Failed {
        /// The command line.
        command: String,
        /// The exit status.
        status: ExitStatus,
        /// The end of the standard error, on one line.
        stderr: String,
    },
    /// The program exceeded its time limit and was killed.
    #[error("`{command}` did not end within {} s and was killed", limit.as_secs())]
    TimedOut {
        /// The command line.
        command: String,
        /// The time limit.
        limit: Duration,
    },
}

fn after_colon(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}

impl CommandError {
    /// Returns the kind of the system's error that stopped the program, as far as its messages
    /// name one that callers tell apart.
    pub fn system_error(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Start { source, .. } => Some(source.kind()),
            Self::Failed { stderr, .. } => {
                let mut known = MESSAGES.iter();
                known.find(|it| stderr.contains(it.0)).map(|it| it.1)
            }
            Self::TimedOut { .. } => None,
        }
    }

    /// Returns true if the program is not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The variables by which a service manager addresses this process, and no other one
/// (`sd_notify(3)`).
const SERVICE_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Returns a command with untranslated messages (`LC_ALL=C`), an empty standard input and no
/// connection to the service manager of this process.
pub fn prepare(program: impl AsRef<OsStr>) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "all other code prepares commands by this function"
    )]
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    for variable in SERVICE_MANAGER {
        command.env_remove(variable);
    }
    command
}

/// Returns the path of a program that is found in `PATH`.
pub fn find(program: impl AsRef<Path>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(&program))
        .find(|path| path.is_file())
}

/// Returns the command line as a person would type it.
pub fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// The program cannot be started, fails, or exceeds `limit`, after which it is killed.
pub fn run(mut command: Command, limit: Duration) -> Result<Vec<u8>, CommandError> {
    command.stdout(Stdio::piped());
    Running::start(command)?.output(limit)
}

/// The result of a thread that reads a pipe.
type PipeContent<T> = Receiver<io::Result<T>>;

fn read_in_thread<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> PipeContent<T> {
    let (sender, content) = mpsc::sync_channel(1);
    // The receiver may have been dropped, which is harmless.
    std::thread::spawn(move || drop(sender.send(read())));
    content
}

fn drain<T>(content: &PipeContent<T>) -> Option<T> {
    content
        .recv_timeout(DRAIN_TIMEOUT)
        .ok()
        .and_then(Result::ok)
}

/// A running program. Dropping it kills the program.
#[derive(Debug)]
pub struct Running {
    /// The process, for access to its pipes. [`Running::finish`] waits for it.
    pub child: Child,
    line: String,
    stderr: Option<PipeContent<String>>,
}

impl Running {
    /// Starts a program and captures its standard error.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: Command) -> Result<Self, CommandError> {
        Self::start_with(command, Command::spawn)
    }

    /// Starts a program as [`Running::start`] does, with a function that creates the process.
    pub(crate) fn start_with(
        mut command: Command,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Result<Self, CommandError> {
        let line = line(&command);
        let mut child = match spawn(command.stderr(Stdio::piped())) {
            Ok(child) => child,
            Err(source) => {
                let command = line;
                return Err(CommandError::Start { command, source });
            }
        };
        let stderr = child.stderr.take();
        Ok(Self {
            child,
            line,
            stderr: stderr.map(|stderr| read_in_thread(move || stderr_tail(stderr))),
        })
    }

    /// Waits for a successful end and returns the standard output, which the command must have
    /// been given as a pipe.
    ///
    /// # Errors
    /// The program fails or exceeds `limit`, after which it is killed.
    pub fn output(mut self, limit: Duration) -> Result<Vec<u8>, CommandError> {
        let stdout = self.child.stdout.take().map(|mut stdout| {
            read_in_thread(move || {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).map(|_| bytes)
            })
        });
        self.finish(limit)?;
        Ok(stdout.as_ref().and_then(drain).unwrap_or_default())
    }

    /// Waits for a successful end.
    ///
    /// # Errors
    /// The program fails or exceeds `limit`, after which it is killed.
    pub fn finish(mut self, limit: Duration) -> Result<(), CommandError> {
        let command = self.line.clone();
        let status = match wait_timeout(&mut self.child, limit) {
            Ok(Some(status)) => status,
            Ok(None) => return Err(CommandError::TimedOut { command, limit }),
            Err(source) => return Err(CommandError::Start { command, source }),
        };
        let stderr = self.stderr.as_ref().and_then(drain).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(CommandError::Failed {
            command,
            status,
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process without polling. Returns `None` at the time limit.
fn wait_timeout(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let process = rustix::process::Pid::from_child(child);
    let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let remaining = Timespec::try_from(remaining).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&remaining)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads standard error to its end and returns the last part of it, on one line.
fn stderr_tail(mut stderr: ChildStderr) -> io::Result<String> {
    let mut tail = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer)? {
            0 => break,
            count => tail.extend_from_slice(&buffer[..count]),
        }
        let excess = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..excess);
    }
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Ok(lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = prepare("sh");
        command.args(["-c", script]);
        command
    }

    const LIMIT: Duration = Duration::from_mins(1);

    #[test]
    fn run_returns_standard_output() {
        assert_eq!(run(shell("echo $LC_ALL; cat"), LIMIT).unwrap(), b"C\n");
    }

    #[test]
    fn a_failure_names_the_command_line_and_the_end_of_standard_error() {
        let script = "yes x | head -n 5000 >&2; echo why >&2; exit 3";
        let error = run(shell(script), LIMIT).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c yes"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("x; why"), "{error}");
        assert!(error.len() < 4 * STDERR_BYTES_MAX, "{error}");
    }

    #[test]
    fn a_program_that_exceeds_its_limit_is_killed() {
        let error = run(shell("exec sleep 1000"), Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_grandchild_that_holds_the_output_open_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        run(
            shell(&format!("sleep 30 & echo $! > {}", file.display())),
            LIMIT,
        )
        .unwrap();
        let pid = std::fs::read_to_string(file).unwrap();
        assert!(
            std::path::Path::new("/proc").join(pid.trim()).exists(),
            "the grandchild has ended before"
        );
        run(shell(&format!("kill {pid}")), LIMIT).unwrap();
    }

    #[test]
    fn a_missing_program_is_recognized() {
        let error = run(prepare("no-such-program"), LIMIT).unwrap_err();
        assert!(error.is_missing());
    }
}
