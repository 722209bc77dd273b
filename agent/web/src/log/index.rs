//! The index of a log's lines: the offset of every 256th line.

use memchr::memmem::Finder;

use super::LINES_PER_ENTRY;

/// The texts that lines with errors contain; the rest of [`is_error`] decides.
const ERROR_TEXTS: [&[u8]; 4] = [b"rror: ", b"RROR: ", b"*** [", b"FAILED: "];

/// The index of a log's lines. It grows with the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineIndex {
    /// The offsets of the lines 1, 257, 513 and so on.
    entries: Vec<u64>,
    lines: u64,
    bytes: u64,
    first_error: Option<u64>,
}

impl LineIndex {
    /// Adds a block of whole lines. A block without a line end at its end counts as a line, which is
    /// the last one of a log.
    pub fn push(&mut self, block: &[u8]) {
        if self.first_error.is_none() {
            self.first_error = first_error(block).map(|line| self.lines + line);
        }
        let mut begin = 0;
        while begin < block.len() {
            if self.lines.is_multiple_of(LINES_PER_ENTRY) {
                self.entries.push(self.bytes + begin as u64);
            }
            let end = memchr::memchr(b'\n', &block[begin..]);
            begin = end.map_or(block.len(), |end| begin + end + 1);
            self.lines += 1;
        }
        self.bytes += block.len() as u64;
    }

    /// Returns the number of lines.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns the number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of the first line with an error.
    pub fn first_error(&self) -> Option<u64> {
        self.first_error
    }

    /// Returns the offset of an indexed line, and the number of lines from it to a line.
    pub fn seek(&self, line: u64) -> (u64, u64) {
        let wanted = line.clamp(1, self.lines.max(1)) - 1;
        let entry = usize::try_from(wanted / LINES_PER_ENTRY).unwrap_or(usize::MAX);
        let offset = self.entries.get(entry).copied().unwrap_or_default();
        (offset, wanted % LINES_PER_ENTRY)
    }
}

/// Returns the number within a block, from 1 on, of the first line with an error.
fn first_error(block: &[u8]) -> Option<u64> {
    let found = ERROR_TEXTS.iter().filter_map(|text| {
        Finder::new(text)
            .find_iter(block)
            .map(|at| line_around(block, at))
            .find(|(_, line)| is_error(line))
    });
    let (begin, _) = found.min_by_key(|(begin, _)| *begin)?;
    Some(memchr::memchr_iter(b'\n', &block[..begin]).count() as u64 + 1)
}

/// Returns the line of a block around a position, and its offset.
fn line_around(block: &[u8], at: usize) -> (usize, &[u8]) {
    let begin = memchr::memrchr(b'\n', &block[..at]).map_or(0, |before| before + 1);
    let end = memchr::memchr(b'\n', &block[at..]).map_or(block.len(), |end| at + end);
    (begin, &block[begin..end])
}

/// Returns true for a line with the error of a compiler, of make, ninja or BitBake.
pub(super) fn is_error(line: &[u8]) -> bool {
    let has = |text: &[u8]| memchr::memmem::find(line, text).is_some();
    has(b"error: ")
        || has(b"Error: ")
        || has(b"ERROR: ")
        || line.starts_with(b"FAILED: ")
        || (has(b"*** [") && has(b"Error "))
}

/// Returns true for a line with a warning.
pub(super) fn is_warning(line: &[u8]) -> bool {
    let has = |text: &[u8]| memchr::memmem::find(line, text).is_some();
    has(b"warning: ") || has(b"WARNING: ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_error_is_found() {
        for (log, expected) in [
            ("a\nx.c:7: error: b\nERROR: c\n", Some(2)),
            ("a\nERROR: c\nx.c:7: error: b\n", Some(2)),
            ("-Werror=x\nterror: y\n0 errors\n*** [x\n", Some(2)),
            ("make: *** [all] Error 2", Some(1)),
            ("x FAILED: y\nFAILED: a.o\n", Some(2)),
            ("good\n", None),
        ] {
            let mut index = LineIndex::default();
            index.push(log.as_bytes());
            assert_eq!(index.first_error(), expected, "{log:?}");
        }
    }

    proptest! {
        #[test]
        fn every_line_is_found_from_its_entry(
            lines in prop::collection::vec("[a-c]{0,2}", 1..900),
            parts in 1usize..9,
        ) {
            let mut index = LineIndex::default();
            for block in lines.chunks(lines.len().div_ceil(parts)) {
                let text = block.join("\n") + "\n";
                index.push(text.as_bytes());
            }
            let log = lines.join("\n") + "\n";
            prop_assert_eq!(index.lines(), lines.len() as u64);
            prop_assert_eq!(index.bytes(), log.len() as u64);
            for number in [1, lines.len() / 2 + 1, lines.len()] {
                let (offset, skip) = index.seek(number as u64);
                let rest = &log[usize::try_from(offset).unwrap()..];
                let found = rest.lines().nth(usize::try_from(skip).unwrap());
                prop_assert_eq!(found, Some(lines[number - 1].as_str()));
            }
        }
    }
}
