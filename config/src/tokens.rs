//! The tokens that allow their bearers something over the network: a text file that
//! holds their hashes, one line for each: `NAME SCOPE SHA256`.

use std::fmt;
use std::str::FromStr;

use crate::task::Digest;

/// The first line of a file that we write.
const HEADING: &str = "# NAME SCOPE SHA256; `machinectl token` changes it\n";
/// The length of a name.
const NAME_MAX: usize = 64;

/// What somebody may do; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Submit and cancel builds.
    Submit,
    /// Everything.
    Admin,
}

impl Scope {
    /// All scopes in order, with the words for them.
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

/// The name of a token: what its bearer is called in logs and records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenName(String);

impl TokenName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A token: who bears it, what it allows, and the hash of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Who bears it.
    pub name: TokenName,
    /// What it allows.
    pub scope: Scope,
    /// SHA-256 of the secret.
    pub sha256: Digest,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no name.
    #[error(
        "`{0}` cannot be the name of a token: 1 to {NAME_MAX} letters, digits and -_.@ are expected"
    )]
    Name(String),
    /// It is no scope.
    #[error("`{0}` is no scope: read, submit or admin is expected")]
    Scope(String),
    /// A line is none of ours.
    #[error("line {0}: `NAME SCOPE SHA256` is expected")]
    Line(usize),
    /// A name stands there twice.
    #[error("line {0}: there is a token of that name already")]
    Twice(usize),
}

/// Reads a file of tokens. Empty lines and those that begin with `#` mean nothing.
///
/// # Errors
/// At the first line that is wrong.
pub fn parse(text: &str) -> Result<Vec<Token>, TokenError> {
    let mut tokens: Vec<Token> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let token = token(line).ok_or(TokenError::Line(number))?;
        if tokens.iter().any(|other| other.name == token.name) {
            return Err(TokenError::Twice(number));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

fn token(line: &str) -> Option<Token> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [name, scope, sha256] = words[..] else {
        return None;
    };
    Some(Token {
        name: name.parse().ok()?,
        scope: scope.parse().ok()?,
        sha256: sha256.parse().ok()?,
    })
}

/// The text of a file of tokens.
pub fn print(tokens: &[Token]) -> String {
    let line = |it: &Token| format!("{} {} {}\n", it.name, it.scope, it.sha256);
    std::iter::once(HEADING.to_owned())
        .chain(tokens.iter().map(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let tokens: Vec<_> = Scope::ALL
            .iter()
            .map(|(scope, word)| Token {
                name: format!("{word}@example.org").parse().unwrap(),
                scope: *scope,
                sha256: Digest::from([7; 32]),
            })
            .collect();
        assert_eq!(parse(&print(&tokens)), Ok(tokens));
        assert!(Scope::Read < Scope::Submit && Scope::Submit < Scope::Admin);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let hash = Digest::from([0; 32]);
        for (text, fault) in [
            ("a submit\n", TokenError::Line(1)),
            ("\n# a\na root x\n", TokenError::Line(3)),
            ("a admin 00\n", TokenError::Line(1)),
            (
                &*format!("a read {hash}\na admin {hash}\n"),
                TokenError::Twice(2),
            ),
        ] {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
        assert!("".parse::<TokenName>().is_err());
        assert!("a b".parse::<TokenName>().is_err());
    }
}
