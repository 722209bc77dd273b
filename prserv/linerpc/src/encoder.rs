//! The encoder from messages to bytes: formatted as Python's `json.dumps` does and chunked if
//! long.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

use crate::framing::CHUNK_CHARS;

/// Appends a message as one line or, if it is long, as chunks.
pub fn write(out: &mut Vec<u8>, message: &impl Serialize) {
    let start = out.len();
    append(out, message);
    if out.len() - start < CHUNK_CHARS {
        out.push(b'\n');
        return;
    }
    let text = out.split_off(start);
    out.extend_from_slice(b"{\"chunk-stream\": null}\n");
    for chunk in text.chunks(CHUNK_CHARS) {
        out.extend_from_slice(chunk);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Appends a message as one line of any length.
pub fn write_line(out: &mut Vec<u8>, message: &impl Serialize) {
    append(out, message);
    out.push(b'\n');
}

/// Returns the text of a message: ASCII only, with the separators `", "` and `": "`.
pub fn text(message: &impl Serialize) -> String {
    let mut out = Vec::new();
    append(&mut out, message);
    String::from_utf8(out).unwrap_or_default()
}

fn append(out: &mut Vec<u8>, message: &impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, PythonFormatter);
    // Serializing to memory cannot fail. If it did, the client would reject the empty line.
    let _ = message.serialize(&mut serializer);
}

/// The reply to a refused request. BitBake's clients raise an `InvokeError` with the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvokeError {
    #[serde(rename = "invoke-error")]
    error: InvokeErrorBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct InvokeErrorBody {
    message: String,
}

impl InvokeError {
    /// Creates the reply with a message.
    pub fn new(message: String) -> Self {
        Self {
            error: InvokeErrorBody { message },
        }
    }
}

/// A formatter with Python's separators and its escapes for non-ASCII characters.
struct PythonFormatter;

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for character in text.chars() {
            if matches!(character, ' '..='~') {
                out.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus | CharEscape::Solidus => out.write_all(b"\\\\"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    #[test]
    fn replies_are_formatted_as_python_does() {
        let message = json!({"value": ["é\u{1F600}\"\\\n\u{1}", null, true, 7]});
        assert_eq!(
            text(&message),
            r#"{"value": ["\u00e9\ud83d\ude00\"\\\n\u0001", null, true, 7]}"#
        );
    }

    #[test]
    fn messages_of_at_least_32767_characters_are_chunked() {
        let written = |length: usize| {
            let mut out = Vec::new();
            write(&mut out, &Json::from("x".repeat(length - 2)));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(32766).len(), 32767);
        let lengths = |text: String| text.lines().map(str::len).collect::<Vec<_>>();
        assert_eq!(lengths(written(32767)), [22, 32767, 0]);
        assert_eq!(lengths(written(32768)), [22, 32767, 1, 0]);
    }
}
