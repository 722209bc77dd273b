//! Everything that a toolchain prints: into a file that is put at the end, and at
//! once to the host, where there is a port for it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::WorkerError;
use crate::virtio_port::Port;

/// What of a log is kept from its beginning.
const HEAD_MAX: u64 = 8 * 1024 * 1024;
/// What of a longer log is kept from its end.
const TAIL_MAX: usize = 64 * 1024;

/// What a line of our own begins with.
const OWN: &str = "buildhost-worker: ";

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    /// The end of the log; while nothing is left out, it is in the file, too.
    tail: Vec<u8>,
    left_out: u64,
    port: Option<Port>,
    fault: Option<io::Error>,
}

/// A log that is whole.
#[derive(Debug)]
pub struct Ended {
    /// The file that holds it.
    pub path: PathBuf,
    /// Its size.
    pub size: u64,
}

impl Log {
    /// Begins a log in a new file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, port: Option<Port>) -> Result<Self, WorkerError> {
        Ok(Self {
            path: path.to_owned(),
            file: File::create(path).map_err(WorkerError::disk(path))?,
            written: 0,
            tail: Vec::new(),
            left_out: 0,
            port,
            fault: None,
        })
    }

    /// Adds what a program printed. A disk that fails is told of by [`Log::end`].
    pub fn append(&mut self, bytes: &[u8]) {
        if let Some(port) = &mut self.port {
            port.send(bytes);
        }
        let room = usize::try_from(HEAD_MAX - self.written).unwrap_or(usize::MAX);
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.write(head);
        self.left_out += rest.len() as u64;
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_MAX {
            self.tail.drain(..self.tail.len() - TAIL_MAX);
        }
    }

    /// Adds a line of our own, and shows it on the console.
    pub fn say(&mut self, line: &str) {
        let line = format!("{OWN}{line}\n");
        let _ = io::stderr().write_all(line.as_bytes());
        self.append(line.as_bytes());
    }

    /// Lets the host have what it has not taken yet.
    pub fn flush(&mut self) {
        if let Some(port) = &mut self.port {
            port.flush();
        }
    }

    /// The last lines that a program printed, at most three, for people.
    pub fn last_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let shown = |c: char| !c.is_control() || c == '\t';
        let lines = text
            .lines()
            .map(|line| line.chars().filter(|c| shown(*c)).take(200).collect());
        let mut lines: Vec<String> = lines
            .filter(|line: &String| !line.trim().is_empty() && !line.starts_with(OWN))
            .collect();
        lines.drain(..lines.len().saturating_sub(3));
        lines.join("\n")
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Not all of it could be written.
    pub fn end(mut self) -> Result<Ended, WorkerError> {
        self.write_tail();
        if let Some(port) = self.port.take() {
            port.finish();
        }
        match self.fault {
            Some(fault) => Err(WorkerError::disk(&self.path)(fault)),
            None => Ok(Ended {
                path: self.path,
                size: self.written,
            }),
        }
    }

    /// Adds the end of a log that was longer than its file may be.
    fn write_tail(&mut self) {
        let wanted = usize::try_from(self.left_out).unwrap_or(usize::MAX);
        let start = self.tail.len().saturating_sub(wanted.min(TAIL_MAX));
        let tail = self.tail.split_off(start);
        let missing = self.left_out - tail.len() as u64;
        if missing > 0 {
            let words = format!("\n[{missing} bytes are left out here: the log is too long]\n");
            self.write(words.as_bytes());
        }
        self.write(&tail);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        if self.fault.is_none() {
            self.fault = self.file.write_all(bytes).err();
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
    fn the_last_lines_are_for_people() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        log.append(b"one\nbuildhost-worker: own\ntwo\n\nthree \x1b[31mred\xff\n  \nfour");
        assert_eq!(log.last_lines(), "two\nthree [31mred\u{fffd}\nfour");
    }

    #[test]
    fn a_log_without_end_keeps_its_head_and_its_tail() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        log.append(b"the first line\n");
        let piece = vec![b'.'; 65_536];
        for _ in 0..200 {
            log.append(&piece);
        }
        log.append(b"the last line\n");
        let ended = log.end().unwrap();
        let text = std::fs::read_to_string(&ended.path).unwrap();
        assert_eq!(ended.size, text.len() as u64);
        assert!(ended.size < HEAD_MAX + 2 * TAIL_MAX as u64);
        assert!(text.starts_with("the first line\n"));
        assert!(text.contains("bytes are left out here"));
        assert!(text.ends_with("the last line\n"));
    }

    #[test]
    fn a_log_that_just_passes_the_limit_loses_nothing() {
        let place = tempfile::tempdir().unwrap();
        let mut log = log(&place);
        let head = vec![b'.'; usize::try_from(HEAD_MAX).unwrap()];
        log.append(&head);
        log.append(b"end");
        let text = std::fs::read_to_string(log.end().unwrap().path).unwrap();
        assert!(text.ends_with("...end"));
    }
}
