//! The writer of the manifest format.

use super::characters::is_allowed;
use super::pairs::Manifest;
use super::reader::{BLANKS, ManifestError, parse};

/// The characters of a line without its end, the last of which is the backslash that continues
/// it.
const COLUMNS_MAX: usize = 77;
/// The column behind which a line is continued at a blank.
const BLANK_COLUMN_MIN: usize = 57;
/// The longest name that has its value on the same line.
const NAME_MAX: usize = 37;

/// The readers of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Programs of build2.
    All,
    /// Programs of Buildhost.
    Local,
}

/// Returns the text of a list of manifests, which [`parse`] and `libbutl` parse. Long lines are
/// continued, and each character that manifests may not contain becomes U+FFFD.
pub fn print(manifests: &[Manifest]) -> String {
    text_of(manifests, Readers::All)
}

/// Returns the text of a list of manifests, which [`parse_local`](super::parse_local) parses. Each
/// line of a value is one line of the text, and all characters are kept.
pub fn print_local(manifests: &[Manifest]) -> String {
    text_of(manifests, Readers::Local)
}

/// Returns the text of a list with a value added to its last manifest. All other bytes are as they
/// were, except that a last line without an end gets one.
///
/// # Errors
/// The text is no list of manifests, or it ends within a value.
pub fn append(text: &str, name: &str, value: &str) -> Result<String, ManifestError> {
    let mut expected = parse(text)?;
    let added = Manifest::new().with(name, value);
    let pair = body_of(&added, Readers::All);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let longer = format!("{text}{end}{pair}");
    if let Some(last) = expected.pop() {
        let all = last.pairs().iter().chain(added.pairs());
        expected.push(all.fold(Manifest::new(), |manifest, (n, v)| manifest.with(n, v)));
    }
    if parse(&longer)? == expected {
        return Ok(longer);
    }
    Err(ManifestError {
        line: text.lines().count(),
        column: 1,
        fault: "the last value does not end".to_owned(),
    })
}

fn text_of(manifests: &[Manifest], readers: Readers) -> String {
    let mut text = String::new();
    for (index, manifest) in manifests.iter().enumerate() {
        text.push_str(if index == 0 { ": 1\n" } else { ":\n" });
        text.push_str(&body_of(manifest, readers));
    }
    text
}

/// Returns the lines of the values of a manifest.
fn body_of(manifest: &Manifest, readers: Readers) -> String {
    let mut text = String::new();
    for (name, value) in manifest.pairs() {
        text.push_str(name);
        text.push(':');
        let length = name.chars().count();
        if value.is_empty() {
            // An empty value has no blank behind the colon.
        } else if length > NAME_MAX || has_several_lines(value) {
            push_lines(&mut text, value, readers);
        } else {
            text.push(' ');
            push_line(&mut text, value, length + 2, readers);
        }
        text.push('\n');
    }
    text
}

/// Returns true if a value would be changed if it was written as a single line.
fn has_several_lines(value: &str) -> bool {
    value.contains('\n') || value.starts_with(BLANKS) || value.ends_with(BLANKS)
}

/// Writes a value between lone backslashes.
fn push_lines(text: &mut String, value: &str, readers: Readers) {
    text.push_str("\n\\\n");
    for line in value.split('\n') {
        push_line(text, line, 0, readers);
        text.push('\n');
    }
    text.push('\\');
}

/// Writes a line of a value, the first character of which is behind so many columns. A line is
/// never continued behind a backslash of the value, because two would end it.
fn push_line(text: &mut String, line: &str, mut column: usize, readers: Readers) {
    let mut follows_backslash = false;
    for (offset, character) in line.char_indices() {
        let rest = &line[offset..];
        let is_long = || is_full(column, rest) || is_better_here(column, rest);
        if readers == Readers::All && !follows_backslash && is_long() {
            text.push_str("\\\n");
            column = 0;
        }
        text.push(match readers {
            Readers::All if !is_allowed(character) => char::REPLACEMENT_CHARACTER,
            Readers::All | Readers::Local => character,
        });
        column += 1;
        follows_backslash = character == '\\';
    }
    if follows_backslash {
        text.push('\\');
    }
}

/// Returns true if the next character has no place on a line. The last byte of a line takes the
/// place of the backslash.
fn is_full(column: usize, rest: &str) -> bool {
    column >= COLUMNS_MAX + usize::from(rest.len() == 1)
}

/// Returns true if the rest of a line starts with a blank near its end, and the word behind the
/// blank has no place. The length of a word counts in bytes.
fn is_better_here(column: usize, rest: &str) -> bool {
    if !rest.starts_with(BLANKS) || column <= BLANK_COLUMN_MIN {
        return false;
    }
    match rest[1..].find(BLANKS) {
        Some(word) => column + word + 1 > COLUMNS_MAX,
        None => column + rest.len() > COLUMNS_MAX + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse_local;

    /// Returns the body of a manifest with one value.
    fn body(name: &str, value: &str) -> String {
        body_of(&Manifest::new().with(name, value), Readers::All)
    }

    #[test]
    fn a_value_has_several_lines_only_if_one_would_change_it() {
        let long = "n".repeat(NAME_MAX + 1);
        let table = [
            ("a", "", "a:\n"),
            ("a", "x y", "a: x y\n"),
            ("a", "\\", "a: \\\\\n"),
            ("a", " x", "a:\n\\\n x\n\\\n"),
            ("a", "x\t", "a:\n\\\nx\t\n\\\n"),
            ("a", "x\\\n\\\n", "a:\n\\\nx\\\\\n\\\\\n\n\\\n"),
            (&long[1..], "x", &format!("{}: x\n", &long[1..])),
            (&long, "x", &format!("{long}:\n\\\nx\n\\\n")),
        ];
        for (name, value, expected) in table {
            assert_eq!(body(name, value), *expected, "{name} {value:?}");
        }
    }

    #[test]
    fn a_line_is_continued_at_a_blank_near_its_end_or_at_its_last_column() {
        let x = |count| "x".repeat(count);
        let table = [
            (x(74), x(74)),
            (x(75), x(75)),
            (x(76), format!("{}\\\n{}", x(74), x(2))),
            (
                format!("{} {}", x(60), x(20)),
                format!("{}\\\n {}", x(60), x(20)),
            ),
            (
                format!("{} {}", x(54), x(30)),
                format!("{} {}\\\n{}", x(54), x(19), x(11)),
            ),
            (
                format!("{}\\\\{}", x(73), x(4)),
                format!("{}\\\\x\\\n{}", x(73), x(3)),
            ),
            (format!("{}ää", x(73)), format!("{}ä\\\nä", x(73))),
        ];
        for (value, expected) in table {
            assert_eq!(body("a", &value), format!("a: {expected}\n"));
        }
    }

    #[test]
    fn characters_that_manifests_may_not_contain_are_replaced() {
        let table = [
            ("\u{1b}[31mred\0", "\u{FFFD}[31mred\u{FFFD}"),
            ("soft\u{ad}hyphen", "soft\u{FFFD}hyphen"),
            ("äß漢😀", "äß漢😀"),
        ];
        for (value, expected) in table {
            assert_eq!(body("a", value), format!("a: {expected}\n"));
        }
    }

    #[test]
    fn local_files_keep_long_lines_and_all_characters() {
        let manifest = Manifest::new().with("a", &"x \u{1b}\u{200d} ".repeat(50).trim_end());
        let text = print_local(std::slice::from_ref(&manifest));
        assert_eq!(text.lines().count(), 2);
        assert_eq!(parse_local(&text), Ok(vec![manifest]));
    }

    #[test]
    fn a_value_is_appended_without_a_change_of_the_others() {
        for (text, expected) in [
            (": 1\na:b", ": 1\na:b\nz: 1\n"),
            (": 1\r\na:\\\nb\n\\\n\n", ": 1\r\na:\\\nb\n\\\n\nz: 1\n"),
            (": 1\na:b\n:\n#c", ": 1\na:b\n:\n#c\nz: 1\n"),
        ] {
            assert_eq!(append(text, "z", "1").as_deref(), Ok(expected));
        }
    }

    #[test]
    fn nothing_is_appended_to_a_value_that_does_not_end() {
        let table = [
            (
                ": 1\na: b\\\n",
                "line 2, column 1: the last value does not end",
            ),
            (
                ": 1\na:\\\nb\n",
                "line 3, column 1: the last value does not end",
            ),
            ("", "line 2, column 1: the first line must be `: 1`"),
            ("a", "line 1, column 2: a `name: value` is expected here"),
        ];
        for (text, fault) in table {
            assert_eq!(append(text, "z", "1").unwrap_err().to_string(), fault);
        }
    }
}
