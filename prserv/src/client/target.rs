//! Where a client connects to, and through which proxy: settings first, then the environment.

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
    /// An HTTP proxy that connects us.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy that knows `CONNECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `user:password`, when it wants one.
    pub credentials: Option<String>,
}

/// Which proxies there are, and who is reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    proxy: Option<Proxy>,
    exempt: Vec<Exempt>,
}

/// The text names no server or proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:PORT")]
pub struct TargetError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exempt {
    All,
    Network(IpNet),
    /// A name, and all names that end in a dot and it.
    Domain(String),
}

impl Target {
    /// Reads `HOST:PORT` or `[ADDRESS]:PORT`, and finds its proxy.
    pub fn parse(text: &str, proxies: &Proxies) -> Result<Self, TargetError> {
        let (host, port) = host_and_port(text, None)?;
        let proxy = proxies.for_host(&host).cloned();
        Ok(Self { host, port, proxy })
    }
}

impl Proxies {
    /// No proxies at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// One proxy for everybody: `http://[user:password@]HOST[:PORT]`; `none` means none.
    pub fn fixed(text: &str) -> Result<Self, TargetError> {
        let proxy = if text == "none" {
            None
        } else {
            Some(proxy(text)?)
        };
        Ok(Self {
            proxy,
            exempt: Vec::new(),
        })
    }

    /// What the environment says: `https_proxy`, then `all_proxy`, and `no_proxy`, in either case.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, TargetError> {
        let read = |name: &str| {
            variable(name)
                .or_else(|| variable(&name.to_uppercase()))
                .filter(|text| !text.is_empty())
        };
        let proxy = read("https_proxy").or_else(|| read("all_proxy"));
        let exempt = read("no_proxy").unwrap_or_default();
        let exempt = exempt
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        Ok(Self {
            proxy: proxy.as_deref().map(self::proxy).transpose()?,
            exempt: exempt.map(Exempt::parse).collect(),
        })
    }

    /// The proxy on the way to a host. This machine itself is always reached without one.
    fn for_host(&self, host: &str) -> Option<&Proxy> {
        let address: Option<IpAddr> = host.parse().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let is_exempt = self
            .exempt
            .iter()
            .any(|exempt| exempt.covers(host, address));
        self.proxy.as_ref().filter(|_| !is_here && !is_exempt)
    }
}

impl Exempt {
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

    fn covers(&self, host: &str, address: Option<IpAddr>) -> bool {
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

fn host_and_port(text: &str, default: Option<u16>) -> Result<(String, u16), TargetError> {
    let wrong = || TargetError(text.to_owned());
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port
        .map(str::parse)
        .transpose()
        .map_err(|_| wrong())?
        .or(default);
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c);
    let is_odd = host.is_empty() || host.contains(is_odd);
    match port {
        Some(port) if !is_odd => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
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
        for text in ["prs.example:8585", "10.0.0.1:1", "[fd00::1]:8585"] {
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
    fn the_environments_proxy_is_used_but_for_exempt_hosts() {
        let proxies = environment(&[
            ("HTTPS_PROXY", "http://me:secret@proxy.example:3128/"),
            ("no_proxy", "intern.example, .local,10.0.0.0/8"),
        ]);
        let has_proxy = |text: &str| Target::parse(text, &proxies).unwrap().proxy.is_some();
        for (text, through) in [
            ("prs.example:1", true),
            ("intern.example:1", false),
            ("a.intern.example:1", false),
            ("notintern.example:1", true),
            ("x.local:1", false),
            ("10.2.3.4:1", false),
            ("11.2.3.4:1", true),
            ("localhost:1", false),
            ("127.0.0.1:1", false),
        ] {
            assert_eq!(has_proxy(text), through, "{text}");
        }
        let proxy = proxies.for_host("prs.example").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.credentials.as_deref(), Some("me:secret"));
        assert_eq!(environment(&[]), Proxies::none());
        assert_eq!(Proxies::fixed("none"), Ok(Proxies::none()));
    }
}
