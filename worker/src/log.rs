//! The log of everything that a toolchain prints: a file that is put at the end, and the
//! stream by which the host sees it at once.

mod bounded_file;

use std::io::{self, Write};
use std::path::Path;

use config::secrets::{Mask, MaskedStream};

use crate::WorkerError;
use crate::log_stream::LogStream;

use bounded_file::BoundedFile;
pub use bounded_file::CompleteLog;

/// The size of a log, unless the task has another one.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The end of a log that is kept in memory.
const LAST_MAX: usize = 64 * 1024;

/// The prefix of the worker's own lines.
const PREFIX: &str = "buildhost-worker: ";

/// The number of lines in the message of a failed program.
const LAST_LINES: usize = 3;
/// The number of characters of such a line.
const LAST_LINE_MAX: usize = 200;

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: BoundedFile,
    /// The end of the log.
    last: Vec<u8>,
    stream: Option<LogStream>,
    mask: Mask,
    masked: MaskedStream,
}

impl Log {
    /// Creates a log in a new file.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path, stream: Option<LogStream>) -> Result<Self, WorkerError> {
        Ok(Self {
            file: BoundedFile::create(path, BYTES_MAX).map_err(WorkerError::disk(path))?,
            last: Vec::new(),
            stream,
            mask: Mask::default(),
            masked: Mask::default().stream(),
        })
    }

    /// Sets the largest size of the complete log.
    pub fn set_limit(&mut self, bytes_max: u64) {
        self.file.set_limit(bytes_max);
    }

    /// Masks secrets in the output that follows.
    pub fn set_mask(&mut self, mask: &Mask) {
        self.end_output();
        self.mask = mask.clone();
        self.masked = mask.stream();
    }

    /// Returns the mask of the output.
    pub fn mask(&self) -> Mask {
        self.mask.clone()
    }

    /// Appends what was kept back because it could have been the beginning of a secret.
    pub fn end_output(&mut self) {
        let rest = self.masked.finish();
        self.append_masked(&rest);
    }

    /// Appends the output of a program. A disk that fails costs only what neither the file nor
    /// the memory holds.
    pub fn append(&mut self, bytes: &[u8]) {
        let masked = self.masked.push(bytes);
        self.append_masked(&masked);
    }

    /// Appends whole lines of output in which secrets are masked.
    pub(crate) fn append_lines(&mut self, lines: &[u8]) {
        self.end_output();
        self.append_masked(lines);
    }

    fn append_masked(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            stream.send(bytes);
        }
        self.file.append(bytes);
        self.last.extend_from_slice(bytes);
        if self.last.len() > 2 * LAST_MAX {
            self.last.drain(..self.last.len() - LAST_MAX);
        }
    }

    /// Appends a line of the worker, and prints it on the console.
    pub fn line(&mut self, line: &str) {
        self.end_output();
        let line = self.mask.text(&format!("{PREFIX}{line}\n"));
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
        let text = String::from_utf8_lossy(&self.last);
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.chars().filter(is_shown).take(LAST_LINE_MAX).collect())
            .filter(|line: &String| !line.trim().is_empty() && !line.starts_with(PREFIX))
            .collect();
        lines.drain(..lines.len().saturating_sub(LAST_LINES));
        lines.join("\n")
    }

    /// Completes the log.
    pub fn finish(mut self) -> CompleteLog {
        self.end_output();
        if let Some(stream) = self.stream.take() {
            stream.finish();
        }
        let last = &self.last[self.last.len().saturating_sub(LAST_MAX)..];
        self.file.finish(last)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

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
    fn secrets_are_masked_in_the_file_and_in_the_last_lines() {
        use config::secrets::SecretValue;

        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        let value = SecretValue::new(b"hunter2-hunter2".to_vec()).unwrap();
        log.set_mask(&Mask::new([&value]));
        log.append(b"one hunter2-");
        log.append(b"hunter2\ntwo hunter2");
        log.end_output();
        assert_eq!(log.last_lines(), "one ***\ntwo hunter2");
        log.line("hunter2-hunter2");
        let mut text = String::new();
        log.finish().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one ***\ntwo hunter2buildhost-worker: ***\n");
    }

    #[test]
    fn an_endless_log_keeps_its_head_and_its_tail_up_to_its_limit() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        log.append(b"the first line\n");
        log.set_limit(1 << 20);
        let chunk = vec![b'.'; 65_536];
        for _ in 0..200 {
            log.append(&chunk);
        }
        log.append(b"the last line\n");
        let mut text = String::new();
        log.finish().read_to_string(&mut text).unwrap();
        assert!((900_000..=1 << 20).contains(&text.len()), "{}", text.len());
        assert!(text.starts_with("the first line\n"));
        assert!(text.contains("bytes are left out here"));
        assert!(text.ends_with("the last line\n"));
    }
}
