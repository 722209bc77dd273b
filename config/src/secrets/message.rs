//! The line that carries a secret to a guest.

use std::fmt;

use zeroize::Zeroizing;

use super::{BYTES_MAX, SecretValue};
use crate::names::SecretName;
use crate::task::TaskError;

/// The longest line, with its line end.
pub const MESSAGE_BYTES_MAX: usize = 128 + BYTES_MAX.div_ceil(3) * 4;

/// A secret on its way to a guest: the line `secret NAME BASE64`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretMessage {
    /// The name.
    pub name: SecretName,
    /// The value.
    pub value: SecretValue,
}

impl SecretMessage {
    /// Returns the line, line end included.
    pub fn print(&self) -> Zeroizing<String> {
        let value = self.value.encode();
        Zeroizing::new(format!("secret {} {}\n", self.name, value.as_str()))
    }

    /// Parses the line. Returns `None` for a line of another kind.
    ///
    /// # Errors
    /// The first invalid word. It is not shown: it may be a part of the value.
    pub fn parse(line: &str) -> Result<Option<Self>, TaskError> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let ["secret", rest @ ..] = words.as_slice() else {
            return Ok(None);
        };
        let invalid = || TaskError::Value("secret", "…".to_owned());
        let &[name, value] = rest else {
            return Err(invalid());
        };
        Ok(Some(Self {
            name: name.parse().map_err(|_| invalid())?,
            value: SecretValue::decode(value).map_err(|_| invalid())?,
        }))
    }
}

impl fmt::Debug for SecretMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMessage")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_printed_message_parses_to_the_same_message(
            bytes in prop::collection::vec(any::<u8>(), 16..200)
        ) {
            let Ok(value) = SecretValue::new(bytes) else { return Ok(()); };
            let message = SecretMessage { name: "a.key".parse().unwrap(), value };
            prop_assert_eq!(SecretMessage::parse(&message.print()), Ok(Some(message)));
        }
    }

    #[test]
    fn the_longest_message_has_the_documented_size() {
        let message = SecretMessage {
            name: "n".repeat(64).parse().unwrap(),
            value: SecretValue::new(vec![0xff; BYTES_MAX]).unwrap(),
        };
        assert!(message.print().len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn errors_do_not_show_the_value() {
        assert_eq!(SecretMessage::parse("go 1.0 00\n"), Ok(None));
        for line in [
            "secret key c2VjcmV0IQ",
            "secret c2VjcmV0IQ==",
            "secret a b c",
        ] {
            let error = SecretMessage::parse(line).unwrap_err().to_string();
            assert_eq!(error, "the value `secret` cannot be `…`", "{line}");
        }
    }
}
