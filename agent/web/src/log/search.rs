//! The search for a text in the lines of a log.

use memchr::memmem::Finder;

/// The largest number of found lines whose numbers are kept.
const KEPT_MAX: usize = 20_000;

/// A text that is searched for. Without capital letters it is found in any case.
#[derive(Debug, Clone)]
pub struct Needle {
    text: Vec<u8>,
    any_case: bool,
}

/// The lines in which a text was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// The number of lines.
    pub total: u64,
    /// The numbers of the first of them.
    pub lines: Vec<u64>,
}

impl Needle {
    /// Returns the search for a text; `None` for an empty one.
    pub fn new(text: &str) -> Option<Self> {
        let any_case = !text.chars().any(char::is_uppercase);
        (!text.is_empty()).then(|| Self {
            text: text.as_bytes().to_vec(),
            any_case,
        })
    }

    /// Adds the lines of a block that contain the text. `before` is the number of lines before it.
    pub fn search(&self, block: &[u8], before: u64, matches: &mut Matches) {
        let (mut line, mut counted) = (before + 1, 0);
        let mut from = 0;
        while let Some(at) = self.find(block, from) {
            line += memchr::memchr_iter(b'\n', &block[counted..at]).count() as u64;
            matches.total += 1;
            if matches.lines.len() < KEPT_MAX {
                matches.lines.push(line);
            }
            // A line counts once.
            let Some(end) = memchr::memchr(b'\n', &block[at..]) else {
                break;
            };
            counted = at + end;
            from = at + end + 1;
        }
    }

    /// Returns the ranges of the text in a line.
    pub(super) fn ranges(&self, line: &str) -> Vec<(usize, usize)> {
        let bytes = line.as_bytes();
        let mut all = Vec::new();
        let mut from = 0;
        while let Some(at) = self.find(bytes, from) {
            let end = at + self.text.len();
            // The text of a needle is UTF-8, so it begins and ends at characters.
            if line.is_char_boundary(at) && line.is_char_boundary(end) {
                all.push((at, end));
            }
            from = end;
        }
        all
    }

    /// Returns the position of the text at or after another one.
    fn find(&self, block: &[u8], from: usize) -> Option<usize> {
        let rest = block.get(from..)?;
        if !self.any_case {
            return Finder::new(&self.text).find(rest).map(|at| from + at);
        }
        // The rarest byte is sought, and the others are compared.
        let (offset, byte) = self
            .text
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, byte)| frequency(*byte))?;
        let upper = byte.to_ascii_uppercase();
        let found = memchr::memchr2_iter(byte, upper, rest).find(|at| {
            let begin = at.checked_sub(offset);
            let candidate = begin.and_then(|begin| rest.get(begin..begin + self.text.len()));
            candidate.is_some_and(|it| it.eq_ignore_ascii_case(&self.text))
        });
        found.map(|at| from + at - offset)
    }
}

/// Returns the rank of a byte by its frequency in logs.
fn frequency(byte: u8) -> u8 {
    match byte {
        b' ' | b'e' | b'/' | b'-' => 9,
        b'o' | b't' | b'i' | b'a' | b's' | b'r' | b'n' | b'c' | b'l' | b'.' => 7,
        b'a'..=b'z' | b'_' => 4,
        b'0'..=b'9' => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn capital_letters_are_found_as_written() {
        let log = b"An Error\nan error and an ERROR\nnothing\nerror";
        for (text, expected) in [("error", vec![1, 2, 4]), ("Error", vec![1]), ("x", vec![])] {
            let mut matches = Matches::default();
            Needle::new(text).unwrap().search(log, 0, &mut matches);
            assert_eq!(
                (matches.total, matches.lines),
                (expected.len() as u64, expected)
            );
        }
        assert!(Needle::new("").is_none());
        assert_eq!(
            Needle::new("an").unwrap().ranges("An anan"),
            [(0, 2), (3, 5), (5, 7)]
        );
    }

    proptest! {
        #[test]
        fn lines_are_found_as_a_plain_search_finds_them(
            lines in prop::collection::vec("[abAB ]{0,5}", 0..30),
            needle in "[ab ]{1,3}",
        ) {
            let log = lines.join("\n") + "\n";
            let mut matches = Matches::default();
            Needle::new(&needle).unwrap().search(log.as_bytes(), 0, &mut matches);
            let plain = lines.iter().zip(1..).filter(|(line, _)| line.to_lowercase().contains(&needle));
            prop_assert_eq!(matches.lines, plain.map(|(_, number)| number).collect::<Vec<u64>>());
        }
    }
}
