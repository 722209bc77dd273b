//! The server that a client connects to.

use std::fmt;
use std::path::PathBuf;

use linerpc::listen::UNIX_PREFIX;
use linerpc::target::{Proxies, Target as TcpTarget, TargetError};

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A server at a TCP port.
    Tcp(TcpTarget),
    /// A server at a Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Parses `HOST:PORT`, `[ADDRESS]:PORT` or `unix://PATH`, and selects its proxy.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str, proxies: &Proxies) -> Result<Self, TargetError> {
        match text
            .strip_prefix(UNIX_PREFIX)
            .filter(|path| !path.is_empty())
        {
            Some(path) => Ok(Self::Unix(path.into())),
            None => TcpTarget::parse(text, proxies).map(Self::Tcp),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => target.fmt(out),
            Self::Unix(path) => write!(out, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port_or_a_unix_socket() {
        for text in [
            "prs.example.org:8585",
            "[fd00::1]:8585",
            "unix:///run/prserv.sock",
        ] {
            let target = Target::parse(text, &Proxies::none()).unwrap();
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "host", "unix://", "/run/prserv.sock"] {
            assert!(Target::parse(text, &Proxies::none()).is_err(), "{text}");
        }
    }
}
