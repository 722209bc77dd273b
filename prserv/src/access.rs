//! Access rules: the peers that may get new values, and the answers to the others.

use std::net::IpAddr;

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
    /// Tokens that allow writing over REST from any address.
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

/// The rights of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The peer may get new values and import.
    Write,
    /// The peer may only read recorded values.
    Read,
}

/// A secret that allows writing, stored as its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

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
        let may_write = match &self.writers {
            Writers::Anyone => true,
            Writers::Networks(networks) => {
                networks.iter().any(|network| network.contains(&address))
            }
            Writers::None => false,
        };
        if may_write {
            Rights::Write
        } else {
            Rights::Read
        }
    }

    /// Returns true if a secret allows writing. In lockdown none does.
    pub fn accepts_token(&self, secret: &str) -> bool {
        self.writers != Writers::None && self.tokens.contains(&Token::new(secret))
    }
}

impl Token {
    /// Hashes a secret.
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
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
    fn tokens_are_accepted_except_in_lockdown() {
        let mut access = Access {
            tokens: vec![Token::new("secret")],
            ..Access::open()
        };
        assert!(access.accepts_token("secret"));
        assert!(!access.accepts_token("Secret"));
        access.writers = Writers::None;
        assert!(!access.accepts_token("secret"));
    }
}
