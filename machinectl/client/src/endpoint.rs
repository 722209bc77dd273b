//! The places of agents, as they are written and as they are used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use config::SshHost;
use hyper::Uri;
use hyper::http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};
use sys::ssh::SshCommand;
use zeroize::Zeroizing;

/// The place of an agent.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// The administration socket of this host.
    Socket(PathBuf),
    /// A port on the network, of an agent or of a coordinator.
    Network(NetworkEndpoint),
    /// The administration socket of another host, through ssh.
    Ssh(SshEndpoint),
}

/// The port of an agent or of a coordinator on the network.
#[derive(Debug, Clone)]
pub struct NetworkEndpoint {
    /// The address.
    pub url: AgentUrl,
    /// True if a coordinator of a farm listens there.
    pub is_farm: bool,
    /// The bearer token; `None` sends none.
    pub token: Option<BearerToken>,
    /// The certificates of the authorities that are trusted; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
}

/// An agent behind ssh.
#[derive(Debug, Clone)]
pub struct SshEndpoint {
    /// The ssh command with its options.
    pub ssh: SshCommand,
    /// The host.
    pub host: SshHost,
    /// The program on the host that reaches the socket.
    pub program: String,
    /// The socket on the host; `None` for its default.
    pub socket: Option<PathBuf>,
}

/// The secret of a token. It is not shown, and is erased from the memory in the end.
#[derive(Clone)]
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// Returns the secret.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

impl FromStr for BearerToken {
    type Err = &'static str;

    /// Parses the content of a file: the secret, with blanks and line ends around it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let secret = text.trim();
        match secret {
            "" => Err("it is empty"),
            _ if secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self(Zeroizing::new(secret.to_owned())))
            }
            _ => Err("a token is one word of printable ASCII characters"),
        }
    }
}

/// The address of an agent: a scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentUrl {
    pub(crate) is_tls: bool,
    authority: Authority,
}

impl AgentUrl {
    /// Returns the name or the address of the host.
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        inner.unwrap_or(host)
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        let default = if self.is_tls { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }

    /// Returns true if what is sent stays on this host or is encrypted.
    pub fn is_private(&self) -> bool {
        let is_loopback = |host: &str| {
            let address = host.parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        };
        self.is_tls || is_loopback(self.host())
    }
}

impl fmt::Display for AgentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// The error of parsing a [`HostAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected https://HOST:PORT, http://HOST:PORT, farm:https://HOST:PORT, ssh:[USER@]HOST or `local`{0}"
)]
pub struct AddressError(&'static str);

impl FromStr for AgentUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let uri: Uri = text.parse().map_err(|_| AddressError(""))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(AddressError("")),
        };
        let authority = uri.authority().ok_or(AddressError(""))?.clone();
        if authority.as_str().contains('@') {
            return Err(AddressError(
                "; an address has no user: a token gives access, see `--token-file`",
            ));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(AddressError("; an address has no path"));
        }
        Ok(Self { is_tls, authority })
    }
}

/// The place of an agent, as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddress {
    /// This host.
    Local,
    /// A port on the network.
    Network(AgentUrl),
    /// A coordinator of a farm.
    Farm(AgentUrl),
    /// A host that is reached by ssh.
    Ssh(SshHost),
}

impl HostAddress {
    /// The word for this host.
    pub const LOCAL: &str = "local";
    /// The beginning of the address of a coordinator.
    const FARM: &str = "farm:";
}

impl FromStr for HostAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == Self::LOCAL {
            return Ok(Self::Local);
        }
        if let Some(url) = text.strip_prefix(Self::FARM) {
            return url.parse().map(Self::Farm);
        }
        let ssh = match text.strip_prefix("ssh:") {
            // ssh reads such an address itself, with its port.
            Some(rest) if rest.starts_with("//") => Some(text),
            rest => rest,
        };
        match ssh {
            Some(host) => host.parse().map(Self::Ssh).map_err(|_| AddressError("")),
            None => text.parse().map(Self::Network),
        }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str(Self::LOCAL),
            Self::Network(url) => url.fmt(f),
            Self::Farm(url) => write!(f, "{}{url}", Self::FARM),
            Self::Ssh(host) if host.as_str().starts_with("ssh://") => host.fmt(f),
            Self::Ssh(host) => write!(f, "ssh:{host}"),
        }
    }
}

impl Endpoint {
    /// Returns the place for people.
    pub fn place(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Network(network) => network.url.to_string(),
            Self::Ssh(ssh) => HostAddress::Ssh(ssh.host.clone()).to_string(),
        }
    }

    /// Returns the beginning of the addresses of requests. A socket needs no name of a host.
    pub(crate) fn base(&self) -> String {
        match self {
            Self::Network(network) => network.url.to_string(),
            Self::Socket(_) | Self::Ssh(_) => "http://agent".to_owned(),
        }
    }

    /// Returns the path below which the API is.
    pub(crate) fn api(&self) -> &'static str {
        match self {
            Self::Network(NetworkEndpoint { is_farm: true, .. }) => "farm/v1",
            _ => "api/v1",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for (text, expected) in [
            ("local", "local"),
            ("https://build1", "https://build1"),
            ("farm:https://farm:8590", "farm:https://farm:8590"),
            ("https://build1:8000/", "https://build1:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("ssh:build1", "ssh:build1"),
            ("ssh:root@build1", "ssh:root@build1"),
            ("ssh://root@build1:2222", "ssh://root@build1:2222"),
        ] {
            let address: HostAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), expected);
            assert_eq!(expected.parse(), Ok(address));
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        for text in [
            "",
            "build1",
            "build1:8000",
            "ftp://build1",
            "https://",
            "https://build1/api",
            "https://build1?x",
            "https://user:secret@build1",
            "farm:",
            "farm:local",
            "ssh:",
            "ssh:-oProxyCommand=x",
            "ssh:a b",
        ] {
            assert!(text.parse::<HostAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_encrypted_and_loopback_addresses_are_private() {
        for (text, expected) in [
            ("https://build1", true),
            ("http://build1", false),
            ("http://10.0.0.1:8000", false),
            ("http://127.0.0.1:8000", true),
            ("http://[::1]:8000", true),
            ("http://localhost", true),
        ] {
            let url: AgentUrl = text.parse().unwrap();
            assert_eq!(url.is_private(), expected, "{text}");
        }
    }

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token: BearerToken = " buildhost_1\n".parse().unwrap();
        assert_eq!(token.secret(), "buildhost_1");
        assert!(!format!("{token:?}").contains("buildhost_1"));
        for text in ["", "\n", "a b", "a\nb", "ä"] {
            assert!(text.parse::<BearerToken>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in "\\PC*|(https?|ssh):(//)?[a-z@:.\\[\\]/-]{0,12}") {
            if let Ok(address) = text.parse::<HostAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
