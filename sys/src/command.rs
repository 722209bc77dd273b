//! The one door to other programs: how they are started and what is said when
//! they fail.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// How much of what a program complains about is kept.
const STDERR_MAX: usize = 1024;

/// Why another program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot run `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// How it failed.
        source: io::Error,
    },
    /// It ended badly.
    #[error("`{command}` failed ({status}){}", said(stderr))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it complained about.
        stderr: String,
    },
    /// It did not end in time and was killed.
    #[error("`{command}` did not end within {} s and was killed", limit.as_secs())]
    Late {
        /// The command line.
        command: String,
        /// The time that it had.
        limit: Duration,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}

impl CommandError {
    /// Whether the program is not installed.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A program that will speak plainly (`LC_ALL=C`) and gets nothing on its standard
/// input unless the caller changes that; for callers who start it themselves.
pub fn prepare(program: impl AsRef<OsStr>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one door")]
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// The command line as a person would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started, ends badly, or takes longer than `limit`; it is
/// killed then.
pub fn run(mut command: Command, limit: Duration) -> Result<Vec<u8>, CommandError> {
    command.stdout(Stdio::piped());
    let mut running = Running::start(command)?;
    let stdout = running.child.stdout.take();
    let reader = stdout.map(|mut stdout| {
        beside(move || {
            let mut printed = Vec::new();
            stdout.read_to_end(&mut printed).map(|_| printed)
        })
    });
    running.finish(limit)?;
    Ok(reader.as_ref().and_then(finished).unwrap_or_default())
}

/// How long the last words of a program that has ended may take: something that it
/// has started may hold its output open for ever.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

type Words<T> = Receiver<io::Result<T>>;

/// Reads beside us what a program says.
fn beside<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> Words<T> {
    let (sender, words) = mpsc::sync_channel(1);
    // Nobody may be listening any more, and that is no harm.
    std::thread::spawn(move || drop(sender.send(read())));
    words
}

fn finished<T>(words: &Words<T>) -> Option<T> {
    words.recv_timeout(LAST_WORDS_MAX).ok().and_then(Result::ok)
}

/// A program that runs beside us. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    /// The process, for its pipes; [`Running::finish`] waits for it.
    pub child: Child,
    line: String,
    stderr: Option<Words<String>>,
}

impl Running {
    /// Starts a program; what it complains about is kept for the error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self, CommandError> {
        let line = line(&command);
        let mut child = match command.stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(source) => {
                let command = line;
                return Err(CommandError::Start { command, source });
            }
        };
        let stderr = child.stderr.take();
        let stderr = stderr.map(|stderr| beside(move || last(stderr)));
        Ok(Self {
            child,
            line,
            stderr,
        })
    }

    /// Waits until it has ended well.
    ///
    /// # Errors
    /// When it ended badly or takes longer than `limit`; it is killed then.
    pub fn finish(mut self, limit: Duration) -> Result<(), CommandError> {
        let command = || self.line.clone();
        let status = match ended(&mut self.child, limit) {
            Ok(Some(status)) => status,
            Ok(None) => {
                let command = command();
                return Err(CommandError::Late { command, limit });
            }
            Err(source) => {
                let command = command();
                return Err(CommandError::Start { command, source });
            }
        };
        let stderr = self.stderr.as_ref().and_then(finished).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(CommandError::Failed {
            command: self.line.clone(),
            status,
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process without eating processor time; `None` when it takes longer.
fn ended(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let process = rustix::process::Pid::from_child(child);
    let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of what a program complains about, on one line.
fn last(mut stderr: ChildStderr) -> io::Result<String> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer)? {
            0 => break,
            count => kept.extend_from_slice(&buffer[..count]),
        }
        let excess = kept.len().saturating_sub(STDERR_MAX);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
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
    fn what_a_program_prints_is_returned() {
        assert_eq!(run(shell("echo $LC_ALL; cat"), LIMIT).unwrap(), b"C\n");
    }

    #[test]
    fn a_failure_says_what_ran_and_the_end_of_what_it_complained_about() {
        let script = "yes x | head -n 5000 >&2; echo why >&2; exit 3";
        let error = run(shell(script), LIMIT).unwrap_err().to_string();
        assert!(error.starts_with("`sh -c yes"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("x; why"), "{error}");
        assert!(error.len() < 4 * STDERR_MAX, "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let error = run(shell("exec sleep 1000"), Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, CommandError::Late { .. }), "{error}");
    }

    #[test]
    fn a_grandchild_that_holds_the_output_open_does_not_hold_us() {
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
            "we waited for it"
        );
        run(shell(&format!("kill {pid}")), LIMIT).unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_told_apart() {
        let error = run(prepare("no-such-program"), LIMIT).unwrap_err();
        assert!(error.is_missing());
    }
}
