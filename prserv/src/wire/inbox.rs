//! Bytes to messages: lines, the greeting with its headers, and messages that come in pieces.

use std::ops::Range;

use memchr::memchr;
use serde_json::Value as Json;

use super::{Fault, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, REPLY_BYTES_MAX};

/// What has come in.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The greeting is complete.
    Greeted {
        /// Whether the peer waits for our headers.
        needs_headers: bool,
    },
    /// A message.
    Message(Json),
}

/// Collects bytes, and gives events out in their order.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the next line starts in `bytes`.
    start: usize,
    /// How far `bytes` holds no newline, counted from its start.
    searched: usize,
    state: State,
    message_bytes_max: usize,
    line_bytes_max: usize,
}

#[derive(Debug)]
enum State {
    Greeting,
    Headers { needs_headers: bool },
    Messages,
    Pieces(String),
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            searched: 0,
            state: State::Greeting,
            message_bytes_max: MESSAGE_BYTES_MAX,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }
}

impl Inbox {
    /// An inbox for messages only: the client's side, where exports may be long.
    pub fn of_client() -> Self {
        Self {
            state: State::Messages,
            message_bytes_max: REPLY_BYTES_MAX,
            ..Self::default()
        }
    }

    /// An inbox for lines that came in frames, which may be as long as a message.
    pub fn of_frames() -> Self {
        Self {
            line_bytes_max: MESSAGE_BYTES_MAX,
            ..Self::default()
        }
    }

    /// Where to put the next bytes.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        &mut self.bytes
    }

    /// The next event, or `None` until more bytes come. After a fault the connection is closed.
    pub fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        while let Some(line) = self.next_line()? {
            let line = std::str::from_utf8(&self.bytes[line]).map_err(|_| Fault::NotText)?;
            if let Some(event) = self
                .state
                .take_line(line.trim_end(), self.message_bytes_max)?
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Whether the connection may end here.
    pub fn finish(&self) -> Result<(), Fault> {
        let is_idle = matches!(self.state, State::Greeting | State::Messages);
        if is_idle && self.start == self.bytes.len() {
            Ok(())
        } else {
            Err(Fault::Cut)
        }
    }

    /// Where the next line is, without its newline.
    fn next_line(&mut self) -> Result<Option<Range<usize>>, Fault> {
        let newline = memchr(b'\n', &self.bytes[self.searched..]);
        let end = newline.map_or(self.bytes.len(), |found| self.searched + found);
        if end - self.start >= self.line_bytes_max {
            return Err(Fault::LineTooLong);
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
    fn take_line(&mut self, line: &str, bytes_max: usize) -> Result<Option<Event>, Fault> {
        match self {
            Self::Greeting => {
                check_greeting(line)?;
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
                let (tag, value) = line.split_once(':').ok_or(Fault::Header(shortened(line)))?;
                if tag.eq_ignore_ascii_case("needs-headers") {
                    *needs_headers = value.trim() == "true";
                }
                Ok(None)
            }
            Self::Messages => {
                let message = parse(line)?;
                if message.get("chunk-stream").is_some() {
                    *self = Self::Pieces(String::new());
                    return Ok(None);
                }
                Ok(Some(Event::Message(message)))
            }
            Self::Pieces(text) if line.is_empty() => {
                let message = parse(text)?;
                *self = Self::Messages;
                Ok(Some(Event::Message(message)))
            }
            Self::Pieces(text) => {
                if text.len() + line.len() > bytes_max {
                    return Err(Fault::MessageTooLong);
                }
                text.push_str(line);
                Ok(None)
            }
        }
    }
}

/// `PRSERVICE 1.0`, the version read as two integers.
fn check_greeting(line: &str) -> Result<(), Fault> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_ours = match words[..] {
        ["PRSERVICE", version] => {
            let fields: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
            fields == [Ok(1), Ok(0)]
        }
        _ => false,
    };
    if is_ours {
        Ok(())
    } else {
        Err(Fault::Greeting(shortened(line)))
    }
}

/// As much of a line as a log should hold.
fn shortened(line: &str) -> String {
    line.chars().take(80).collect()
}

fn parse(text: &str) -> Result<Json, Fault> {
    let parsed = serde_json::from_str(text).or_else(|error| {
        let standard = without_odd_numbers(text).ok_or(error)?;
        serde_json::from_str(&standard)
    });
    parsed.map_err(|error| Fault::NotJson(error.to_string()))
}

/// Python reads `NaN` and `Infinity` too. No request needs their value, only that they are there.
fn without_odd_numbers(text: &str) -> Option<String> {
    let mut standard = String::with_capacity(text.len());
    let (mut is_string, mut is_escaped, mut rest) = (false, false, text);
    while let Some(character) = rest.chars().next() {
        let odd = ["NaN", "-Infinity", "Infinity"]
            .iter()
            .find(|odd| rest.starts_with(**odd));
        if let (false, Some(odd)) = (is_string, odd) {
            standard.push_str("0.5");
            rest = &rest[odd.len()..];
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
    use crate::wire::reply;
    use proptest::prelude::*;
    use serde_json::json;

    fn events(pieces: &[&[u8]]) -> Result<Vec<Event>, Fault> {
        let mut inbox = Inbox::default();
        let mut events = Vec::new();
        for piece in pieces {
            inbox.buffer().extend_from_slice(piece);
            while let Some(event) = inbox.next_event()? {
                events.push(event);
            }
        }
        inbox.finish()?;
        Ok(events)
    }

    #[test]
    fn the_greeting_is_two_words_and_a_version_of_two_integers() {
        for good in ["PRSERVICE 1.0", "  PRSERVICE   01.00 \r", "PRSERVICE\t1.0"] {
            assert_eq!(check_greeting(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "PRSERVICE",
            "PRSERVICE 1",
            "PRSERVICE 1.1",
            "PRSERVICE 1.0.0",
            "prservice 1.0",
            "OEHASHEQUIV 1.0",
            "PRSERVICE 1.0 x",
            "PRSERVICE 1.x",
        ] {
            assert!(check_greeting(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn headers_are_read_without_regard_to_case_of_the_tag() {
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
            Err(Fault::Header("x".into()))
        );
    }

    #[test]
    fn a_line_of_64_kib_is_read_and_a_longer_one_is_a_fault() {
        let line = |length: usize| {
            let text = format!("PRSERVICE 1.0\n\n\"{}\"\n", "x".repeat(length - 3));
            events(&[text.as_bytes()])
        };
        assert_eq!(line(LINE_BYTES_MAX).unwrap().len(), 2);
        assert_eq!(line(LINE_BYTES_MAX + 1), Err(Fault::LineTooLong));
        let endless = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(
            events(&[b"PRSERVICE 1.0\n\n", &endless]),
            Err(Fault::LineTooLong)
        );
    }

    #[test]
    fn numbers_that_only_python_knows_are_read_outside_texts() {
        let read = |text: &str| parse(text).map(|json| json.to_string());
        assert_eq!(
            read(r#"{"a": [NaN, -Infinity], "Infinity": "NaN\"NaN"}"#).unwrap(),
            r#"{"Infinity":"NaN\"NaN","a":[0.5,0.5]}"#
        );
        assert!(read("nan").is_err());
    }

    #[test]
    fn pieces_are_joined_and_must_end() {
        let mut bytes = b"PRSERVICE 1.0\n\n".to_vec();
        bytes.extend_from_slice(b"{\"chunk-stream\": null}\n{\"pi\nng\": {}}\n\n");
        let message = Event::Message(json!({"ping": {}}));
        assert_eq!(events(&[&bytes]).unwrap()[1], message);
        assert_eq!(events(&[&bytes[..bytes.len() - 1]]), Err(Fault::Cut));
    }

    proptest! {
        #[test]
        fn the_events_do_not_depend_on_how_the_bytes_are_cut(
            texts in proptest::collection::vec("\\PC{0,40}", 0..5),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let mut bytes = b"PRSERVICE 1.0\nneeds-headers: true\n\n".to_vec();
            for text in &texts {
                reply::write(&mut bytes, &json!({ "text": text }));
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let whole = events(&[&bytes]);
            prop_assert_eq!(&whole, &events(&pieces));
            let messages = whole.unwrap().into_iter().skip(1);
            let sent = texts.iter().map(|text| Event::Message(json!({ "text": text })));
            let is_equal = messages.eq(sent);
            prop_assert!(is_equal);
        }

        #[test]
        fn a_text_of_any_length_comes_back(length in 0..100_000usize) {
            let message = json!({ "text": "é".repeat(length / 6) + &"x".repeat(length % 6) });
            let mut inbox = Inbox::of_client();
            reply::write(inbox.buffer(), &message);
            prop_assert_eq!(inbox.next_event(), Ok(Some(Event::Message(message))));
            prop_assert_eq!(inbox.finish(), Ok(()));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, greeted: bool) {
            let greeting: &[u8] = if greeted { b"PRSERVICE 1.0\n\n" } else { b"" };
            let _ = events(&[greeting, &bytes]);
        }
    }
}
