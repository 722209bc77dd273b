//! The server that a client connects to, and the proxy on the way to it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A server, and the proxy on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The HTTP proxy to connect through.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy that supports `CONNECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `user:password`, if the proxy requires it.
    pub credentials: Option<String>,
}

/// The proxy settings: a proxy and the hosts that are reached directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    proxy: Option<Proxy>,
    direct: Vec<DirectHosts>,
}

/// The error of a text that is not the address of a server or proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:PORT")]
pub struct TargetError(String);

/// An entry of `no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DirectHosts {
    All,
    Network(IpNet),
    /// A domain and its subdomains.
    Domain(String),
}

impl Target {
    /// Parses `HOST:PORT` or `[ADDRESS]:PORT` and selects its proxy.
    pub fn parse(text: &str, proxies: &Proxies) -> Result<Self, TargetError> {
        let (host, port) = host_and_port(text, None)?;
        let proxy = proxies.for_host(&host).cloned();
        Ok(Self { host, port, proxy })
    }
}

impl Proxies {
    /// Returns settings without a proxy.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns settings with one proxy for all hosts, `http://[user:password@]HOST[:PORT]`, or
    /// without a proxy if the text is `none`.
    pub fn fixed(text: &str) -> Result<Self, TargetError> {
        let proxy = if text == "none" {
            None
        } else {
            Some(proxy(text)?)
        };
        Ok(Self {
            proxy,
            direct: Vec::new(),
        })
    }

    /// Returns the settings with the proxy that was chosen, as [`Proxies::fixed`]; without one, those
    /// of this process's environment.
    ///
    /// # Errors
    /// A proxy cannot be used.
    pub fn chosen(proxy: Option<&str>) -> Result<Self, TargetError> {
        match proxy {
            Some(proxy) => Self::fixed(proxy),
            None => Self::from_environment(|name| std::env::var(name).ok()),
        }
    }

    /// Returns the settings of the environment: `https_proxy`, else `all_proxy`, and `no_proxy`, in
    /// lower or upper case.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, TargetError> {
        let read = |name: &str| {
            variable(name)
                .or_else(|| variable(&name.to_uppercase()))
                .filter(|text| !text.is_empty())
        };
        let proxy = read("https_proxy").or_else(|| read("all_proxy"));
        Ok(Self {
            proxy: proxy.as_deref().map(self::proxy).transpose()?,
            direct: read("no_proxy")
                .unwrap_or_default()
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(DirectHosts::parse)
                .collect(),
        })
    }

    /// Returns the proxy for a host. The local host is always reached directly.
    fn for_host(&self, host: &str) -> Option<&Proxy> {
        let address: Option<IpAddr> = host.parse().ok();
        let is_local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let is_direct = self
            .direct
            .iter()
            .any(|direct| direct.contains(host, address));
        self.proxy.as_ref().filter(|_| !is_local && !is_direct)
    }
}

impl DirectHosts {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::All;
        }
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_or_else(
            |_| Self::Domain(text.trim_start_matches('.').to_lowercase()),
            Self::Network,
        )
    }

    fn contains(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Domain(domain) => {
                let host = host.to_lowercase();
                host.strip_suffix(domain)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

fn proxy(text: &str) -> Result<Proxy, TargetError> {
    let rest = text
        .strip_prefix("http://")
        .unwrap_or(text)
        .trim_end_matches('/');
    let (credentials, address) = match rest.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials.to_owned()), address),
        None => (None, rest),
    };
    let (host, port) =
        host_and_port(address, Some(80)).map_err(|_| TargetError(text.to_owned()))?;
    Ok(Proxy {
        host,
        port,
        credentials,
    })
}

pub(crate) fn host_and_port(
    text: &str,
    default: Option<u16>,
) -> Result<(String, u16), TargetError> {
    let error = || TargetError(text.to_owned());
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(error)?)),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port
        .map(str::parse)
        .transpose()
        .map_err(|_| error())?
        .or(default);
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c);
    match port {
        Some(port) if !host.is_empty() && !host.contains(is_forbidden) => {
            Ok((host.to_owned(), port))
        }
        _ => Err(error()),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(out, "[{host}]:{port}")
        } else {
            write!(out, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_environment(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for text in ["prs.example.org:8585", "10.0.0.1:1", "[fd00::1]:8585"] {
            assert_eq!(
                Target::parse(text, &Proxies::none()).unwrap().to_string(),
                text
            );
        }
        for text in [
            "",
            "host",
            "host:",
            ":1",
            "host:x",
            "host:70000",
            "[::1]",
            "a b:1",
            "[::1]x:1",
        ] {
            assert!(Target::parse(text, &Proxies::none()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_proxy_of_the_environment_is_used_except_for_direct_hosts() {
        let proxies = environment(&[
            ("HTTPS_PROXY", "http://me:secret@proxy.example.org:3128/"),
            ("no_proxy", "intern.example.org, .local,10.0.0.0/8"),
        ]);
        let has_proxy = |text: &str| Target::parse(text, &proxies).unwrap().proxy.is_some();
        for (text, through) in [
            ("prs.example.org:1", true),
            ("intern.example.org:1", false),
            ("a.intern.example.org:1", false),
            ("notintern.example.org:1", true),
            ("x.local:1", false),
            ("10.2.3.4:1", false),
            ("11.2.3.4:1", true),
            ("localhost:1", false),
            ("127.0.0.1:1", false),
        ] {
            assert_eq!(has_proxy(text), through, "{text}");
        }
        let proxy = proxies.for_host("prs.example.org").unwrap();
        assert_eq!(
            (proxy.host.as_str(), proxy.port),
            ("proxy.example.org", 3128)
        );
        assert_eq!(proxy.credentials.as_deref(), Some("me:secret"));
        assert_eq!(environment(&[]), Proxies::none());
        assert_eq!(Proxies::fixed("none"), Ok(Proxies::none()));
    }
}
