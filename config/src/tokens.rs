//! Tokens, which authorize clients on the network, and the file with their hashes: one
//! line for each, `NAME SCOPE SHA256 CREATED`.

mod message;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::newtype::text_newtype;
use crate::task::Digest;

pub use message::{CreatedToken, NewToken, TokenSecret, TokenStatus};

/// The first line of the file.
const HEADING: &str = "# NAME SCOPE SHA256 CREATED; `buildhost token` changes it\n";
/// The longest name.
const NAME_MAX: usize = 64;

/// The permissions of a token. Each scope includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Reading.
    #[default]
    Read,
    /// Submitting and canceling builds.
    Submit,
    /// Administration.
    Admin,
}

impl Scope {
    /// All scopes in order, with their names.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Read, "read"),
        (Self::Submit, "submit"),
        (Self::Admin, "admin"),
    ];
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(scope, _)| scope == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Scope {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found
            .map(|(scope, _)| *scope)
            .ok_or_else(|| TokenError::Scope(text.to_owned()))
    }
}

text_newtype!(
    /// The name of a token, which identifies its bearer in logs and records.
    TokenName,
    TokenError
);

impl FromStr for TokenName {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Name(text.to_owned()))
        }
    }
}

/// A token as the file records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The name.
    pub name: TokenName,
    /// The permissions.
    pub scope: Scope,
    /// The SHA-256 hash of the secret.
    pub sha256: Digest,
    /// The time of its creation; `None` for a token of an earlier version.
    pub created: Option<Timestamp>,
}

/// The error of parsing a token file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A name is invalid.
    #[error(
        "`{0}` cannot be the name of a token: 1 to {NAME_MAX} letters, digits and -_.@ are expected"
    )]
    Name(String),
    /// A scope is unknown.
    #[error("`{0}` is not a scope: read, submit or admin is expected")]
    Scope(String),
    /// A line is malformed.
    #[error("line {0}: `NAME SCOPE SHA256 CREATED` is expected")]
    Line(usize),
    /// A name is used twice.
    #[error("line {0}: another token has the same name")]
    Duplicate(usize),
}

/// Parses a token file. Empty lines and lines that start with `#` are ignored.
///
/// # Errors
/// The first faulty line.
pub fn parse(text: &str) -> Result<Vec<Token>, TokenError> {
    let mut tokens: Vec<Token> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let token = token(line).ok_or(TokenError::Line(number))?;
        if tokens.iter().any(|other| other.name == token.name) {
            return Err(TokenError::Duplicate(number));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn token(line: &str) -> Option<Token> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (name, scope, sha256, created) = match words[..] {
        [name, scope, sha256] => (name, scope, sha256, None),
        [name, scope, sha256, created] => (name, scope, sha256, Some(created)),
        _ => return None,
    };
    Some(Token {
        name: name.parse().ok()?,
        scope: scope.parse().ok()?,
        sha256: sha256.parse().ok()?,
        created: created.map(str::parse).transpose().ok()?,
    })
}

/// Returns the text of a token file.
pub fn print(tokens: &[Token]) -> String {
    let line = |it: &Token| {
        let created = it.created.map(|at| format!(" {at}")).unwrap_or_default();
        format!("{} {} {}{created}\n", it.name, it.scope, it.sha256)
    };
    std::iter::once(HEADING.to_owned())
        .chain(tokens.iter().map(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_parses_to_the_same_tokens() {
        let tokens: Vec<_> = Scope::ALL
            .iter()
            .map(|(scope, word)| Token {
                name: format!("{word}@example.org").parse().unwrap(),
                scope: *scope,
                sha256: Digest::from([7; 32]),
                created: (*scope > Scope::Read).then_some(Timestamp::UNIX_EPOCH),
            })
            .collect();
        assert_eq!(parse(&print(&tokens)), Ok(tokens));
        assert!(Scope::Read < Scope::Submit && Scope::Submit < Scope::Admin);
    }

    #[test]
    fn errors_name_the_line() {
        let hash = Digest::from([0; 32]);
        for (text, fault) in [
            ("a submit\n", TokenError::Line(1)),
            ("\n# a\na root x\n", TokenError::Line(3)),
            ("a admin 00\n", TokenError::Line(1)),
            (&*format!("a admin {hash} yesterday\n"), TokenError::Line(1)),
            (
                &*format!("a read {hash}\na admin {hash}\n"),
                TokenError::Duplicate(2),
            ),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
        assert!("".parse::<TokenName>().is_err());
        assert!("a b".parse::<TokenName>().is_err());
    }
}
