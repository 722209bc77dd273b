//! A log that is copied with the times of its lines.

use std::io::{self, Write};

use client::{Client, ClientError, LogSelection};
use config::BuildId;
use config::builds::{LogPosition, LogTime};

use crate::exit_code::Failure;

/// A log that is copied with the times of its lines.
#[derive(Debug, Default)]
pub(super) struct StampedLines {
    /// The position in the log.
    pub(super) position: LogPosition,
    /// Set within a line.
    is_open: bool,
}

/// The state of the reader of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Reads,
    /// It has read enough.
    Closed,
}

impl StampedLines {
    /// Copies what is new.
    pub(super) fn copy(
        &mut self,
        client: &Client,
        build: BuildId,
        selected: LogSelection,
        to: &mut impl Write,
    ) -> Result<Reader, Failure> {
        let mut text = Vec::new();
        client.copy_log(build, selected, self.position.offset, &mut text)?;
        if text.is_empty() {
            return Ok(Reader::Reads);
        }
        // After the text, so that its last line has a time.
        let times = client.log_times(build, selected.attempt)?;
        let stamped = self.stamp(&text, &times);
        match to.write_all(&stamped).and_then(|()| to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Closed),
            Err(error) => Err(ClientError::Write(error).into()),
            Ok(()) => Ok(Reader::Reads),
        }
    }

    /// Returns the text with the time of each line that begins in it.
    fn stamp(&mut self, text: &[u8], times: &[LogTime]) -> Vec<u8> {
        let mut stamped = Vec::with_capacity(text.len() * 2);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_open {
                let next = times.partition_point(|part| part.offset <= self.position.offset);
                let at = next.checked_sub(1).map(|index| times[index].at);
                let shown = at.map_or_else(|| "-".to_owned(), |at| format!("{at:.3}"));
                stamped.extend_from_slice(shown.as_bytes());
                stamped.push(b' ');
            }
            stamped.extend_from_slice(line);
            self.is_open = !line.ends_with(b"\n");
            self.position.offset += line.len() as u64;
        }
        stamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_time_of_its_first_byte() {
        let part = |offset, at: &str| LogTime {
            offset,
            at: at.parse().unwrap(),
        };
        let times = [
            part(4, "1970-01-01T00:00:01Z"),
            part(10, "1970-01-01T00:00:02Z"),
        ];
        let mut lines = StampedLines::default();
        let mut text = lines.stamp(b"one\ntwo", &times);
        text.extend(lines.stamp(b" ends\nthree\n", &times));
        let text = String::from_utf8(text).unwrap();
        let expected = "- one\n1970-01-01T00:00:01.000Z two ends\n1970-01-01T00:00:02.000Z three\n";
        assert_eq!(text, expected);
    }
}
