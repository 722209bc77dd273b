//! Who may be given new values, and what the others are told.

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

/// Who may write, and what a reader is told that asks for a tuple without a value.
#[derive(Debug, Clone)]
pub struct Access {
    /// Who may write.
    pub writers: Writers,
    /// What the others are told.
    pub unknown: Unknown,
    /// Tokens that allow writing over REST from anywhere.
    pub tokens: Vec<Token>,
}

/// Who may write without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writers {
    /// All who can connect, as with BitBake's server.
    Everybody,
    /// Those whose address is in one of these networks.
    Networks(Vec<IpNet>),
    /// Nobody: lockdown. No values are given and none imported.
    Nobody,
}

/// What a reader is told that asks for a tuple without a value. The log has an error either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing; its connection is closed.
    Refuse,
    /// A fixed word, such as `custom`.
    Answer(String),
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Be given new values, and import.
    Write,
    /// Look.
    Read,
}

/// A secret that allows writing, kept as its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Access {
    /// Everybody may write.
    pub fn everybody() -> Self {
        Self {
            writers: Writers::Everybody,
            unknown: Unknown::Refuse,
            tokens: Vec::new(),
        }
    }

    /// What a peer at an address may do.
    pub fn rights_of(&self, address: IpAddr) -> Rights {
        let address = address.to_canonical();
        let may_write = match &self.writers {
            Writers::Everybody => true,
            Writers::Networks(networks) => {
                networks.iter().any(|network| network.contains(&address))
            }
            Writers::Nobody => false,
        };
        if may_write {
            Rights::Write
        } else {
            Rights::Read
        }
    }

    /// Whether a secret allows writing. Nothing does in lockdown.
    pub fn knows(&self, secret: &str) -> bool {
        self.writers != Writers::Nobody && self.tokens.contains(&Token::new(secret))
    }
}

impl Token {
    /// The token of a secret.
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_the_network_also_of_mapped_addresses() {
        let networks = ["10.1.0.0/16", "fd00::/8"].map(|text| text.parse().unwrap());
        let access = Access {
            writers: Writers::Networks(networks.into()),
            ..Access::everybody()
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
    fn a_token_is_known_except_in_lockdown() {
        let mut access = Access {
            tokens: vec![Token::new("secret")],
            ..Access::everybody()
        };
        assert!(access.knows("secret"));
        assert!(!access.knows("Secret"));
        access.writers = Writers::Nobody;
        assert!(!access.knows("secret"));
    }
}
