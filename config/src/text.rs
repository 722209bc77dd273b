//! Text for people: foreign text on one line, and lists in a sentence.
//!
//! [`printable`] is the one function through which text of guests and files enters a
//! log line, a table or a message.

use std::fmt::{self, Display, Formatter, Write};

/// A text that is displayed on one line, without characters that a terminal acts on.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(&'a str);

/// Escapes control characters, line ends and invisible characters of a text as Rust does:
/// `\n`, `\u{1b}`. A backslash is escaped, too, so the result is unambiguous.
pub fn printable(text: &str) -> Printable<'_> {
    Printable(text)
}

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\'' | '"' => f.write_char(c),
            _ => Display::fmt(&c.escape_debug(), f),
        })
    }
}

/// Joins the items of a list for a sentence: `a, b and c`.
pub fn join_and<T: Display>(items: &[T]) -> String {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if index + 1 == items.len() => " and ",
            _ => ", ",
        };
        let _ = write!(text, "{separator}{item}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_and_line_ends_are_escaped() {
        let text = "a\u{1b}[31m \"é\"\n\r\t\0\u{202e}b\\n";
        assert_eq!(
            printable(text).to_string(),
            "a\\u{1b}[31m \"é\"\\n\\r\\t\\0\\u{202e}b\\\\n"
        );
    }

    #[test]
    fn lists_are_joined_for_a_sentence() {
        assert_eq!(join_and::<&str>(&[]), "");
        assert_eq!(join_and(&["a"]), "a");
        assert_eq!(join_and(&["a", "b"]), "a and b");
        assert_eq!(join_and(&["a", "b", "c"]), "a, b and c");
    }

    proptest! {
        #[test]
        fn output_has_no_control_characters(text: String) {
            prop_assert!(!printable(&text).to_string().contains(char::is_control));
        }

        #[test]
        fn plain_text_is_unchanged(text in "[ -\\[\\]-~]*") {
            prop_assert_eq!(printable(&text).to_string(), text);
        }
    }
}
