//! The manifest format of build2: a list of manifests made of `name: value` lines.
//! Guests, toolchains, machines and controllers use it.
//!
//! Source: the manifest format of the build2 toolchain's `libbutl`. The first line
//! that is not a comment is `: 1`; every later manifest of a list starts with a lone
//! `:`. A value may span lines: with a backslash at the end of each line, or verbatim
//! between `name:\` and a lone backslash.

use std::fmt::Write as _;

/// The maximum number of manifests and values of a list. An entry takes far more memory than the
/// shortest line of text.
const ENTRIES_MAX: usize = 100_000;

/// The error of parsing a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct ManifestError {
    /// The line, counted from 1.
    pub line: usize,
    /// The fault.
    pub fault: String,
}

/// A manifest: names and values in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pairs: Vec<(String, String)>,
}

impl Manifest {
    /// Creates a manifest without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value. Text that the format cannot represent is changed: a carriage return
    /// before a line end is dropped, and a lone backslash on one of several lines gets a
    /// blank.
    #[must_use]
    pub fn with(mut self, name: &str, value: &(impl ToString + ?Sized)) -> Self {
        let mut value = value.to_string();
        if value.contains('\r') || value.contains('\n') && value.contains('\\') {
            let lines = value.split('\n').map(|line| line.trim_end_matches('\r'));
            let lines = lines.map(|line| if line == "\\" { "\\ " } else { line });
            value = lines.collect::<Vec<_>>().join("\n");
        }
        self.pairs.push((name.to_owned(), value));
        self
    }

    /// Returns the first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Returns all values of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Returns all names and values, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// Returns the text of a list of manifests, which [`parse`] parses.
pub fn print(manifests: &[Manifest]) -> String {
    let mut text = String::new();
    for (index, manifest) in manifests.iter().enumerate() {
        text.push_str(if index == 0 { ": 1\n" } else { ":\n" });
        for (name, value) in &manifest.pairs {
            if fits_one_line(value) {
                // A single backslash at the end would continue the line.
                let end = if value.ends_with('\\') { "\\" } else { "" };
                let _ = writeln!(text, "{name}: {value}{end}");
            } else {
                let _ = write!(text, "{name}:\\\n{value}\n\\\n");
            }
        }
    }
    text
}

/// Returns true if a value is unchanged if it is written on one line.
fn fits_one_line(value: &str) -> bool {
    !value.contains('\n') && value == trim(value)
}

/// Removes blanks at both ends.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r'])
}

/// Parses a list of manifests.
///
/// # Errors
/// The first line that violates the format.
pub fn parse(text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut list: Vec<Manifest> = Vec::new();
    let mut entries = 0;
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let fault = |fault: &str| ManifestError {
            line: number,
            fault: fault.to_owned(),
        };
        let content = trim(line);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(fault(&format!(
                "there are more than {ENTRIES_MAX} manifests and values"
            )));
        }
        let Some((name, first)) = content.split_once(':') else {
            return Err(fault("a `name: value` is expected here"));
        };
        let (name, first) = (trim(name), trim(first));
        if name.is_empty() {
            start(&mut list, first).map_err(|text| fault(&text))?;
            continue;
        }
        if name.contains([' ', '\t']) {
            return Err(fault("a name must not contain a blank"));
        }
        let Some(manifest) = list.last_mut() else {
            return Err(fault("the first line must be `: 1`"));
        };
        let value = value(first, &mut lines).ok_or_else(|| fault("the value does not end"))?;
        manifest.pairs.push((name.to_owned(), value));
    }
    Ok(list)
}

/// Starts the next manifest of a list; only the first one needs the version.
fn start(list: &mut Vec<Manifest>, version: &str) -> Result<(), String> {
    match (list.is_empty(), version) {
        (true, "1") | (false, "" | "1") => {
            list.push(Manifest::new());
            Ok(())
        }
        _ => Err(format!(
            "`: {version}` is not a known version; `: 1` is expected"
        )),
    }
}

/// Reads the value that starts with `first`. Returns `None` if the text ends within it.
fn value<'a>(first: &str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<String> {
    if first == "\\" {
        return verbatim(lines);
    }
    let mut value = String::new();
    let mut piece = first;
    loop {
        if let Some(kept) = piece.strip_suffix("\\\\") {
            value.push_str(kept);
            value.push('\\');
            return Some(value);
        }
        let Some(kept) = piece.strip_suffix('\\') else {
            value.push_str(piece);
            return Some(value);
        };
        value.push_str(kept);
        piece = trim_end(lines.next()?.1);
    }
}

fn trim_end(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r'])
}

/// Reads the lines up to a lone backslash verbatim.
fn verbatim<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<String> {
    let mut value = Vec::new();
    loop {
        match lines.next()?.1 {
            "\\" => return Some(value.join("\n")),
            line => value.push(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_parsed() {
        let text = "# a comment\n: 1\r\nname: libfoo\nsummary:  two words \nlong: one \\\ntwo\npath: C:\\\\\n\nlog:\\\n  line 1\n# kept\n\\\n:\nname: second\n";
        let list = parse(text).unwrap();
        assert_eq!(list.len(), 2);
        let get = |name| list[0].get(name).unwrap();
        assert_eq!(get("name"), "libfoo");
        assert_eq!(get("summary"), "two words");
        assert_eq!(get("long"), "one two");
        assert_eq!(get("path"), "C:\\");
        assert_eq!(get("log"), "  line 1\n# kept");
        assert_eq!(list[1].get("name"), Some("second"));
    }

    #[test]
    fn errors_name_the_line() {
        let table = [
            ("name: x\n", "line 1: the first line must be `: 1`"),
            (
                ": 2\n",
                "line 1: `: 2` is not a known version; `: 1` is expected",
            ),
            (": 1\nx\n", "line 2: a `name: value` is expected here"),
            (": 1\na b: c\n", "line 2: a name must not contain a blank"),
            (": 1\nlog:\\\nx\n", "line 2: the value does not end"),
            (": 1\nlog: x\\\n", "line 2: the value does not end"),
        ];
        for (text, fault) in table {
            assert_eq!(parse(text).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn the_number_of_manifests_and_values_is_limited() {
        for line in [":\n", "a:\n"] {
            let text = |count| format!(": 1\n{}", line.repeat(count));
            assert!(parse(&text(ENTRIES_MAX - 1)).is_ok());
            let error = parse(&text(ENTRIES_MAX)).unwrap_err().to_string();
            let expected = "line 100001: there are more than 100000 manifests and values";
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn an_empty_text_is_an_empty_list() {
        assert_eq!(parse("").unwrap(), []);
    }

    fn manifest() -> impl Strategy<Value = Manifest> {
        prop::collection::vec(("[a-z-]{1,8}", "[a-z:#\\\\ \t\r\n]{0,20}"), 0..5).prop_map(|pairs| {
            let add =
                |manifest: Manifest, (name, value): &(String, String)| manifest.with(name, value);
            pairs.iter().fold(Manifest::new(), add)
        })
    }

    proptest! {
        #[test]
        fn written_manifests_parse_to_the_same_values(list in prop::collection::vec(manifest(), 0..4)) {
            prop_assert_eq!(parse(&print(&list)).unwrap(), list);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "(: 1\n)?[a-z:\\\\\n \r#]{0,60}") {
            let _ = parse(&text);
        }
    }
}
