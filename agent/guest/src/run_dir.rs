//! The run directory of a guest: its sockets and pipes, and its program's standard error.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use config::text::printable;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

/// QEMU's monitor socket.
pub(crate) const MONITOR: &str = "monitor";
/// The socket of the monitor that reports events.
pub(crate) const EVENTS: &str = "events";
/// The output of the serial console; of a virtual machine, its input as well.
pub(crate) const CONSOLE: &str = "console";
/// The console input of a container.
pub(crate) const CONSOLE_INPUT: &str = "keyboard";
/// The log channel of the worker.
pub(crate) const LOG: &str = "log";
/// The control port, on which the worker waits for its task.
pub(crate) const CONTROL: &str = "control";
/// The standard error of QEMU or nspawn.
const STDERR: &str = "complaints";
/// The number of bytes of the standard error that are reported.
const STDERR_MAX: usize = 1024;

/// Creates the directory, and removes the sockets and pipes of an earlier guest.
pub(crate) fn prepare(run_dir: &Path) -> io::Result<StderrPipe> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)?;
    for name in [
        MONITOR,
        EVENTS,
        CONSOLE,
        CONSOLE_INPUT,
        LOG,
        CONTROL,
        STDERR,
    ] {
        match fs::remove_file(run_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    create_pipe(&run_dir.join(STDERR))?;
    Ok(StderrPipe(Some(open_stderr(run_dir)?)))
}

/// Creates a named pipe.
pub(crate) fn create_pipe(path: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    Ok(mknodat(CWD, path, FileType::Fifo, mode, 0)?)
}

/// The standard error of a guest's program: a pipe that never blocks the program. It holds
/// up to 64 KiB; the program's further output is lost until the pipe is read. Its content
/// lives as long as the program or the agent has it open.
#[derive(Debug)]
pub(crate) struct StderrPipe(Option<File>);

impl StderrPipe {
    /// Opens the pipe of a running guest. A missing pipe reads as empty, so that the guest
    /// can be ended like any other.
    pub(crate) fn find(run_dir: &Path) -> Self {
        Self(open_stderr(run_dir).ok())
    }

    /// Opens the pipe as the standard error of the program.
    pub(crate) fn writer(run_dir: &Path) -> io::Result<File> {
        open_stderr(run_dir)
    }

    /// Returns the end of the output since the last call, joined into one line.
    pub(crate) fn take(&self) -> String {
        let mut output = Vec::new();
        if let Some(mut pipe) = self.0.as_ref() {
            // Ends with an error where the pipe is empty.
            let _ = pipe.read_to_end(&mut output);
        }
        let start = output.len().saturating_sub(STDERR_MAX);
        let text = String::from_utf8_lossy(&output[start..]);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        printable(&lines.collect::<Vec<_>>().join("; ")).to_string()
    }
}

/// Opens the pipe for both directions: so it needs no process at the other end.
fn open_stderr(run_dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pipe = rustix::fs::open(run_dir.join(STDERR), flags, Mode::empty())?;
    Ok(pipe.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn stderr_is_truncated_and_never_blocks_the_program() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        let stderr = prepare(&run_dir).unwrap();
        let mut program = StderrPipe::writer(&run_dir).unwrap();
        program.write_all(b"no kernel\n\n  no disk\n").unwrap();
        drop(program);
        assert_eq!(stderr.take(), "no kernel; no disk");
        assert_eq!(stderr.take(), "");
        let mut program = StderrPipe::writer(&run_dir).unwrap();
        let mut written = 0;
        while let Ok(count) = program.write(&[b'x'; 4096]) {
            written += count;
        }
        assert!(written <= 1 << 20, "{written}");
        assert_eq!(stderr.take().len(), STDERR_MAX);
        // The output of an earlier guest is removed.
        assert_eq!(prepare(&run_dir).unwrap().take(), "");
    }
}
