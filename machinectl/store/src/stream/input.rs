//! Where streams come from: a file, a pipe, or `btrfs send` of a subvolume on
//! another file system.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;
use crate::error::IoContext;
use crate::subvolumes::NotSubvolume;
use sys::command::{self, CommandError, Running};

/// How long a sender may be silent.
pub const SILENCE_MAX: Duration = Duration::from_mins(5);

/// Reads a pipe or a file, but does not wait for ever.
#[derive(Debug)]
pub struct Patient {
    file: File,
    /// How many bytes were read so far, for somebody who wants to know.
    passed: Option<Arc<AtomicU64>>,
}

impl Patient {
    /// A stream from a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        File::open(path).map(Self::new).context("open", path)
    }

    /// A stream from a pipe.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn pipe(pipe: impl AsFd) -> Result<Self> {
        let pipe = pipe
            .as_fd()
            .try_clone_to_owned()
            .context("open", "the input")?;
        Ok(Self::new(pipe.into()))
    }

    /// The same, but it counts what is read.
    #[must_use]
    pub fn counted(mut self, passed: Arc<AtomicU64>) -> Self {
        self.passed = Some(passed);
        self
    }

    fn new(file: File) -> Self {
        Self { file, passed: None }
    }

    /// The file behind it, if it is one: its end is known, and it is never waited for.
    pub(super) fn file(&self) -> Option<&File> {
        let metadata = self.file.metadata().ok()?;
        metadata.is_file().then_some(&self.file)
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let silence = Timespec::try_from(SILENCE_MAX).map_err(io::Error::other)?;
        let wanted = PollFd::new(&self.file, PollFlags::IN);
        if poll(&mut [wanted], Some(&silence))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the sender has been silent for too long",
            ));
        }
        let count = self.file.read(buffer)?;
        if let Some(passed) = &self.passed {
            passed.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(count)
    }
}

/// A `btrfs send` that runs beside us. Dropping it ends it.
#[derive(Debug)]
pub struct Sender(Running);

impl Sender {
    /// Starts to send a subvolume, in full or as what differs from another one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(subvolume: &Path, parent: Option<&Path>) -> Result<(Self, Patient)> {
        Self::start_with(subvolume, parent, &[])
    }

    /// The same with more options.
    pub(crate) fn start_with(
        subvolume: &Path,
        parent: Option<&Path>,
        options: &[&str],
    ) -> Result<(Self, Patient)> {
        let mut send = command::prepare("btrfs");
        send.args(["--quiet", "send"]).args(options);
        if let Some(parent) = parent {
            send.arg("-p").arg(parent);
        }
        send.arg(subvolume);
        send.stdout(Stdio::piped());
        let mut running = Running::start(send)?;
        match running.child.stdout.take() {
            Some(stdout) => Ok((Self(running), Patient::pipe(stdout)?)),
            None => Err(NotSubvolume(subvolume.to_owned()).into()),
        }
    }

    /// Waits for the end of a sender whose stream has been read.
    ///
    /// # Errors
    /// Why it failed.
    pub fn finish(self) -> Result<(), CommandError> {
        self.0.finish(Duration::from_secs(10))
    }
}
