//! The lines of a text, with the line ends of the manifest format.

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The number, counted from 1.
    pub number: usize,
    /// The offset of its first byte in the text.
    pub offset: usize,
    /// The characters.
    pub text: &'a str,
}

/// The lines of a text. The text after the last line end is a line, even if it is empty.
#[derive(Debug, Clone)]
pub(super) struct Lines<'a> {
    /// The text after the last line; `None` at the end of the text.
    rest: Option<&'a str>,
    number: usize,
    offset: usize,
}

impl<'a> Lines<'a> {
    /// Returns the lines of a text.
    pub(super) fn of(text: &'a str) -> Self {
        Self {
            rest: Some(text),
            number: 1,
            offset: 0,
        }
    }

    /// Returns the text of the next line, without consuming it.
    pub(super) fn peek(&self) -> Option<&'a str> {
        self.clone().next().map(|line| line.text)
    }

    /// Returns the offset of the next line, or of the end of the text.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.rest?;
        let length = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let (text, end) = rest.split_at(length);
        let line = Line {
            number: self.number,
            offset: self.offset,
            text,
        };
        let without = end.trim_start_matches('\r');
        let after = without.strip_prefix('\n').unwrap_or(without);
        self.rest = (!end.is_empty()).then_some(after);
        self.number += 1;
        self.offset += rest.len() - after.len();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_end_of_the_format_ends_a_line() {
        let table: [(&str, &[&str]); 8] = [
            ("", &[""]),
            ("a", &["a"]),
            ("a\n", &["a", ""]),
            ("a\r\nb", &["a", "b"]),
            ("a\rb", &["a", "b"]),
            ("a\r\r\r\nb", &["a", "b"]),
            ("a\n\rb\r\r", &["a", "", "b", ""]),
            ("\n\n", &["", "", ""]),
        ];
        for (text, expected) in table {
            let lines: Vec<_> = Lines::of(text).map(|line| line.text).collect();
            assert_eq!(lines, expected, "{text:?}");
        }
    }

    #[test]
    fn offsets_point_to_the_lines() {
        let text = "ä\r\n\nb\rc";
        for line in Lines::of(text) {
            assert!(text[line.offset..].starts_with(line.text));
        }
        let offsets: Vec<_> = Lines::of(text).map(|line| line.offset).collect();
        assert_eq!(offsets, [0, 4, 5, 7]);
    }
}
