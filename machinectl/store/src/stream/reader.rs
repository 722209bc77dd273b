//! Reads pipes with a timeout.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;
use crate::error::IoContext;

/// The time limit for each read.
pub const READ_TIMEOUT: Duration = Duration::from_mins(5);

/// A pipe or a file. Each read fails after [`READ_TIMEOUT`] without data.
#[derive(Debug)]
pub struct TimeoutReader {
    file: File,
    bytes_read: Option<Arc<AtomicU64>>,
}

impl TimeoutReader {
    /// Opens a file or a named pipe.
    ///
    /// # Errors
    /// The path cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        sys::trusted::open(path)
            .map(Self::new)
            .context("open", path)
    }

    /// Returns a reader of a pipe, such as standard input.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn pipe(pipe: impl AsFd) -> Result<Self> {
        let pipe = pipe
            .as_fd()
            .try_clone_to_owned()
            .context("open", "the input")?;
        Ok(Self::new(pipe.into()))
    }

    /// Adds the number of all bytes that are read to a counter.
    #[must_use]
    pub fn counted(mut self, counter: Arc<AtomicU64>) -> Self {
        self.bytes_read = Some(counter);
        self
    }

    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            bytes_read: None,
        }
    }

    /// Returns the file if it is a regular one: its end is known, and reads never wait.
    pub(super) fn regular_file(&self) -> Option<&File> {
        let metadata = self.file.metadata().ok()?;
        metadata.is_file().then_some(&self.file)
    }
}

impl Read for TimeoutReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec::try_from(READ_TIMEOUT).map_err(io::Error::other)?;
        let readable = PollFd::new(&self.file, PollFlags::IN);
        if poll(&mut [readable], Some(&timeout))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the sender sent nothing for {} s", READ_TIMEOUT.as_secs()),
            ));
        }
        let count = self.file.read(buffer)?;
        if let Some(bytes_read) = &self.bytes_read {
            bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(count)
    }
}
