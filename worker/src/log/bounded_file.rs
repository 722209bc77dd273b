//! The file of a log: it keeps the beginning and the end of what is written, up to a limit.
//!
//! The end is a ring in the second half of the file, so that neither memory nor the disk of the
//! guest holds more than the limit. When the disk fails, the file stays as it is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The space for the marks of omitted bytes, and for the end of a log whose file has failed.
const EXTRA_MAX: u64 = 66 * 1024;
/// The smallest limit of each half.
const HALF_MIN: u64 = 4 * 1024;

/// A file that keeps the beginning and the end of what is written.
#[derive(Debug)]
pub(super) struct BoundedFile {
    file: File,
    head_max: u64,
    tail_max: u64,
    /// The bytes that were written, including those that later ones have replaced.
    written: u64,
    failure: Option<Failure>,
}

/// The failure of the disk, after which nothing is written.
#[derive(Debug)]
struct Failure {
    error: io::Error,
    /// The length of the write that failed. It may have replaced old bytes.
    damaged: u64,
    /// The bytes that were not written.
    lost: u64,
}

impl BoundedFile {
    /// Creates an empty file that keeps up to `bytes_max` bytes.
    pub(super) fn create(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let mut file = Self {
            file: options.open(path)?,
            head_max: 0,
            tail_max: 0,
            written: 0,
            failure: None,
        };
        file.set_limit(bytes_max);
        Ok(file)
    }

    /// Sets the limit. Has no effect once the first half is full.
    pub(super) fn set_limit(&mut self, bytes_max: u64) {
        if self.written <= self.head_max {
            let half = (bytes_max.saturating_sub(EXTRA_MAX) / 2).max(HALF_MIN);
            (self.head_max, self.tail_max) = (half.max(self.written), half);
        }
    }

    /// Appends bytes, as long as the disk takes them.
    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failure.is_none() {
            let (offset, room) = self.place();
            let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (piece, rest) = bytes.split_at(length);
            match self.file.write_all_at(piece, offset) {
                Ok(()) => {
                    self.written += length as u64;
                    bytes = rest;
                }
                Err(error) => {
                    self.failure = Some(Failure {
                        error,
                        damaged: length as u64,
                        lost: 0,
                    });
                }
            }
        }
        if let Some(failure) = &mut self.failure {
            failure.lost += bytes.len() as u64;
        }
    }

    /// Returns the place of the next byte in the file, and the space up to the end of its half.
    fn place(&self) -> (u64, u64) {
        match self.written.checked_sub(self.head_max) {
            None => (self.written, self.head_max - self.written),
            Some(beyond) => {
                let at = beyond % self.tail_max;
                (self.head_max + at, self.tail_max - at)
            }
        }
    }

    /// Completes the file. `last` is the end of all that was appended; it replaces what the disk
    /// did not take.
    pub(super) fn finish(self, last: &[u8]) -> CompleteLog {
        let mut parts = Vec::new();
        let kept = self.head_max + self.tail_max;
        if self.written <= kept {
            parts.push(Part::file(0, self.written));
        } else {
            let damaged = self.failure.as_ref().map_or(0, |failure| failure.damaged);
            let (oldest, room) = self.place();
            parts.push(Part::file(0, self.head_max));
            parts.push(omitted(
                self.written - kept + damaged,
                "the log is too long",
            ));
            parts.push(Part::file(oldest + damaged, room - damaged));
            parts.push(Part::file(self.head_max, oldest - self.head_max));
        }
        if let Some(Failure { error, lost, .. }) = &self.failure {
            let end = usize::try_from(*lost).map_or(last.len(), |lost| lost.min(last.len()));
            let reason = format!("the guest's disk failed: {error}");
            if *lost > end as u64 {
                parts.push(omitted(lost - end as u64, &reason));
            }
            parts.push(Part::Text(last[last.len() - end..].to_vec()));
        }
        CompleteLog {
            file: self.file,
            parts,
            position: 0,
        }
    }
}

/// Returns the mark that stands for omitted bytes.
fn omitted(bytes: u64, reason: &str) -> Part {
    Part::Text(format!("\n[{bytes} bytes are left out here: {reason}]\n").into_bytes())
}

/// A part of a complete log.
#[derive(Debug)]
enum Part {
    File { offset: u64, length: u64 },
    Text(Vec<u8>),
}

impl Part {
    fn file(offset: u64, length: u64) -> Self {
        Self::File { offset, length }
    }

    fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Text(text) => text.len() as u64,
        }
    }
}

/// A complete log, to be read.
#[derive(Debug)]
pub struct CompleteLog {
    file: File,
    parts: Vec<Part>,
    position: u64,
}

impl CompleteLog {
    /// Returns its size.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(Part::length).sum()
    }
}

impl Read for CompleteLog {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut at = self.position;
        for part in &self.parts {
            if at >= part.length() {
                at -= part.length();
                continue;
            }
            let count = match part {
                Part::File { offset, length } => {
                    let room = usize::try_from(length - at).unwrap_or(usize::MAX);
                    let length = buffer.len().min(room);
                    self.file.read_at(&mut buffer[..length], offset + at)?
                }
                Part::Text(text) => {
                    let at = usize::try_from(at).unwrap_or(text.len());
                    (&text[at..]).read(buffer)?
                }
            };
            self.position += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

impl Seek for CompleteLog {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.size().checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = EXTRA_MAX + 2 * HALF_MIN;

    fn number(line: u64) -> Vec<u8> {
        format!("{line:07}\n").into_bytes()
    }

    fn text(mut log: CompleteLog) -> String {
        let size = log.size();
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, size);
        log.rewind().unwrap();
        let mut again = String::new();
        log.read_to_string(&mut again).unwrap();
        assert_eq!(text, again);
        text
    }

    #[test]
    fn every_length_keeps_its_beginning_and_its_end() {
        let place = tempfile::tempdir().unwrap();
        for lines in [0, 1, 511, 512, 513, 1023, 1024, 1025, 1500, 1536, 5000] {
            let mut file = BoundedFile::create(&place.path().join("log"), LIMIT).unwrap();
            (0..lines).for_each(|line| file.append(&number(line)));
            let text = text(file.finish(b""));
            let expected: Vec<u8> = if lines <= 1024 {
                (0..lines).flat_map(number).collect()
            } else {
                let mark = format!(
                    "\n[{} bytes are left out here: the log is too long]\n",
                    (lines - 1024) * 8
                );
                let head = (0..512).flat_map(number);
                let tail = (lines - 512..lines).flat_map(number);
                head.chain(mark.into_bytes()).chain(tail).collect()
            };
            assert!(text.as_bytes() == expected, "{lines} lines: {text}");
            assert!(text.len() as u64 <= LIMIT);
        }
    }

    #[test]
    fn a_disk_that_fails_loses_no_more_than_what_does_not_fit_the_memory() {
        let place = tempfile::tempdir().unwrap();
        for (before, after) in [(0, 3), (600, 3), (600, 100), (3000, 3), (3000, 100)] {
            let mut file = BoundedFile::create(&place.path().join("log"), LIMIT).unwrap();
            (0..before).for_each(|line| file.append(&number(line)));
            let full = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/full")
                .unwrap();
            let disk = std::mem::replace(&mut file.file, full);
            (before..before + after).for_each(|line| file.append(&number(line)));
            file.file = disk;
            let last: Vec<u8> = (before + after - 3..before + after)
                .flat_map(number)
                .collect();
            let text = text(file.finish(&last));
            assert!(
                text.ends_with(std::str::from_utf8(&last).unwrap()),
                "{text}"
            );
            if before > 0 {
                assert!(text.starts_with("0000000\n0000001\n"), "{text}");
                assert!(text.contains(&format!("{:07}\n", before - 1)), "{text}");
            }
            assert_eq!(
                text.contains("the guest's disk failed: No space"),
                after > 3,
                "{text}"
            );
            assert_eq!(
                text.contains("the log is too long"),
                before > 1024,
                "{text}"
            );
        }
    }

    #[test]
    fn the_limit_may_be_set_after_the_first_lines() {
        let place = tempfile::tempdir().unwrap();
        let mut file = BoundedFile::create(&place.path().join("log"), LIMIT).unwrap();
        file.append(b"the first line\n");
        file.set_limit(LIMIT + 200_000);
        (0..20_000).for_each(|line| file.append(&number(line)));
        assert!(!text(file.finish(b"")).contains("left out"));
    }
}
