//! Properties of the format, checked with a writer and a reader of the tests' own: the writer
//! chooses at random among all forms that a value may have, and the reader goes through the text
//! by characters.

use proptest::prelude::*;

use super::*;

type Pairs = Vec<(String, String)>;

/// A name of a value.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z-]{1,8}", "[a-zäß#\\\\]{1,45}"]
        .prop_filter("a comment", |name| !name.starts_with('#'))
}

/// A value, with the characters that matter for the format.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z:#\\\\ \t\n]{0,20}",
        "[ab\\\\\n]{0,8}",
        "[a-z ä漢\u{10302}\\\\]{0,200}",
        "([a-z]{1,30}[ \t]){0,12}\\\\{0,3}\n?[ \t]?",
    ]
}

fn pairs() -> impl Strategy<Value = Pairs> {
    prop::collection::vec((name(), value()), 0..5)
}

fn list() -> impl Strategy<Value = Vec<Pairs>> {
    prop::collection::vec(pairs(), 0..4)
}

fn manifest_of(pairs: &Pairs) -> Manifest {
    let add = |manifest: Manifest, (name, value): &(String, String)| manifest.with(name, value);
    pairs.iter().fold(Manifest::new(), add)
}

fn pairs_of(list: &[Manifest]) -> Vec<Pairs> {
    list.iter().map(|it| it.pairs().to_vec()).collect()
}

/// A source of choices for the writer of the tests.
struct Choices {
    state: u64,
    line_end: &'static str,
}

impl Choices {
    /// Creates a source, and chooses the end of all lines.
    fn new(seed: u64) -> Self {
        let mut choices = Self {
            state: seed,
            line_end: "",
        };
        let index = usize::try_from(choices.next(3)).unwrap();
        choices.line_end = ["\n", "\r\n", "\r\r\n"][index];
        choices
    }

    /// Returns a number below `count`.
    fn next(&mut self, count: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % count
    }

    fn blanks(&mut self) -> &'static str {
        ["", " ", "\t", " \t "][usize::try_from(self.next(4)).unwrap()]
    }

    /// Writes a list in a random form.
    fn list(&mut self, list: &[Pairs]) -> String {
        let mut text = String::new();
        for (index, pairs) in list.iter().enumerate() {
            let version = if index == 0 || self.next(2) == 0 {
                "1"
            } else {
                ""
            };
            self.noise(&mut text);
            text.extend([self.blanks(), ":", self.blanks(), version, self.line_end]);
            for (name, value) in pairs {
                self.noise(&mut text);
                self.pair(&mut text, name, value);
            }
        }
        text
    }

    /// Writes blank lines and comments.
    fn noise(&mut self, text: &mut String) {
        for _ in 0..self.next(3) {
            let comment = ["", "#", "# a: b\\", "#:\\"][usize::try_from(self.next(4)).unwrap()];
            text.extend([self.blanks(), comment, self.line_end]);
        }
    }

    fn pair(&mut self, text: &mut String, name: &str, value: &str) {
        text.extend([self.blanks(), name, self.blanks(), ":"]);
        let has_outer_blanks = value.trim_matches([' ', '\t']) != value;
        // A single line cannot have a newline at its start or behind a backslash.
        let needs_lines = value.starts_with('\n') || value.contains("\\\n");
        if has_outer_blanks || needs_lines || self.next(3) == 0 {
            let introducer = if self.next(2) == 0 {
                String::new()
            } else {
                format!("{}{}", self.blanks(), self.line_end)
            };
            text.extend([&introducer, "\\", self.line_end]);
            for line in value.split('\n') {
                self.line(text, line, 0);
                *text += self.line_end;
            }
            *text += "\\";
        } else {
            *text += self.blanks();
            for (index, line) in value.split('\n').enumerate() {
                if index > 0 {
                    // A literal newline: the end of the line before it is continued.
                    text.extend(["\\", self.line_end, "\\", self.line_end]);
                }
                self.line(text, line, usize::from(index == 0));
            }
            *text += self.blanks_after(value);
        }
        *text += self.line_end;
    }

    /// Returns blanks to be dropped behind a value; none behind a backslash.
    fn blanks_after(&mut self, value: &str) -> &'static str {
        if value.is_empty() || value.ends_with(['\\', '\n']) {
            return "";
        }
        self.blanks()
    }

    /// Writes a line of a value, continued at random places from the character `start` on.
    fn line(&mut self, text: &mut String, line: &str, start: usize) {
        let mut last = '\0';
        for (index, character) in line.chars().enumerate() {
            if index > start && last != '\\' && self.next(9) == 0 {
                text.extend(["\\", self.line_end]);
            }
            text.push(character);
            last = character;
        }
        if last == '\\' {
            text.push('\\');
        }
    }
}

/// Reads what [`print`] writes, character by character. Panics at anything else.
fn read_printed(text: &str) -> Vec<Pairs> {
    let mut list: Vec<Pairs> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once(':').unwrap();
        if name.is_empty() {
            let start = if list.is_empty() { " 1\n" } else { "\n" };
            rest = after.strip_prefix(start).unwrap();
            list.push(Vec::new());
            continue;
        }
        let (value, after) = match after.strip_prefix("\n\\\n") {
            Some(lines) => read_value(lines, true),
            None => read_value(after.strip_prefix(' ').unwrap_or(after), false),
        };
        list.last_mut().unwrap().push((name.to_owned(), value));
        rest = after;
    }
    list
}

/// Reads a value up to its end. Returns it and the text behind it.
fn read_value(text: &str, has_lines: bool) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        if has_lines && let Some(after) = rest.strip_prefix("\n\\\n") {
            return (value, after);
        }
        if let Some(after) = rest.strip_prefix("\\\\\n") {
            value.push('\\');
            rest = &rest[rest.len() - after.len() - 1..];
        } else if let Some(after) = rest.strip_prefix("\\\n") {
            rest = after;
        } else if !has_lines && let Some(after) = rest.strip_prefix('\n') {
            return (value, after);
        } else {
            let next = rest.chars().next().unwrap();
            value.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
}

proptest! {
    #[test]
    fn all_forms_of_a_value_are_read(list in list(), seed: u64) {
        let text = Choices::new(seed).list(&list);
        let read = parse(&text);
        prop_assert_eq!(read.map(|read| pairs_of(&read)), Ok(list), "{}", text);
    }

    #[test]
    fn an_independent_reader_reads_printed_lists(list in list()) {
        let manifests: Vec<_> = list.iter().map(manifest_of).collect();
        for text in [print(&manifests), print_local(&manifests)] {
            prop_assert_eq!(&read_printed(&text), &list, "{}", text);
            prop_assert_eq!(parse(&text).map(|read| pairs_of(&read)), Ok(list.clone()));
        }
    }

    #[test]
    fn printed_lines_have_at_most_78_characters(
        pairs in prop::collection::vec((name(), "[a-z äöü漢\t\n]{0,400}"), 1..4)
    ) {
        for line in print(&[manifest_of(&pairs)]).lines() {
            // The last one is a backslash, or the last character of the value.
            prop_assert!(line.chars().count() <= 78, "{}", line);
        }
    }

    #[test]
    fn a_line_is_only_continued_if_the_next_word_has_no_place(
        words in prop::collection::vec("[a-z]{1,20}", 1..40)
    ) {
        let value = words.join(" ");
        let text = print(&[Manifest::new().with("a", &value)]);
        let lines: Vec<_> = text.lines().skip(1).collect();
        for pair in lines.windows(2) {
            let next = pair[1].trim_end_matches('\\');
            let word = next.split_inclusive(' ').take(2).collect::<String>();
            let length = pair[0].len() - 1 + word.trim_end().len();
            prop_assert!(length >= 77, "{}", text);
        }
    }

    #[test]
    fn any_text_is_printed_as_a_manifest_that_is_read(value: String) {
        let list = vec![Manifest::new().with("a", &value)];
        prop_assert_eq!(parse_local(&print_local(&list)), Ok(list.clone()));
        let read = parse(&print(&list)).unwrap();
        let kept = |c: char| c == char::REPLACEMENT_CHARACTER || list[0].pairs()[0].1.contains(c);
        prop_assert!(read[0].pairs()[0].1.chars().all(kept));
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "(: 1\n)?[a-z:\\\\\n \r#\u{1b}ä]{0,60}") {
        let strict = parse(&text);
        if strict.is_ok() {
            prop_assert_eq!(parse_local(&text), strict.clone());
            prop_assert_eq!(bodies(&text).unwrap().len(), strict.unwrap().len());
        }
    }

    #[test]
    fn a_body_is_a_manifest_of_its_own(list in list(), seed: u64) {
        let text = Choices::new(seed).list(&list);
        for (body, pairs) in bodies(&text).unwrap().into_iter().zip(&list) {
            let read = parse(&format!(": 1\n{body}")).unwrap();
            prop_assert_eq!(&pairs_of(&read), std::slice::from_ref(pairs));
        }
    }

    #[test]
    fn an_appended_value_is_added_to_the_last_manifest(list in list(), seed: u64, value in value()) {
        let text = Choices::new(seed).list(&list);
        let mut expected = list;
        if let Some(last) = expected.last_mut() {
            last.push(("added".to_owned(), value.clone()));
            let longer = append(&text, "added", &value).unwrap();
            prop_assert!(longer.starts_with(&text));
            prop_assert_eq!(pairs_of(&parse(&longer).unwrap()), expected);
        }
    }
}
