//! The received lines of a stream, without an allocation for each.

use linerpc::{FramingError, MessageDecoder};

use crate::protocol::STREAM_END;

/// The maximum number of lines that are answered together.
const LINES_MAX: usize = 256;

/// Lines in one text.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    /// The ends of the lines in the text.
    ends: Vec<usize>,
    is_end: bool,
}

impl Lines {
    /// Replaces the lines by those that the decoder has received, up to the end of the stream.
    pub(super) fn fill(&mut self, decoder: &mut MessageDecoder) -> Result<(), FramingError> {
        self.text.clear();
        self.ends.clear();
        self.is_end = false;
        while self.ends.len() < LINES_MAX
            && !self.is_end
            && let Some(line) = decoder.next_text()?
        {
            self.is_end = line.is_empty() || line == STREAM_END;
            if !self.is_end {
                self.text.push_str(line);
                self.ends.push(self.text.len());
            }
        }
        Ok(())
    }

    /// Returns true if the end of the stream follows the lines.
    pub(super) fn is_end(&self) -> bool {
        self.is_end
    }

    /// Returns true if nothing was received.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && !self.is_end
    }

    /// Returns the lines.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.text[start..*end])
    }
}
