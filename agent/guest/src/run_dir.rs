//! The directory of a running guest: where it is reached, and what is heard of it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

/// QEMU's monitor.
pub(crate) const MONITOR: &str = "monitor";
/// What the guest prints.
pub(crate) const CONSOLE: &str = "console";
/// What is typed on the console of a container.
pub(crate) const KEYBOARD: &str = "keyboard";
/// The log of its worker.
pub(crate) const LOG: &str = "log";
/// Where it waits for its task.
pub(crate) const CONTROL: &str = "control";
/// What QEMU or nspawn complains about.
const COMPLAINTS: &str = "complaints";
/// How much of it is told.
const COMPLAINTS_MAX: usize = 1024;

/// Makes the directory, without what an earlier guest left in it.
pub(crate) fn prepare(run: &Path) -> io::Result<StderrPipe> {
    DirBuilder::new().recursive(true).mode(0o700).create(run)?;
    for name in [MONITOR, CONSOLE, KEYBOARD, LOG, CONTROL, COMPLAINTS] {
        match fs::remove_file(run.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    pipe(&run.join(COMPLAINTS))?;
    Ok(StderrPipe(Some(open(run)?)))
}

/// Makes a pipe with a name.
pub(crate) fn pipe(path: &Path) -> io::Result<()> {
    Ok(mknodat(
        CWD,
        path,
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )?)
}

/// What a program complains about: a pipe that never waits. It takes what fits into
/// it (64 KiB), and what is said after that is lost. While the program or we hold
/// it, what was said can be read.
#[derive(Debug)]
pub(crate) struct StderrPipe(Option<File>);

impl StderrPipe {
    /// Those of a guest that runs. One whose pipe is gone can be ended like any other.
    pub(crate) fn find(run: &Path) -> Self {
        Self(open(run).ok())
    }

    /// What the program gets as its standard error.
    pub(crate) fn writer(run: &Path) -> io::Result<File> {
        open(run)
    }

    /// The end of what was said since the last call, on one line.
    pub(crate) fn take(&self) -> String {
        let mut all = Vec::new();
        if let Some(mut pipe) = self.0.as_ref() {
            // It ends where there is nothing yet.
            let _ = pipe.read_to_end(&mut all);
        }
        let end = all.len().saturating_sub(COMPLAINTS_MAX);
        let text = String::from_utf8_lossy(&all[end..]);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// For both directions: then it needs nobody at the other end.
fn open(run: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(flags);
    options.open(run.join(COMPLAINTS))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn complaints_are_kept_up_to_a_limit_and_nobody_waits() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path().join("run");
        let complaints = prepare(&run).unwrap();
        let mut program = StderrPipe::writer(&run).unwrap();
        program.write_all(b"no kernel\n\n  no disk\n").unwrap();
        drop(program);
        assert_eq!(complaints.take(), "no kernel; no disk");
        assert_eq!(complaints.take(), "");
        let mut program = StderrPipe::writer(&run).unwrap();
        let mut written = 0;
        while let Ok(count) = program.write(&[b'x'; 4096]) {
            written += count;
        }
        assert!(written <= 1 << 20, "{written}");
        assert_eq!(complaints.take().len(), COMPLAINTS_MAX);
        // What an earlier guest left is gone.
        assert_eq!(prepare(&run).unwrap().take(), "");
    }
}
