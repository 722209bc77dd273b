//! Reads pipes with a timeout.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Result;
use crate::error::IoContext;

/// The default time limit for each read.
pub const READ_TIMEOUT: Duration = Duration::from_mins(5);

/// A pipe or a file. Each read fails after a time without data.
#[derive(Debug)]
pub struct TimeoutReader {
    file: File,
    timeout: Duration,
    /// The bytes of a pipe that were read by [`TimeoutReader::peek`].
    peeked: Vec<u8>,
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

    /// Sets the time limit for each read; [`READ_TIMEOUT`] by default.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
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
            timeout: READ_TIMEOUT,
            peeked: Vec::new(),
            bytes_read: None,
        }
    }

    /// Returns the file if it is a regular one: its end is known, and reads never wait.
    pub(super) fn regular_file(&self) -> Option<&File> {
        let metadata = self.file.metadata().ok()?;
        metadata.is_file().then_some(&self.file)
    }

    /// Returns the next bytes, fewer at the end of the input. They will be read again.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let position = match self.regular_file() {
            Some(mut file) => Some(file.stream_position()?),
            None => None,
        };
        let mut bytes = Vec::new();
        self.by_ref().take(count as u64).read_to_end(&mut bytes)?;
        match position {
            Some(position) => drop(self.file.seek(SeekFrom::Start(position))?),
            None => self.peeked.clone_from(&bytes),
        }
        Ok(bytes)
    }

    /// Returns the file, whose position is that of the next byte, if it is a regular one.
    pub(super) fn into_regular_file(self) -> Result<File, Self> {
        if self.regular_file().is_some() {
            Ok(self.file)
        } else {
            Err(self)
        }
    }
}

impl Read for TimeoutReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.peeked.is_empty() {
            let count = (&self.peeked[..]).read(buffer)?;
            self.peeked.drain(..count);
            return Ok(count);
        }
        let timeout = Timespec::try_from(self.timeout).map_err(io::Error::other)?;
        let readable = PollFd::new(&self.file, PollFlags::IN);
        if poll(&mut [readable], Some(&timeout))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the sender sent nothing for {} s", self.timeout.as_secs()),
            ));
        }
        let count = self.file.read(buffer)?;
        if let Some(bytes_read) = &self.bytes_read {
            bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(count)
    }
}
