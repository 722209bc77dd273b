//! The mask that hides secrets in output: each occurrence becomes `***`.
//!
//! Hidden are a value as a whole, each of its lines that is long enough, and both in base64 at
//! each of the three positions in which base64 can have them. Output arrives in pieces, so a
//! [`MaskedStream`] keeps back the end of a piece that may be the beginning of a secret.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::{BYTES_MIN, SecretValue};

/// The text in the place of a secret.
const MASKED: &[u8] = b"***";

/// The texts that are hidden. Clones share them.
#[derive(Clone, Default)]
pub struct Mask(Option<Arc<Patterns>>);

struct Patterns {
    /// The texts, sorted.
    texts: Vec<Zeroizing<Vec<u8>>>,
    longest: usize,
    search: AhoCorasick,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.0.as_ref().map_or(0, |patterns| patterns.texts.len());
        f.debug_struct("Mask").field("texts", &texts).finish()
    }
}

impl Mask {
    /// Returns the mask of these values.
    pub fn new<'v>(values: impl IntoIterator<Item = &'v SecretValue>) -> Self {
        let mut texts = BTreeSet::new();
        for value in values {
            add_forms(&mut texts, value.bytes());
        }
        let texts: Vec<_> = texts.into_iter().map(Zeroizing::new).collect();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        // The construction fails for more than 2³¹ bytes, and values are far smaller.
        let search = AhoCorasick::new(texts.iter().map(|text| text.as_slice())).ok();
        Self(search.filter(|_| longest > 0).map(|search| {
            Arc::new(Patterns {
                texts,
                longest,
                search,
            })
        }))
    }

    /// Returns true if the mask hides nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns a text in which secrets are masked.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// Returns bytes in which secrets are masked.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.stream();
        let mut masked = stream.push(bytes);
        masked.extend(stream.finish());
        masked
    }

    /// Returns a stream of output in which secrets are masked.
    pub fn stream(&self) -> MaskedStream {
        MaskedStream {
            mask: self.clone(),
            pending: Zeroizing::default(),
            covered: 0,
        }
    }
}

/// Adds the forms in which a value is hidden.
fn add_forms(texts: &mut BTreeSet<Vec<u8>>, value: &[u8]) {
    let whole = without_line_end(value);
    let lines = whole.split(|byte| *byte == b'\n').map(without_line_end);
    for text in lines.chain([whole]) {
        if text.len() < BYTES_MIN {
            continue;
        }
        texts.insert(text.to_vec());
        texts.extend((0..3).map(|offset| in_base64(text, offset)));
    }
}

/// Returns the characters of base64 that depend on a text alone, if `offset` bytes stand before
/// its first group of three.
fn in_base64(text: &[u8], offset: usize) -> Vec<u8> {
    let mut bytes = Zeroizing::new(vec![0; offset]);
    bytes.extend_from_slice(text);
    let encoded = Zeroizing::new(BASE64_STANDARD_NO_PAD.encode(&*bytes));
    let first = (offset * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    encoded.as_bytes()[first..end].to_vec()
}

/// Returns a text without the line ends behind it.
pub(super) fn without_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !b"\r\n".contains(byte));
    &text[..end.map_or(0, |last| last + 1)]
}

/// A stream of output in which secrets are masked. The result does not depend on the pieces in
/// which the output arrives.
pub struct MaskedStream {
    mask: Mask,
    /// The end of the output that may be the beginning of a secret.
    pending: Zeroizing<Vec<u8>>,
    /// The number of the first pending bytes that belong to a secret for which the mask was
    /// returned already.
    covered: usize,
}

impl fmt::Debug for MaskedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskedStream")
            .field("mask", &self.mask)
            .finish_non_exhaustive()
    }
}

impl MaskedStream {
    /// Adds a piece of output. Returns the masked output up to a possible beginning of a secret.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let Some(patterns) = self.mask.0.clone() else {
            return piece.to_vec();
        };
        self.pending.extend_from_slice(piece);
        let end = patterns.open_end(&self.pending);
        self.take(&patterns, end)
    }

    /// Returns the rest of the output: no secret is completed any more.
    pub fn finish(&mut self) -> Vec<u8> {
        match self.mask.0.clone() {
            Some(patterns) => self.take(&patterns, self.pending.len()),
            None => Vec::new(),
        }
    }

    /// Removes the pending bytes before `end` and returns them masked.
    fn take(&mut self, patterns: &Patterns, end: usize) -> Vec<u8> {
        let mut masked = Vec::with_capacity(end);
        let (mut done, mut covered) = (self.covered.min(end), 0);
        let mut hide = |secret: (usize, usize), is_known: bool| {
            let (start, stop) = secret;
            if start >= end {
                return;
            }
            if !is_known {
                masked.extend_from_slice(&self.pending[done..start.max(done)]);
                masked.extend_from_slice(MASKED);
            }
            done = done.max(stop.min(end));
            covered = stop.saturating_sub(end);
        };
        let mut open = (0, self.covered);
        let mut is_known = true;
        for found in patterns.occurrences(&self.pending) {
            if found.0 < open.1 {
                open.1 = open.1.max(found.1);
                continue;
            }
            if open.1 > 0 {
                hide(open, is_known);
            }
            (open, is_known) = (found, false);
        }
        if open.1 > 0 {
            hide(open, is_known);
        }
        masked.extend_from_slice(&self.pending[done..end]);
        self.pending.drain(..end);
        self.covered = covered;
        masked
    }
}

impl Patterns {
    /// Returns the first byte from which on the output may be the beginning of a secret.
    fn open_end(&self, output: &[u8]) -> usize {
        let first = output.len().saturating_sub(self.longest - 1);
        (first..output.len())
            .find(|start| self.is_beginning(&output[*start..]))
            .unwrap_or(output.len())
    }

    /// Returns true if a longer text begins with this one.
    fn is_beginning(&self, text: &[u8]) -> bool {
        let after = self.texts.partition_point(|known| known.as_slice() <= text);
        let next = self.texts.get(after);
        next.is_some_and(|known| known.starts_with(text))
    }

    /// Returns the start and the end of all occurrences, in the order of their starts.
    fn occurrences(&self, output: &[u8]) -> Vec<(usize, usize)> {
        let found = self.search.find_overlapping_iter(output);
        let mut found: Vec<_> = found.map(|it| (it.start(), it.end())).collect();
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn value(bytes: &[u8]) -> SecretValue {
        SecretValue::new(bytes.to_vec()).unwrap()
    }

    fn mask(values: &[&str]) -> Mask {
        let values: Vec<_> = values.iter().map(|text| value(text.as_bytes())).collect();
        Mask::new(&values)
    }

    #[test]
    fn every_form_of_a_value_is_masked() {
        let mask = mask(&[
            "hunter2-hunter2\n",
            "line one, long\nshort\nline two, long\n",
        ]);
        for (output, expected) in [
            ("a hunter2-hunter2!", "a ***!"),
            ("hunter2-hunter2hunter2-hunter2", "******"),
            ("hunter2-hunter", "hunter2-hunter"),
            (
                "> line one, long\r\n> short\r\n> line two, long\r\n",
                "> ***\r\n> short\r\n> ***\r\n",
            ),
            ("line one, long\nshort\nline two, long", "***"),
            ("", ""),
        ] {
            assert_eq!(mask.text(output), expected);
        }
        for before in ["", "x", "xy", "user:"] {
            let encoded = BASE64_STANDARD.encode(format!("{before}hunter2-hunter2 and more"));
            let masked = mask.text(&encoded);
            assert!(masked.contains("***"), "{before}: {masked}");
            assert!(masked.len() < encoded.len() - 10, "{before}: {masked}");
        }
    }

    #[test]
    fn overlapping_secrets_are_masked_as_one() {
        let mask = mask(&["abcdefgh", "efghijkl", "abcdefghijklmnop"]);
        assert_eq!(mask.text("_abcdefghijkl_"), "_***_");
        assert_eq!(mask.text("_abcdefghijklmnop_"), "_***_");
        assert_eq!(mask.text("_abcdefghijklmno_"), "_***mno_");
    }

    #[test]
    fn a_mask_of_nothing_changes_and_keeps_back_nothing() {
        let mut stream = Mask::default().stream();
        assert_eq!(stream.push(b"anything"), b"anything");
        assert_eq!(stream.finish(), b"");
        assert!(Mask::default().is_empty());
    }

    #[test]
    fn an_endless_repetition_is_not_kept_back() {
        let mut stream = mask(&["aaaaaaaa"]).stream();
        for _ in 0..1000 {
            stream.push(b"aaaaaaaaaa");
            assert!(stream.pending.len() < 8);
        }
        assert_eq!(stream.push(b"b"), b"b");
    }

    proptest! {
        #[test]
        fn the_pieces_of_the_output_do_not_matter(
            output in "[abc]{0,60}",
            secrets in prop::collection::vec("[ab]{8,10}", 1..4),
            cuts in prop::collection::vec(0_usize..60, 0..8),
        ) {
            let values: Vec<_> = secrets.iter().map(|text| value(text.as_bytes())).collect();
            let mask = Mask::new(&values);
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < output.len()).collect();
            cuts.sort_unstable();
            let (mut stream, mut masked, mut from) = (mask.stream(), Vec::new(), 0);
            for cut in cuts.into_iter().chain([output.len()]) {
                masked.extend(stream.push(&output.as_bytes()[from..cut]));
                from = cut;
            }
            masked.extend(stream.finish());
            let masked = String::from_utf8(masked).unwrap();
            prop_assert_eq!(&masked, &expected(&output, &secrets));
            for secret in &secrets {
                prop_assert!(!masked.contains(secret.as_str()));
            }
        }
    }

    /// Masks byte by byte: the model of the test above.
    fn expected(output: &str, secrets: &[String]) -> String {
        let mut spans = Vec::new();
        for start in 0..output.len() {
            let found = secrets
                .iter()
                .filter(|it| output[start..].starts_with(it.as_str()));
            let Some(end) = found.map(|it| start + it.len()).max() else {
                continue;
            };
            match spans.last_mut() {
                Some((_, last)) if start < *last => *last = end.max(*last),
                _ => spans.push((start, end)),
            }
        }
        let (mut masked, mut done) = (String::new(), 0);
        for (start, end) in spans {
            masked += &output[done..start];
            masked += "***";
            done = end;
        }
        masked + &output[done..]
    }
}
