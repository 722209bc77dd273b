//! The output of one command on its way to the log: secrets are masked, and only whole lines are
//! added, because other commands print at the same time.

use config::secrets::{Mask, MaskedStream};

/// The largest part of a line that waits for its end.
const LINE_MAX: usize = 8 * 1024;

/// One stream of output of one command.
#[derive(Debug)]
pub(super) struct LogLines {
    masked: MaskedStream,
    pending: Vec<u8>,
}

impl LogLines {
    /// Returns an empty stream with this mask.
    pub(super) fn new(mask: &Mask) -> Self {
        Self {
            masked: mask.stream(),
            pending: Vec::new(),
        }
    }

    /// Adds a piece of output. Returns the lines that are complete, or too long to wait for their
    /// end.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let masked = self.masked.push(piece);
        self.pending.extend_from_slice(&masked);
        let end = self.pending.iter().rposition(|byte| *byte == b'\n');
        let end = match end {
            Some(end) => end + 1,
            None if self.pending.len() > LINE_MAX => self.pending.len(),
            None => 0,
        };
        self.pending.drain(..end).collect()
    }

    /// Returns the rest as a line; may be empty.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.pending.extend(self.masked.finish());
        if self.pending.last().is_some_and(|last| *last != b'\n') {
            self.pending.push(b'\n');
        }
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use config::secrets::SecretValue;

    use super::*;

    #[test]
    fn lines_are_whole_and_secrets_are_masked_across_pieces() {
        let value = SecretValue::new(b"hunter2-hunter2".to_vec()).unwrap();
        let mut lines = LogLines::new(&Mask::new([&value]));
        assert_eq!(lines.push(b"one\ntw"), b"one\n");
        assert_eq!(lines.push(b"o hunter2-"), b"");
        assert_eq!(lines.push(b"hunter2\nthr"), b"two ***\n");
        assert_eq!(lines.push(b"ee"), b"");
        assert_eq!(lines.finish(), b"three\n");
        assert_eq!(LogLines::new(&Mask::default()).finish(), b"");
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut lines = LogLines::new(&Mask::default());
        let mut shown = 0;
        for _ in 0..10 {
            shown += lines.push(&[b'x'; 4096]).len();
        }
        assert_eq!(shown + lines.finish().len(), 10 * 4096 + 1);
    }
}
