//! The log of everything that a toolchain prints: a file that is put at the end, and the
//! stream by which the host sees it at once.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::WorkerError;
use crate::log_stream::LogStream;

/// The bytes at the beginning of a log that its file keeps.
const HEAD_MAX: u64 = 8 * 1024 * 1024;
/// The bytes at the end of a longer log that its file keeps.
const TAIL_MAX: usize = 64 * 1024;

/// The prefix of the worker's own lines.
const PREFIX: &str = "buildhost-worker: ";

/// The number of lines in the message of a failed program.
const LAST_LINES: usize = 3;
/// The number of characters of such a line.
const LAST_LINE_MAX: usize = 200;

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    /// The end of the log. It is in the file, too, unless something was omitted.
    tail: Vec<u8>,
    /// The bytes that are not in the file.
    omitted: u64,
    stream: Option<LogStream>,
    /// The first error of the file.
    error: Option<io::Error>,
}

/// A complete log.
#[derive(Debug)]
pub struct CompleteLog {
    /// The path of the file.
    pub path: PathBuf,
    /// The size of the file.
    pub size: u64,
}

impl Log {
    /// Creates a log in a new file.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path, stream: Option<LogStream>) -> Result<Self, WorkerError> {
        Ok(Self {
            path: path.to_owned(),
            file: File::create(path).map_err(WorkerError::disk(path))?,
            written: 0,
            tail: Vec::new(),
            omitted: 0,
            stream,
            error: None,
        })
    }

    /// Appends the output of a program. [`Log::finish`] reports the errors of the disk.
    pub fn append(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            stream.send(bytes);
        }
        let room = usize::try_from(HEAD_MAX - self.written).unwrap_or(usize::MAX);
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.write(head);
        self.omitted += rest.len() as u64;
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_MAX {
            self.tail.drain(..self.tail.len() - TAIL_MAX);
        }
    }

    /// Appends a line of the worker, and prints it on the console.
    pub fn line(&mut self, line: &str) {
        let line = format!("{PREFIX}{line}\n");
        let _ = io::stderr().write_all(line.as_bytes());
        self.append(line.as_bytes());
    }

    /// Sends the host the bytes that it has not taken yet.
    pub fn flush(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.flush();
        }
    }

    /// Returns the last lines that a program printed, without control characters.
    pub fn last_lines(&self) -> String {
        let is_shown = |c: &char| !c.is_control() || *c == '\t';
        let text = String::from_utf8_lossy(&self.tail);
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.chars().filter(is_shown).take(LAST_LINE_MAX).collect())
            .filter(|line: &String| !line.trim().is_empty() && !line.starts_with(PREFIX))
            .collect();
        lines.drain(..lines.len().saturating_sub(LAST_LINES));
        lines.join("\n")
    }

    /// Completes the file.
    ///
    /// # Errors
    /// A part of the log could not be written.
    pub fn finish(mut self) -> Result<CompleteLog, WorkerError> {
        self.write_tail();
        if let Some(stream) = self.stream.take() {
            stream.finish();
        }
        match self.error {
            Some(error) => Err(WorkerError::disk(&self.path)(error)),
            None => Ok(CompleteLog {
                path: self.path,
                size: self.written,
            }),
        }
    }

    /// Appends the tail of a log that is longer than its file may be.
    fn write_tail(&mut self) {
        let wanted = usize::try_from(self.omitted).unwrap_or(usize::MAX);
        let start = self.tail.len().saturating_sub(wanted.min(TAIL_MAX));
        let tail = self.tail.split_off(start);
        let missing = self.omitted - tail.len() as u64;
        if missing > 0 {
            let mark = format!("\n[{missing} bytes are left out here: the log is too long]\n");
            self.write(mark.as_bytes());
        }
        self.write(&tail);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        if self.error.is_none() {
            self.error = self.file.write_all(bytes).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(place: &tempfile::TempDir) -> Log {
        Log::create(&place.path().join("log"), None).unwrap()
    }

    #[test]
    fn the_last_lines_have_no_control_characters_and_no_lines_of_the_worker() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        log.append(b"one\nbuildhost-worker: own\ntwo\n\nthree \x1b[31mred\xff\n  \nfour");
        assert_eq!(log.last_lines(), "two\nthree [31mred\u{fffd}\nfour");
    }

    #[test]
    fn an_endless_log_keeps_its_head_and_its_tail() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        log.append(b"the first line\n");
        let chunk = vec![b'.'; 65_536];
        for _ in 0..200 {
            log.append(&chunk);
        }
        log.append(b"the last line\n");
        let complete = log.finish().unwrap();
        let text = std::fs::read_to_string(&complete.path).unwrap();
        assert_eq!(complete.size, text.len() as u64);
        assert!(complete.size < HEAD_MAX + 2 * TAIL_MAX as u64);
        assert!(text.starts_with("the first line\n"));
        assert!(text.contains("bytes are left out here"));
        assert!(text.ends_with("the last line\n"));
    }

    #[test]
    fn a_log_just_above_the_limit_loses_nothing() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        let head = vec![b'.'; usize::try_from(HEAD_MAX).unwrap()];
        log.append(&head);
        log.append(b"end");
        let text = std::fs::read_to_string(log.finish().unwrap().path).unwrap();
        assert!(text.ends_with("...end"));
    }
}
