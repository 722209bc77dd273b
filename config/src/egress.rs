//! What of the world outside a machine's guests may reach.

use std::fmt;
use std::str::FromStr;

/// How far a guest may reach beyond its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EgressMode {
    /// Not at all.
    #[default]
    None,
    /// To places that are named.
    Allow,
    /// Anywhere but into private networks.
    Nat,
}

impl fmt::Display for EgressMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Allow => "allow",
            Self::Nat => "nat",
        })
    }
}

/// What a machine asks for: the value `egress` of its manifest, `none`, `nat`, or
/// places as `HOST:PORT` with blanks between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Egress {
    /// Nothing.
    #[default]
    None,
    /// These places.
    Allow(Vec<Destination>),
    /// Everything but private networks.
    Nat,
}

/// A place outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// A name or an IPv4 address.
    pub host: String,
    /// A TCP or UDP port.
    pub port: u16,
}

impl Egress {
    /// How far it reaches.
    pub fn mode(&self) -> EgressMode {
        match self {
            Self::None => EgressMode::None,
            Self::Allow(_) => EgressMode::Allow,
            Self::Nat => EgressMode::Nat,
        }
    }
}

/// The text is no egress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`none`, `nat` or places such as `deb.debian.org:80` are expected, not `{0}`")]
pub struct EgressError(String);

impl FromStr for Egress {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        match text {
            "none" => Ok(Self::None),
            "nat" => Ok(Self::Nat),
            _ => {
                let places: Option<Vec<_>> = text.split_whitespace().map(place).collect();
                let places = places.filter(|places| !places.is_empty());
                let wrong = || EgressError(text.chars().take(80).collect());
                places.map(Self::Allow).ok_or_else(wrong)
            }
        }
    }
}

fn place(text: &str) -> Option<Destination> {
    let (host, port) = text.split_once(':')?;
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let named = (1..=253).contains(&host.len()) && host.chars().all(fine);
    named.then(|| Destination {
        host: host.to_ascii_lowercase(),
        port,
    })
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Nat => write!(f, "{}", self.mode()),
            Self::Allow(places) => {
                let words = places.iter().map(|p| format!("{}:{}", p.host, p.port));
                f.write_str(&words.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["none", "nat", "deb.debian.org:80 192.0.2.1:443"] {
            assert_eq!(text.parse::<Egress>().unwrap().to_string(), text);
        }
        for text in [
            "", "all", "host", "host:", "host:0", "a b:1", "[::1]:80", "h:70000",
        ] {
            assert!(text.parse::<Egress>().is_err(), "{text}");
        }
        assert!(EgressMode::None < EgressMode::Allow && EgressMode::Allow < EgressMode::Nat);
    }
}
