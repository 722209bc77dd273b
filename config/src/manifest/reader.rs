//! The reader of the manifest format.

use super::characters;
use super::lines::{Line, Lines};
use super::pairs::Manifest;

/// The maximum number of manifests and values of a list. An entry takes far more memory than the
/// shortest line of text.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// The blanks around names and values.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// The error of parsing a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {fault}")]
pub struct ManifestError {
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1 in characters.
    pub column: usize,
    /// The fault.
    pub fault: String,
}

/// Parses a list of manifests.
///
/// # Errors
/// The first fault of the text.
pub fn parse(text: &str) -> Result<Vec<Manifest>, ManifestError> {
    Ok(manifests(read(text)?))
}

/// Parses a list of manifests that arrived as bytes.
///
/// # Errors
/// The first fault of the text.
pub fn parse_bytes(bytes: &[u8]) -> Result<Vec<Manifest>, ManifestError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse(text),
        Err(error) => error,
    };
    let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let found = not_utf8(&valid, bytes[error.valid_up_to()]);
    match parse(&valid) {
        Err(fault) if position(&fault) < position(&found) => Err(fault),
        Ok(_) | Err(_) => Err(found),
    }
}

/// Parses a list of manifests like [`parse`], and accepts all characters: for the files of hosts
/// and guests, in which the names of files and messages may have any.
///
/// # Errors
/// The first fault of the format.
pub fn parse_local(text: &str) -> Result<Vec<Manifest>, ManifestError> {
    Ok(manifests(read_pairs(text)?))
}

/// Returns the lines of each manifest of a list as they are, without the line that starts it.
///
/// # Errors
/// The first fault of the text.
pub fn bodies(text: &str) -> Result<Vec<&str>, ManifestError> {
    let entries = read(text)?;
    Ok(entries.iter().map(|it| &text[it.start..it.end]).collect())
}

/// A manifest and the place of its body in the text.
struct Entry {
    manifest: Manifest,
    start: usize,
    end: usize,
}

fn manifests(entries: Vec<Entry>) -> Vec<Manifest> {
    entries.into_iter().map(|entry| entry.manifest).collect()
}

/// Returns the fault of the first byte after a valid text.
fn not_utf8(valid: &str, byte: u8) -> ManifestError {
    let (line, column) = Lines::of(valid)
        .last()
        .map_or((1, 1), |line| (line.number, line.text.chars().count() + 1));
    ManifestError {
        line,
        column,
        fault: format!("the byte 0x{byte:02X} is not UTF-8 here"),
    }
}

/// Reads a list. Of a fault of the format and one of a character, the first one is returned.
fn read(text: &str) -> Result<Vec<Entry>, ManifestError> {
    let forbidden = characters::forbidden(text).map(|found| ManifestError {
        line: found.line,
        column: found.column,
        fault: format!(
            "the {} U+{:04X} is not allowed in a manifest",
            found.kind,
            u32::from(found.character)
        ),
    });
    let read = read_pairs(text);
    match (read, forbidden) {
        (Ok(entries), None) => Ok(entries),
        (Err(fault), Some(found)) if position(&fault) > position(&found) => Err(found),
        (Ok(_), Some(fault)) | (Err(fault), _) => Err(fault),
    }
}

fn position(error: &ManifestError) -> (usize, usize) {
    (error.line, error.column)
}

/// Reads the manifests of a list, without regard to characters.
fn read_pairs(text: &str) -> Result<Vec<Entry>, ManifestError> {
    let mut list: Vec<Entry> = Vec::new();
    let mut lines = Lines::of(text);
    let mut count = 0;
    while let Some(line) = lines.next() {
        let content = line.text.trim_start_matches(BLANKS);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        count += 1;
        if count > ENTRIES_MAX {
            let fault = format!("there are more than {ENTRIES_MAX} manifests and values");
            return Err(fault_at(line, content, fault));
        }
        let (name, first) = split_pair(line, content)?;
        if name.is_empty() {
            if let Some(last) = list.last_mut() {
                last.end = line.offset;
            }
            check_version(line, first, &mut lines, list.is_empty())?;
            list.push(Entry {
                manifest: Manifest::new(),
                start: lines.offset(),
                end: text.len(),
            });
        } else if let Some(entry) = list.last_mut() {
            let value = value(first, &mut lines);
            entry.manifest.push(name.to_owned(), value);
        } else {
            let fault = "the first line must be `: 1`".to_owned();
            return Err(fault_at(line, content, fault));
        }
    }
    Ok(list)
}

/// Splits a line into a name and the first line of its value.
fn split_pair<'a>(line: Line<'a>, content: &'a str) -> Result<(&'a str, &'a str), ManifestError> {
    let end = content.find([':', ' ', '\t']).unwrap_or(content.len());
    let (name, rest) = content.split_at(end);
    let rest = rest.trim_start_matches(BLANKS);
    if let Some(first) = rest.strip_prefix(':') {
        return Ok((name, first.trim_start_matches(BLANKS)));
    }
    let fault = "a `name: value` is expected here".to_owned();
    Err(fault_at(line, rest, fault))
}

/// Returns a fault at `rest`, the end of a line.
fn fault_at(line: Line<'_>, rest: &str, fault: String) -> ManifestError {
    let before = &line.text[..line.text.len() - rest.len()];
    ManifestError {
        line: line.number,
        column: before.chars().count() + 1,
        fault,
    }
}

/// Reads the version behind a colon without a name; only the first manifest needs it.
fn check_version<'a>(
    line: Line<'a>,
    first: &'a str,
    lines: &mut Lines<'a>,
    is_first: bool,
) -> Result<(), ManifestError> {
    let (line, rest) = value_start(line, first, lines);
    let fault = match (value(first, lines).as_str(), is_first) {
        ("1", _) | ("", false) => return Ok(()),
        ("", true) => "the version is missing; `: 1` is expected".to_owned(),
        (version, _) => {
            let version: String = version.chars().take(20).collect();
            let version = crate::printable(&version);
            format!("`: {version}` is not a known version; `: 1` is expected")
        }
    };
    Err(fault_at(line, rest, fault))
}

/// Returns the line in which a value starts, and the rest of the line from there on.
fn value_start<'a>(line: Line<'a>, first: &'a str, lines: &Lines<'a>) -> (Line<'a>, &'a str) {
    let mut lines = lines.clone();
    let introducer = match first {
        "\\" => Some(line),
        "" => lines.next().filter(|next| next.text == "\\"),
        _ => None,
    };
    match introducer {
        Some(introducer) => {
            let start = lines.next().map(|next| (next, next.text));
            start.unwrap_or((introducer, ""))
        }
        None => (line, first),
    }
}

/// Reads the value that starts with `first`.
fn value(first: &str, lines: &mut Lines<'_>) -> String {
    if first == "\\" {
        return several_lines(lines);
    }
    if first.is_empty() && lines.peek() == Some("\\") {
        lines.next();
        return several_lines(lines);
    }
    one_line(first, lines)
}

/// Reads a value up to a lone backslash or the end of the text.
fn several_lines(lines: &mut Lines<'_>) -> String {
    let mut value = String::new();
    let mut continues = true;
    for line in lines.map(|line| line.text).take_while(|line| *line != "\\") {
        if !continues {
            value.push('\n');
        }
        continues = push_line(&mut value, line);
    }
    value
}

/// Reads a value up to the first line that does not continue.
fn one_line(first: &str, lines: &mut Lines<'_>) -> String {
    let mut value = String::new();
    let mut line = first;
    let mut follows_continued = false;
    loop {
        if follows_continued && line == "\\" {
            value.push('\n');
            follows_continued = false;
        } else if push_line(&mut value, line) {
            follows_continued = true;
        } else {
            break;
        }
        match lines.next() {
            Some(next) => line = next.text,
            None => break,
        }
    }
    value.truncate(value.trim_end_matches(BLANKS).len());
    value
}

/// Adds a line to a value. Returns true if the next line continues it.
fn push_line(value: &mut String, line: &str) -> bool {
    let Some(without) = line.strip_suffix('\\') else {
        value.push_str(line);
        return false;
    };
    value.push_str(without);
    !without.ends_with('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the values of the only manifest of a text, joined as `name=value|…`.
    fn values(text: &str) -> Result<String, ManifestError> {
        let list = parse(text)?;
        let pairs = list.iter().flat_map(Manifest::pairs);
        let pairs: Vec<_> = pairs.map(|(n, v)| format!("{n}={v}")).collect();
        Ok(pairs.join("|"))
    }

    #[test]
    fn values_are_read_by_the_rules_of_the_format() {
        let table = [
            ("a:", "a="),
            ("a", "line 2, column 2: a `name: value` is expected here"),
            (" a\t: \tx y \t", "a=x y"),
            ("  # comment\n\n\ta:b:c#d", "a=b:c#d"),
            ("a:x\\", "a=x"),
            ("a:x\\\n y", "a=x y"),
            ("a: x \\\n\ty\\\n", "a=x \ty"),
            ("a: x\\\n# y", "a=x# y"),
            ("a:x\\\\\nb:", "a=x\\|b="),
            ("a:x\\\\\\\nb:", "a=x\\\\|b="),
            ("a:\\\\\nb:", "a=\\|b="),
            ("a:\\ \nb:", "a=\\|b="),
            ("a:x\\\n\\\ny", "a=x\ny"),
            ("a:x\\\n\\\n\\\n\\\ny", "a=x\n\ny"),
            ("a:x\\\n\\\n  ", "a=x\n"),
            ("a:x\\\n\\", "a=x\n"),
            ("a:\\\nx\n\\\nb:", "a=x|b="),
            ("a:\n\\\nx\n\\\nb:", "a=x|b="),
            ("a: \t\n\\\n x \n\n#y:\n\\\nb:", "a= x \n\n#y:|b="),
            (
                "a:\n\\x\nb:",
                "line 3, column 3: a `name: value` is expected here",
            ),
            ("a:\n\\x:\nb:", "a=|\\x=|b="),
            (
                "a:\n \\\nb:",
                "line 3, column 3: a `name: value` is expected here",
            ),
            ("a:\\\n\\\nb:", "a=|b="),
            ("a:\n\\\n\n\n\\\nb:", "a=\n|b="),
            ("a:\n\\\nx\\\ny\n\\", "a=xy"),
            ("a:\n\\\nC:\\\\\n\\\\\n\\", "a=C:\\\n\\"),
            ("a:\n\\\nx\\\n\\\nb:", "a=x|b="),
            ("a:\n\\\nx\ny", "a=x\ny"),
            ("a:\n\\\nx\n", "a=x\n"),
            ("a:\\", "a="),
            ("a:\n\\", "a="),
            ("a:\r\n\\\r\nx\r\ry\r\n\\\rb:z", "a=x\ny|b=z"),
            ("a:x\\\r\ny", "a=xy"),
            ("ä: é\u{10302}", "ä=é\u{10302}"),
        ];
        for (text, expected) in table {
            let found = values(&format!(": 1\n{text}"));
            assert_eq!(
                found.unwrap_or_else(|error| error.to_string()),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_first_manifest_needs_the_version() {
        let count = |text| parse(text).map(|list| list.len());
        for (text, expected) in [
            ("", 0),
            (" \t\n# comment", 0),
            (":1", 1),
            (" \t : 1 \n", 1),
            (":\\\n1\n\\", 1),
            (":1\n:\n:1\na:b\n \t:\nc:d", 4),
        ] {
            assert_eq!(count(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_line_and_the_column() {
        let table = [
            (
                "name: x\n",
                "line 1, column 1: the first line must be `: 1`",
            ),
            (
                "\n :\n",
                "line 2, column 3: the version is missing; `: 1` is expected",
            ),
            (
                ": 2\n",
                "line 1, column 3: `: 2` is not a known version; `: 1` is expected",
            ),
            (
                ":1\na:\n: x\\\ny",
                "line 3, column 3: `: xy` is not a known version; `: 1` is expected",
            ),
            (
                ": 1\nx\n",
                "line 2, column 2: a `name: value` is expected here",
            ),
            (
                ": 1\r\rä b: c\n",
                "line 2, column 3: a `name: value` is expected here",
            ),
            (
                ": 1\n# \u{1b}\nx",
                "line 2, column 3: the control character U+001B is not allowed in a manifest",
            ),
            (
                ": 1\na: b\u{200d}\u{fdd0}\n",
                "line 2, column 5: the format character U+200D is not allowed in a manifest",
            ),
            (
                ": 1\nx\n\u{7f}",
                "line 2, column 2: a `name: value` is expected here",
            ),
        ];
        for (text, fault) in table {
            assert_eq!(parse(text).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused_with_their_place() {
        assert_eq!(
            parse_bytes(b": 1\na: b").unwrap(),
            parse(": 1\na: b").unwrap()
        );
        for (bytes, fault) in [
            (
                &b": 1\na\xD0\xB0\xD0\xB0\xFE"[..],
                "line 2, column 4: the byte 0xFE is not UTF-8 here",
            ),
            (b"\xB0", "line 1, column 1: the byte 0xB0 is not UTF-8 here"),
            (
                b": 1\nx\na: \xD0",
                "line 2, column 2: a `name: value` is expected here",
            ),
            (
                b": 1\na:\xD0",
                "line 2, column 3: the byte 0xD0 is not UTF-8 here",
            ),
        ] {
            assert_eq!(parse_bytes(bytes).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn local_files_may_contain_any_character() {
        let text = ": 1\nsummary: a\u{1b}\u{200d}b\n";
        parse(text).unwrap_err();
        let list = parse_local(text).unwrap();
        assert_eq!(list[0].get("summary"), Some("a\u{1b}\u{200d}b"));
        parse_local(": 1\na b\n").unwrap_err();
    }

    #[test]
    fn bodies_are_the_lines_between_the_starts() {
        let text = "# x\n: 1\na: b\\\n c\n# d\n :\n:\r\ne:\n\\\n:\n\\\n";
        let expected = ["a: b\\\n c\n# d\n", "", "e:\n\\\n:\n\\\n"];
        assert_eq!(bodies(text).unwrap(), expected);
        assert_eq!(bodies("").unwrap(), [""; 0]);
        bodies(":2").unwrap_err();
    }

    #[test]
    fn the_number_of_manifests_and_values_is_limited() {
        for line in [":\n", "a:\n"] {
            let text = |count| format!(": 1\n{}", line.repeat(count));
            assert!(parse(&text(ENTRIES_MAX - 1)).is_ok());
            let error = parse(&text(ENTRIES_MAX)).unwrap_err().to_string();
            let expected = "line 100001, column 1: there are more than 100000 manifests and values";
            assert_eq!(error, expected);
        }
    }
}
