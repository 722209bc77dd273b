//! JSON byte for byte as Python's `json` module writes it: a space after each comma and
//! colon, and only printable ASCII.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// Returns a value as JSON.
pub fn to_json(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, Python);
    // Infallible: all keys of the values are strings, and the writer is in memory.
    let _ = value.serialize(&mut serializer);
    String::from_utf8_lossy(&text).into_owned()
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        write_separator(to, first)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        write_separator(to, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }

    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        to: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        loop {
            let plain = rest.find(|c| !matches!(c, ' '..='~')).unwrap_or(rest.len());
            to.write_all(&rest.as_bytes()[..plain])?;
            let mut characters = rest[plain..].chars();
            let Some(special) = characters.next() else {
                return Ok(());
            };
            for unit in special.encode_utf16(&mut [0; 2]) {
                write!(to, "\\u{unit:04x}")?;
            }
            rest = characters.as_str();
        }
    }
}

fn write_separator<W: Write + ?Sized>(to: &mut W, first: bool) -> io::Result<()> {
    to.write_all(if first { b"" } else { b", " })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_equals_that_of_python() {
        let value = json!({"a": [1, "x", null], "b": {}, "c": "\u{e9}\u{7f}\n\"\u{1f600}"});
        assert_eq!(
            to_json(&value),
            r#"{"a": [1, "x", null], "b": {}, "c": "\u00e9\u007f\n\"\ud83d\ude00"}"#
        );
    }
}
