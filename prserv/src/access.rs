//! Access rules: the peers that may get new values, and the answers to the others.
//!
//! A peer is known by its address, or by a token that it presents: in the greeting of BitBake's
//! protocol, or in an HTTP request, websockets included. BitBake's own clients present none.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::host_names::HostNames;

/// The access rules of a server.
#[derive(Debug, Clone)]
pub struct Access {
    /// The peers that may write.
    pub writers: Writers,
    /// The answer to a reader that requests a tuple without a recorded value.
    pub unknown: UnknownTuple,
    /// Tokens that allow everything from any address.
    pub tokens: Vec<Token>,
    /// The requests that are answered.
    pub requests: Requests,
    /// The names under which HTTP clients address the server.
    pub host_names: HostNames,
}

/// The requests that a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// All requests.
    All,
    /// Queries about a tuple or a package that the peer names, and connecting. A peer can neither
    /// choose values nor list the rows of others.
    Queries,
}

/// The peers that may write without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writers {
    /// Every peer that can connect, as with BitBake's server.
    Anyone,
    /// Peers whose address lies in one of these networks.
    Networks(Vec<IpNet>),
    /// No peer: lockdown. No values are assigned or imported.
    None,
}

/// The answer to a reader that requests a tuple without a recorded value. An error is logged in
/// both cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownTuple {
    /// No answer; the connection is closed.
    Refuse,
    /// A fixed text, such as `custom`.
    Fallback(String),
}

/// The rights of a peer. Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// The peer may only read recorded values.
    Read,
    /// The peer may get new values and import.
    Write,
    /// The peer may also remove rows. An address alone does not give this right.
    Remove,
}

/// A secret and its name for the log. The secret is stored as its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    name: Arc<str>,
    hash: [u8; 32],
}

/// The error of a line that is neither a token nor a name and a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has more than a name and a token")]
pub struct TokenFileError {
    line: usize,
}

/// The error of a token that the server does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is unknown; ask the operator of the server for one, or connect without")]
pub struct UnknownToken;

impl AsRef<HostNames> for Access {
    fn as_ref(&self) -> &HostNames {
        &self.host_names
    }
}

impl Access {
    /// Returns the rules that allow every peer to write.
    pub fn open() -> Self {
        Self {
            writers: Writers::Anyone,
            unknown: UnknownTuple::Refuse,
            tokens: Vec::new(),
            requests: Requests::All,
            host_names: HostNames::default(),
        }
    }

    /// Returns the rights of a peer at an address.
    pub fn rights_of(&self, address: IpAddr) -> Rights {
        let address = address.to_canonical();
        match &self.writers {
            Writers::Anyone => Rights::Write,
            Writers::Networks(networks)
                if networks.iter().any(|network| network.contains(&address)) =>
            {
                Rights::Write
            }
            Writers::Networks(_) | Writers::None => Rights::Read,
        }
    }

    /// Returns the rights of a peer that has a token or may open the server's Unix socket. In
    /// lockdown it may only read.
    pub fn rights_of_trusted(&self) -> Rights {
        match self.writers {
            Writers::Anyone | Writers::Networks(_) => Rights::Remove,
            Writers::None => Rights::Read,
        }
    }

    /// Returns the token with this secret.
    ///
    /// # Errors
    /// No token has it.
    pub fn token(&self, secret: &str) -> Result<&Token, UnknownToken> {
        let hash = hash(secret);
        let mut tokens = self.tokens.iter();
        tokens.find(|token| token.hash == hash).ok_or(UnknownToken)
    }
}

impl Token {
    /// Hashes a secret. Without a name, the beginning of the hash is its name.
    pub fn new(name: Option<&str>, secret: &str) -> Self {
        let hash = hash(secret);
        let name = name.map_or_else(
            || {
                let [a, b, c, d, ..] = hash;
                format!("sha256:{a:02x}{b:02x}{c:02x}{d:02x}").into()
            },
            Arc::from,
        );
        Self { name, hash }
    }

    /// Parses a file of tokens: one a line, after its name if it has one.
    ///
    /// # Errors
    /// A line has more than two words.
    pub fn parse_file(text: &str) -> Result<Vec<Self>, TokenFileError> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [secret] => tokens.push(Self::new(None, secret)),
                [name, secret] => tokens.push(Self::new(Some(name), secret)),
                _ => return Err(TokenFileError { line: index + 1 }),
            }
        }
        Ok(tokens)
    }

    /// Returns the name for the log.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Returns the token of an `Authorization` header or of the greeting's header of that name.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_the_network_including_mapped_addresses() {
        let networks = ["10.1.0.0/16", "fd00::/8"].map(|text| text.parse().unwrap());
        let access = Access {
            writers: Writers::Networks(networks.into()),
            ..Access::open()
        };
        for (address, rights) in [
            ("10.1.2.3", Rights::Write),
            ("::ffff:10.1.2.3", Rights::Write),
            ("fd12::1", Rights::Write),
            ("10.2.0.1", Rights::Read),
            ("::1", Rights::Read),
        ] {
            assert_eq!(
                access.rights_of(address.parse().unwrap()),
                rights,
                "{address}"
            );
        }
    }

    #[test]
    fn a_token_allows_everything_except_in_lockdown() {
        let mut access = Access {
            tokens: Token::parse_file("ci secret\n").unwrap(),
            ..Access::open()
        };
        assert_eq!(&*access.token("secret").unwrap().name(), "ci");
        assert_eq!(access.token("Secret"), Err(UnknownToken));
        assert_eq!(access.rights_of_trusted(), Rights::Remove);
        access.writers = Writers::None;
        assert_eq!(access.rights_of_trusted(), Rights::Read);
    }

    #[test]
    fn a_file_has_a_token_or_a_name_and_a_token_on_each_line() {
        let tokens = Token::parse_file("one\n\n  two\tsecond \n").unwrap();
        let names: Vec<_> = tokens.iter().map(Token::name).collect();
        assert_eq!(names, ["sha256:7692c3ad".into(), Arc::from("two")]);
        assert_eq!(tokens[1], Token::new(Some("two"), "second"));
        let error = Token::parse_file("one\na b c\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2 has more than a name and a token");
    }

    #[test]
    fn a_bearer_token_follows_its_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer(" bearer  abc "), Some("abc"));
        for header in ["abc", "Basic abc", "Bearer", ""] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }
}
