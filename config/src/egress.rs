//! Egress: the network access of guests beyond their host.

use std::fmt;
use std::str::FromStr;

/// The kinds of egress, from the narrowest to the widest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EgressMode {
    /// No egress.
    #[default]
    None,
    /// Listed destinations only.
    Allow,
    /// All destinations except private networks.
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

/// The egress that a machine requests: the value `egress` of its manifest, which is
/// `none`, `nat` or a list of destinations, as in `deb.example.org:80 192.0.2.1:443`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Egress {
    /// No egress.
    #[default]
    None,
    /// These destinations.
    Allow(Vec<Destination>),
    /// All destinations except private networks.
    Nat,
}

/// A destination outside the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// A host name or an IPv4 address.
    pub host: String,
    /// A TCP or UDP port.
    pub port: u16,
}

impl Egress {
    /// Returns the kind of egress.
    pub fn mode(&self) -> EgressMode {
        match self {
            Self::None => EgressMode::None,
            Self::Allow(_) => EgressMode::Allow,
            Self::Nat => EgressMode::Nat,
        }
    }
}

/// The error of parsing an egress value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`none`, `nat` or destinations such as `deb.example.org:80` are expected, not `{0}`")]
pub struct EgressError(String);

impl FromStr for Egress {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        match text {
            "none" => Ok(Self::None),
            "nat" => Ok(Self::Nat),
            _ => {
                let destinations: Option<Vec<_>> =
                    text.split_whitespace().map(destination).collect();
                destinations
                    .filter(|destinations| !destinations.is_empty())
                    .map(Self::Allow)
                    .ok_or_else(|| EgressError(text.chars().take(80).collect()))
            }
        }
    }
}

fn destination(text: &str) -> Option<Destination> {
    let (host, port) = text.split_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_host = (1..=253).contains(&host.len()) && host.chars().all(is_allowed);
    is_host.then(|| Destination {
        host: host.to_ascii_lowercase(),
        port,
    })
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Nat => write!(f, "{}", self.mode()),
            Self::Allow(destinations) => {
                let texts = destinations
                    .iter()
                    .map(|it| format!("{}:{}", it.host, it.port));
                f.write_str(&texts.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_values_parse_to_the_same_egress() {
        for text in ["none", "nat", "deb.example.org:80 192.0.2.1:443"] {
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
