//! Control paragraphs of packages, as Debian and opkg write them.

use std::fmt;

/// A paragraph: fields in their order. Names are compared without regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph {
    fields: Vec<(String, String)>,
}

/// A fault of a paragraph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// A line is neither a field nor the continuation of one.
    #[error(
        "line {0} of the control file is neither `NAME: VALUE` nor the continuation of a field"
    )]
    Line(usize),
    /// A field appears twice.
    #[error("line {0} of the control file repeats a field")]
    Repeated(usize),
    /// A second paragraph follows.
    #[error("line {0} of the control file begins a second paragraph")]
    Second(usize),
    /// A field is missing.
    #[error("the control file has no field {0}")]
    Missing(&'static str),
    /// A field has a value that no package may have.
    #[error("the field {name} of the control file has the value {value:?}")]
    Value {
        /// The field.
        name: &'static str,
        /// The value, shortened.
        value: String,
    },
}

impl Paragraph {
    /// Parses one paragraph. Continuation lines keep their first blank.
    ///
    /// # Errors
    /// The text is not exactly one paragraph.
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut is_over = false;
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim_end_matches([' ', '\t', '\r']);
            if line.is_empty() {
                is_over = !fields.is_empty();
                continue;
            }
            if is_over {
                return Err(ControlError::Second(number));
            }
            if line.contains(|c: char| c.is_control() && c != '\t') {
                return Err(ControlError::Line(number));
            }
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().ok_or(ControlError::Line(number))?;
                value.push('\n');
                value.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(ControlError::Line(number))?;
            if !is_field_name(name) {
                return Err(ControlError::Line(number));
            }
            if fields
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                return Err(ControlError::Repeated(number));
            }
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self { fields })
    }

    /// Returns the value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        self.fields
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Sets a field, which becomes the last one. The value must have no line breaks.
    pub fn set(&mut self, name: &str, value: String) {
        self.remove(name);
        self.fields.push((name.to_owned(), value));
    }
}

/// Returns true for the name of a field: visible ASCII without `:`, and neither `#` nor `-` first.
fn is_field_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_graphic())
        && !name.starts_with(['#', '-'])
}

impl fmt::Display for Paragraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.fields {
            // A value that begins on the second line has no blank at the end of the first.
            let blank = if value.is_empty() || value.starts_with('\n') {
                ""
            } else {
                " "
            };
            writeln!(f, "{name}:{blank}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_found_by_name_and_keep_their_order() {
        let text = "Package: hello\nVersion: 1.0-r0\nDescription: greets\n people\n .\n twice\n";
        let control = Paragraph::parse(text).unwrap();
        assert_eq!(control.get("package"), Some("hello"));
        assert_eq!(
            control.get("Description"),
            Some("greets\n people\n .\n twice")
        );
        assert_eq!(control.to_string(), text);
        let conffiles = "Conffiles:\n /etc/hello 0123\n";
        assert_eq!(Paragraph::parse(conffiles).unwrap().to_string(), conffiles);
    }

    #[test]
    fn a_package_cannot_add_a_second_paragraph_to_an_index() {
        for (text, fault) in [
            ("Package: a\n\nPackage: b\n", ControlError::Second(3)),
            ("Package: a\n \nPackage: b\n", ControlError::Second(3)),
            ("Package: a\npackage: b\n", ControlError::Repeated(2)),
            (" a\n", ControlError::Line(1)),
            ("-----BEGIN PGP SIGNATURE-----: x\n", ControlError::Line(1)),
            ("Package: a\u{b}b\n", ControlError::Line(1)),
        ] {
            assert_eq!(Paragraph::parse(text), Err(fault), "{text:?}");
        }
        assert!(Paragraph::parse("\n\nPackage: a\n\n").is_ok());
    }

    proptest! {
        #[test]
        fn a_paragraph_that_was_read_is_written_so_that_it_reads_the_same(
            text in "([A-Za-z#-]{1,3}:?[ \ta-z\u{e9}]{0,5}\n( ?[.a-z\t]{0,4}\n)?){0,5}"
        ) {
            if let Ok(control) = Paragraph::parse(&text) {
                let written = control.to_string();
                prop_assert_eq!(Paragraph::parse(&written), Ok(control), "{:?}", written);
                prop_assert!(!written.contains("\n\n"));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = Paragraph::parse(&text);
        }
    }
}
