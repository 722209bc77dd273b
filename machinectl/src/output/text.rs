//! Text for people: counts, sizes, times and fields.

use std::fmt::{Display, Write as _};

use config::printable;
use jiff::Timestamp;

/// Returns a number with its noun: `no builds`, `1 build`, `2 builds`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Returns a time in UTC, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Returns a number of bytes in KiB or MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1024))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// Returns the text of a value, or an empty text.
pub(crate) fn or_empty(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Returns the texts that are not empty, with a separator between them.
pub(crate) fn joined<'a>(texts: impl IntoIterator<Item = &'a str>, separator: &str) -> String {
    let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join(separator)
}

/// Returns the text with every line escaped by [`printable`].
pub(crate) fn printable_lines(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| printable(line).to_string())
        .collect();
    lines.join("\n")
}

/// Returns a line for each field whose value is not empty. Further lines of a value are indented.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let value = printable_lines(value).replace('\n', "\n            ");
        let _ = writeln!(text, "{name:>10}  {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_agree_with_their_numbers() {
        for (number, expected) in [(0, "no guests"), (1, "1 guest"), (2, "2 guests")] {
            assert_eq!(count(number, "guest"), expected);
        }
    }

    #[test]
    fn fields_are_escaped_and_left_out_if_empty() {
        let text = fields(&[
            ("build", "7".to_owned()),
            ("message", String::new()),
            ("sources", "a\u{1b}\nb".to_owned()),
        ]);
        assert_eq!(text, "     build  7\n   sources  a\\u{1b}\n            b\n");
    }
}
