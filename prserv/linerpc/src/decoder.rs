//! The decoder from bytes to messages: lines, the greeting with its headers, and chunked messages.

use std::ops::Range;

use memchr::memchr;
use serde_json::Value as Json;

use crate::framing::{Framing, FramingError, Greeting, LINE_BYTES_MAX, truncated};

/// A decoded part of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The greeting is complete.
    Greeted {
        /// True if the peer waits for headers in return.
        needs_headers: bool,
    },
    /// A message.
    Message(Json),
}

/// A decoder that buffers bytes and returns events in order.
#[derive(Debug)]
pub struct MessageDecoder {
    bytes: Vec<u8>,
    /// The start of the next line in `bytes`.
    start: usize,
    /// The length of the prefix of `bytes` that was searched for a newline.
    searched: usize,
    state: State,
    /// The value of the greeting's header `authorization`.
    authorization: Option<String>,
    message_bytes_max: usize,
    line_bytes_max: usize,
}

#[derive(Debug)]
enum State {
    Greeting(Greeting),
    Headers { needs_headers: bool },
    Messages,
    Chunks(String),
}

impl MessageDecoder {
    /// Creates a server's decoder, which expects a greeting and accepts messages of up to
    /// `message_bytes_max`.
    pub fn new(greeting: Greeting, message_bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            searched: 0,
            state: State::Greeting(greeting),
            authorization: None,
            message_bytes_max,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// Creates a client's decoder, which expects no greeting.
    pub fn for_replies(message_bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            searched: 0,
            state: State::Messages,
            authorization: None,
            message_bytes_max,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// Accepts lines from frames, which may be as long as a message.
    #[must_use]
    pub fn with_framing(mut self, framing: Framing) -> Self {
        if framing == Framing::SingleLine {
            self.line_bytes_max = self.message_bytes_max;
        }
        self
    }

    /// Returns the maximum length of a message.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// Returns the buffer to append received bytes to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        &mut self.bytes
    }

    /// Returns the next event, or `None` if more bytes are needed. After an error the connection
    /// must be closed.
    pub fn next_event(&mut self) -> Result<Option<Event>, FramingError> {
        while let Some(line) = self.next_line()? {
            let line = std::str::from_utf8(&self.bytes[line]).map_err(|_| FramingError::NotUtf8)?;
            if let Some(value) = self.state.authorization(line) {
                self.authorization = Some(value.to_owned());
            }
            if let Some(event) = self
                .state
                .accept_line(line.trim_end(), self.message_bytes_max)?
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Takes the value of the greeting's header `authorization`, with which a client presents a token.
    pub fn take_authorization(&mut self) -> Option<String> {
        self.authorization.take()
    }

    /// Returns the next message if it is a line that `parse` accepts. Leaves all others to
    /// [`MessageDecoder::next_event`].
    pub fn next_parsed<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if !matches!(self.state, State::Messages) {
            return None;
        }
        let (start, searched) = (self.start, self.searched);
        let line = self.next_line().ok().flatten()?;
        let text = std::str::from_utf8(&self.bytes[line]).ok();
        let parsed = text.and_then(|text| parse(text.trim_end()));
        if parsed.is_none() {
            (self.start, self.searched) = (start, searched);
        }
        parsed
    }

    /// Returns the next line as it is, without trailing white space, or `None` if more bytes are
    /// needed. For protocols that have more than messages.
    pub fn next_text(&mut self) -> Result<Option<&str>, FramingError> {
        match self.next_line()? {
            None => Ok(None),
            Some(line) => std::str::from_utf8(&self.bytes[line])
                .map(|line| Some(line.trim_end()))
                .map_err(|_| FramingError::NotUtf8),
        }
    }

    /// Checks that the stream ends between two messages.
    pub fn finish(&self) -> Result<(), FramingError> {
        let is_idle = matches!(self.state, State::Greeting(_) | State::Messages);
        if is_idle && self.start == self.bytes.len() {
            Ok(())
        } else {
            Err(FramingError::Truncated)
        }
    }

    /// Returns the position of the next line without its newline.
    fn next_line(&mut self) -> Result<Option<Range<usize>>, FramingError> {
        let newline = memchr(b'\n', &self.bytes[self.searched..]);
        let end = newline.map_or(self.bytes.len(), |found| self.searched + found);
        if end - self.start >= self.line_bytes_max {
            return Err(FramingError::LineTooLong);
        }
        if newline.is_none() {
            self.searched = end;
            return Ok(None);
        }
        let line = self.start..end;
        self.start = end + 1;
        self.searched = self.start;
        Ok(Some(line))
    }
}

impl State {
    /// Returns the value of a line that is the header `authorization`.
    fn authorization<'l>(&self, line: &'l str) -> Option<&'l str> {
        match (self, line.split_once(':')) {
            (Self::Headers { .. }, Some((tag, value)))
                if tag.eq_ignore_ascii_case("authorization") =>
            {
                Some(value.trim())
            }
            _ => None,
        }
    }

    fn accept_line(&mut self, line: &str, bytes_max: usize) -> Result<Option<Event>, FramingError> {
        match self {
            Self::Greeting(greeting) => {
                greeting.check(line)?;
                *self = Self::Headers {
                    needs_headers: false,
                };
                Ok(None)
            }
            Self::Headers { needs_headers } if line.is_empty() => {
                let needs_headers = *needs_headers;
                *self = Self::Messages;
                Ok(Some(Event::Greeted { needs_headers }))
            }
            Self::Headers { needs_headers } => {
                let (tag, value) = line
                    .split_once(':')
                    .ok_or(FramingError::Header(truncated(line)))?;
                if tag.eq_ignore_ascii_case("needs-headers") {
                    *needs_headers = value.trim() == "true";
                }
                Ok(None)
            }
            Self::Messages => {
                let message = parse(line)?;
                if message.get("chunk-stream").is_some() {
                    *self = Self::Chunks(String::new());
                    return Ok(None);
                }
                Ok(Some(Event::Message(message)))
            }
            Self::Chunks(text) if line.is_empty() => {
                let message = parse(text)?;
                *self = Self::Messages;
                Ok(Some(Event::Message(message)))
            }
            Self::Chunks(text) => {
                if text.len() + line.len() > bytes_max {
                    return Err(FramingError::MessageTooLong);
                }
                text.push_str(line);
                Ok(None)
            }
        }
    }
}

fn parse(text: &str) -> Result<Json, FramingError> {
    serde_json::from_str(text)
        .or_else(|error| {
            let standard = without_python_numbers(text).ok_or(error)?;
            serde_json::from_str(&standard)
        })
        .map_err(|error| FramingError::NotJson(error.to_string()))
}

/// Replaces `NaN` and `Infinity`, which Python's parser accepts, by a number. No request depends on
/// the value of such a member, only on its presence.
fn without_python_numbers(text: &str) -> Option<String> {
    let mut standard = String::with_capacity(text.len());
    let (mut is_string, mut is_escaped, mut rest) = (false, false, text);
    while let Some(character) = rest.chars().next() {
        let number = ["NaN", "-Infinity", "Infinity"]
            .iter()
            .find(|number| rest.starts_with(**number));
        if let (false, Some(number)) = (is_string, number) {
            standard.push_str("0.5");
            rest = &rest[number.len()..];
            continue;
        }
        is_string ^= character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        standard.push(character);
        rest = &rest[character.len_utf8()..];
    }
    (standard != text).then_some(standard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder;
    use proptest::prelude::*;
    use serde_json::json;

    const GREETING: Greeting = Greeting {
        protocol: "PRSERVICE",
        version: [1, 0],
    };

    fn events(reads: &[&[u8]]) -> Result<Vec<Event>, FramingError> {
        let mut decoder = MessageDecoder::new(GREETING, 128 * 1024);
        let mut events = Vec::new();
        for read in reads {
            decoder.buffer().extend_from_slice(read);
            while let Some(event) = decoder.next_event()? {
                events.push(event);
            }
        }
        decoder.finish()?;
        Ok(events)
    }

    #[test]
    fn a_line_that_a_parser_does_not_accept_is_the_next_event() {
        let mut decoder = MessageDecoder::for_replies(1024);
        let accept = |text: &str| (text == "1").then_some(());
        decoder
            .buffer()
            .extend_from_slice(b"1\r\n2\n{\"chunk-stream\": null}\n1\n\n1");
        assert_eq!(decoder.next_parsed(accept), Some(()));
        for expected in [2, 1] {
            assert_eq!(decoder.next_parsed(accept), None);
            let event = Event::Message(Json::from(expected));
            assert_eq!(decoder.next_event(), Ok(Some(event)));
        }
        assert_eq!(decoder.next_parsed(accept), None);
        decoder.buffer().push(b'\n');
        assert_eq!(decoder.next_parsed(accept), Some(()));
    }

    #[test]
    fn the_authorization_of_a_greeting_is_a_header_and_no_message() {
        let greeting = Greeting {
            protocol: "PRSERVICE",
            version: [1, 0],
        };
        let authorization = |text: &str| {
            let mut decoder = MessageDecoder::new(greeting, 1024);
            decoder.buffer().extend_from_slice(text.as_bytes());
            while let Ok(Some(_)) = decoder.next_event() {}
            decoder.take_authorization()
        };
        let header = "PRSERVICE 1.0\nAuthorization:  Bearer abc \r\n\n";
        assert_eq!(authorization(header).as_deref(), Some("Bearer abc"));
        for text in [
            "PRSERVICE 1.0\nx: y\n\n",
            "PRSERVICE 1.0\n\n\"authorization: x\"\n",
        ] {
            assert_eq!(authorization(text), None, "{text}");
        }
    }

    #[test]
    fn header_names_are_case_insensitive() {
        let greeted = |needs_headers| Ok(vec![Event::Greeted { needs_headers }]);
        assert_eq!(
            events(&[b"PRSERVICE 1.0\r\nNeeds-Headers: true \r\n\r\n"]),
            greeted(true)
        );
        assert_eq!(
            events(&[b"PRSERVICE 1.0\nneeds-headers: TRUE\n\n"]),
            greeted(false)
        );
        assert_eq!(events(&[b"PRSERVICE 1.0\nx:\n\n"]), greeted(false));
        assert_eq!(
            events(&[b"PRSERVICE 1.0\nx\n\n"]),
            Err(FramingError::Header("x".into()))
        );
    }

    #[test]
    fn a_line_of_64_kib_is_accepted_and_a_longer_one_rejected() {
        let line = |length: usize| {
            let text = format!("PRSERVICE 1.0\n\n\"{}\"\n", "x".repeat(length - 3));
            events(&[text.as_bytes()])
        };
        assert_eq!(line(LINE_BYTES_MAX).unwrap().len(), 2);
        assert_eq!(line(LINE_BYTES_MAX + 1), Err(FramingError::LineTooLong));
        let endless = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(
            events(&[b"PRSERVICE 1.0\n\n", &endless]),
            Err(FramingError::LineTooLong)
        );
    }

    #[test]
    fn numbers_that_only_python_accepts_parse_outside_of_strings() {
        let read_json = |text: &str| parse(text).map(|json| json.to_string());
        assert_eq!(
            read_json(r#"{"a": [NaN, -Infinity], "Infinity": "NaN\"NaN"}"#).unwrap(),
            r#"{"Infinity":"NaN\"NaN","a":[0.5,0.5]}"#
        );
        assert!(read_json("nan").is_err());
    }

    #[test]
    fn chunks_are_joined_and_must_be_terminated() {
        let mut bytes = b"PRSERVICE 1.0\n\n".to_vec();
        bytes.extend_from_slice(b"{\"chunk-stream\": null}\n{\"pi\nng\": {}}\n\n");
        let message = Event::Message(json!({"ping": {}}));
        assert_eq!(events(&[&bytes]).unwrap()[1], message);
        assert_eq!(
            events(&[&bytes[..bytes.len() - 1]]),
            Err(FramingError::Truncated)
        );
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_the_boundaries_of_reads(
            texts in proptest::collection::vec("\\PC{0,40}", 0..5),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let mut bytes = b"PRSERVICE 1.0\nneeds-headers: true\n\n".to_vec();
            for text in &texts {
                encoder::write(&mut bytes, &json!({ "text": text }));
            }
            let mut boundaries: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            boundaries.extend([0, bytes.len()]);
            boundaries.sort_unstable();
            let reads: Vec<&[u8]> = boundaries.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let whole = events(&[&bytes]);
            prop_assert_eq!(&whole, &events(&reads));
            let messages = whole.unwrap().into_iter().skip(1);
            let sent = texts.iter().map(|text| Event::Message(json!({ "text": text })));
            let is_equal = messages.eq(sent);
            prop_assert!(is_equal);
        }

        #[test]
        fn a_message_of_any_length_is_decoded_unchanged(length in 0..100_000usize) {
            let message = json!({ "text": "é".repeat(length / 6) + &"x".repeat(length % 6) });
            let mut decoder = MessageDecoder::for_replies(1024 * 1024);
            encoder::write(decoder.buffer(), &message);
            prop_assert_eq!(decoder.next_event(), Ok(Some(Event::Message(message))));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>, greeted: bool) {
            let greeting: &[u8] = if greeted { b"PRSERVICE 1.0\n\n" } else { b"" };
            let _ = events(&[greeting, &bytes]);
        }
    }
}
