//! The token that a client presents.

use std::fmt;
use std::str::FromStr;

/// A token as it is sent. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The error of a text that cannot be sent as a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is one word of visible ASCII characters, or a name and a token on one line")]
pub struct MalformedToken;

impl Token {
    /// Returns the text that is sent.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = MalformedToken;

    /// Parses the content of a file with one token, which may have its name before it as in the
    /// server's file.
    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(MalformedToken);
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [token] | [_, token] if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self(token.to_owned()))
            }
            _ => Err(MalformedToken),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_token_with_or_without_its_name() {
        for (text, secret) in [("abc\n", "abc"), ("ci abc", "abc"), ("\n abc \n\n", "abc")] {
            let token: Token = text.parse().unwrap();
            assert_eq!(token.secret(), secret);
            assert_eq!(format!("{token:?}"), "Token(…)");
        }
        for text in ["", "\n", "a\nb\n", "a b c", "ü"] {
            assert_eq!(text.parse::<Token>(), Err(MalformedToken), "{text:?}");
        }
    }
}
