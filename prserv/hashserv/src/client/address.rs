//! The address of a server.

use std::fmt;
use std::path::PathBuf;

use linerpc::target::{Proxies, Target, TargetError};

/// The address of a server, in the notation of BitBake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`.
    Tcp(Target),
    /// `unix://PATH`.
    Unix(PathBuf),
    /// `ws://HOST[:PORT][/PATH]` or `wss://…`.
    WebSocket {
        /// The whole URL.
        url: String,
        /// Its host and port.
        target: Target,
        /// True for `wss`.
        is_encrypted: bool,
    },
}

/// The error of a text that is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a hash equivalence server is HOST:PORT, unix://PATH or ws[s]://HOST[:PORT][/PATH]"
)]
pub struct AddressError(#[from] TargetError);

impl Address {
    /// Parses an address and selects its proxy.
    ///
    /// # Errors
    /// The text is not an address.
    pub fn parse(text: &str, proxies: &Proxies) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        let web = [("ws://", 80, false), ("wss://", 443, true)];
        for (scheme, port, is_encrypted) in web {
            let Some(rest) = text.strip_prefix(scheme) else {
                continue;
            };
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            let is_complete = authority
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let target = if is_complete {
                Target::parse(authority, proxies)?
            } else {
                Target::parse(&format!("{authority}:{port}"), proxies)?
            };
            return Ok(Self::WebSocket {
                url: text.to_owned(),
                target,
                is_encrypted,
            });
        }
        Ok(Self::Tcp(Target::parse(text, proxies)?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => target.fmt(out),
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::WebSocket { url, .. } => out.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_notation_of_bitbake() {
        for (text, target) in [
            ("hash.example.org:8686", Some("hash.example.org:8686")),
            ("ws://hash.example.org:8687", Some("hash.example.org:8687")),
            ("wss://hash.example.org/ws", Some("hash.example.org:443")),
            ("ws://[::1]/ws?x=1:2", Some("[::1]:80")),
            ("unix://./hashserve.sock", None),
        ] {
            let address = Address::parse(text, &Proxies::none()).unwrap();
            assert_eq!(address.to_string(), text);
            let found = match address {
                Address::Tcp(target) | Address::WebSocket { target, .. } => {
                    Some(target.to_string())
                }
                Address::Unix(_) => None,
            };
            assert_eq!(found.as_deref(), target, "{text}");
        }
        for text in ["", "host", "ws://", "wss:///x", "http://h:1"] {
            assert!(Address::parse(text, &Proxies::none()).is_err(), "{text}");
        }
    }
}
