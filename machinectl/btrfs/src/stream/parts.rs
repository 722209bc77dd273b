//! The reception of a stream in parts, each of which is complete for `btrfs receive`. So what has
//! arrived of a cut stream is kept, and the rest can be received later.

use std::io::{BufWriter, Write};

use super::copy::{Commands, Inspect, flush, write};
use super::format::{END, StreamError, end};
use super::progress::Part;
use super::reader::TimeoutReader;

/// The number of bytes that are read and written at once.
const CHUNK: usize = 256 * 1024;

/// The end of a part.
#[derive(Debug)]
pub(super) enum PartEnd {
    /// The stream has ended, or its receiver has, and reports the reason.
    Complete,
    /// The part has the demanded length.
    Paused,
    /// The stream was cut in the next command, or cannot be read.
    Cut(StreamError),
}

/// A stream that is received in parts.
#[derive(Debug)]
pub(super) struct PartReader {
    head: Vec<u8>,
    commands: Commands<TimeoutReader>,
    hasher: blake3::Hasher,
    length: u64,
}

impl PartReader {
    /// Returns the parts of a stream, or of the rest of a stream if the head is empty.
    pub(super) fn new((head, commands): (Vec<u8>, Commands<TimeoutReader>)) -> Self {
        let mut reader = Self {
            head: Vec::new(),
            commands,
            hasher: blake3::Hasher::new(),
            length: 0,
        };
        reader.count(&head);
        Self { head, ..reader }
    }

    /// Copies the next part to a receiver, until `is_enough` returns true for its length. A part
    /// other than the first one begins with `start` instead of the stream's head.
    ///
    /// # Errors
    /// The stream is damaged, a command is refused, or the receiver cannot be written to. The
    /// receiver must then discard the part.
    pub(super) fn copy(
        &mut self,
        start: Option<Vec<u8>>,
        sink: impl Write,
        inspect: Inspect<'_>,
        is_enough: impl Fn(u64) -> bool,
    ) -> Result<PartEnd, StreamError> {
        let start = start.unwrap_or_else(|| std::mem::take(&mut self.head));
        let mut sink = BufWriter::with_capacity(CHUNK, sink);
        if write(&mut sink, &start)?.is_break() {
            return Ok(PartEnd::Complete);
        }
        let mut command = Vec::new();
        loop {
            if is_enough(self.length) {
                return end_part(sink).map(|()| PartEnd::Paused);
            }
            let kind = match self.commands.read(&mut command) {
                Ok(kind) => kind,
                Err(error @ (StreamError::Truncated(_) | StreamError::Read(_))) => {
                    return end_part(sink).map(|()| PartEnd::Cut(error));
                }
                Err(error) => return Err(error),
            };
            inspect(&self.commands.parse(kind, &command)?)?;
            if write(&mut sink, &command)?.is_break() {
                return Ok(PartEnd::Complete);
            }
            if kind == END {
                return flush(sink).map(|()| PartEnd::Complete);
            }
            self.count(&command);
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Returns the bytes that were copied since the last call.
    pub(super) fn take(&mut self) -> Part {
        let part = Part::of(self.length, &self.hasher);
        (self.hasher, self.length) = (blake3::Hasher::new(), 0);
        part
    }
}

/// Ends a part like a stream, because `btrfs receive` completes nothing else.
fn end_part(mut sink: impl Write) -> Result<(), StreamError> {
    // A receiver that has ended reports the reason.
    let _ = write(&mut sink, &end())?;
    flush(sink)
}
