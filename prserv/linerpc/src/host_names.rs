//! Protection against web pages: a browser in the network of a server sends requests on behalf of
//! any page that it shows.
//!
//! Two headers reveal such a request, and no page can change them. `Origin` names the site of the
//! page. `Host` names the server as the page addressed it; a page whose name resolves to the
//! server's address (DNS rebinding) cannot use a name that belongs to the server.

use std::fs;
use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri};
use config::text::printable;

/// The names under which clients may address a server over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNames {
    /// The names of this host.
    own: Vec<String>,
    /// The names that the operator allows, for example of a reverse proxy.
    allowed: Vec<String>,
}

/// The reason for which a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignRequest {
    /// The request is addressed to a name that is not one of this server.
    #[error("this server is not known as `{}`; if the name is right, add it to the allowed host names", printable(.0))]
    Host(String),
    /// The request comes from a page of another site.
    #[error("requests from pages of `{}` are refused; if the page belongs to this server, add its host to the allowed host names", printable(.0))]
    Origin(String),
}

impl HostNames {
    /// Returns the names of this host, which are read from the system, those of the addresses that
    /// the server listens on, `host:port`, and the allowed names.
    pub fn of_system<S: AsRef<str>>(
        allowed: &[String],
        listen: impl IntoIterator<Item = S>,
    ) -> Self {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut own = own_names(hostname.trim(), &resolver);
        own.extend(listen.into_iter().filter_map(|address| {
            let (host, _) = address.as_ref().rsplit_once(':')?;
            Some(normalized(host))
        }));
        Self::new(own, allowed)
    }

    fn new(own: Vec<String>, allowed: &[String]) -> Self {
        Self {
            own,
            allowed: allowed.iter().map(|name| normalized(name)).collect(),
        }
    }

    /// Checks that a request is addressed to this server. Clients that send no host are no
    /// browsers.
    ///
    /// # Errors
    /// The request has a foreign or malformed host, or several.
    pub fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ForeignRequest> {
        let named = only(headers, &HOST).map_err(ForeignRequest::Host)?;
        let targets = [uri.authority().map(Authority::as_str), named];
        targets
            .into_iter()
            .flatten()
            .filter(|target| !target.is_empty())
            .try_for_each(|target| {
                let authority: Option<Authority> = target.parse().ok();
                match authority {
                    Some(authority) if self.is_known(&normalized(authority.host())) => Ok(()),
                    _ => Err(ForeignRequest::Host(target.to_owned())),
                }
            })
    }

    /// Checks that a request does not come from a page of another site. The page's site must be
    /// the host that the request is addressed to, or an allowed name.
    ///
    /// # Errors
    /// The request comes from another site.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), ForeignRequest> {
        let Some(origin) = only(headers, &ORIGIN).map_err(ForeignRequest::Origin)? else {
            return Ok(());
        };
        let foreign = || ForeignRequest::Origin(origin.to_owned());
        let site: Uri = origin.parse().map_err(|_| foreign())?;
        let (Some(scheme), Some(authority)) = (site.scheme_str(), site.authority()) else {
            return Err(foreign());
        };
        let default_port = if scheme == "https" { 443 } else { 80 };
        let place = |authority: &Authority| {
            let port = authority.port_u16().unwrap_or(default_port);
            (normalized(authority.host()), port)
        };
        let host = only(headers, &HOST).ok().flatten();
        let host: Option<Authority> = host.and_then(|host| host.parse().ok());
        let is_own = host.is_some_and(|host| place(&host) == place(authority));
        if is_own || self.allowed.contains(&normalized(authority.host())) {
            Ok(())
        } else {
            Err(foreign())
        }
    }

    /// Returns true for the names of this host and for addresses, which no other site can have.
    fn is_known(&self, host: &str) -> bool {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || self
                .own
                .iter()
                .chain(&self.allowed)
                .any(|name| name == host)
    }
}

/// Returns the only value of a header, or the values as text if there are several or they are not
/// readable.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        (Some(Ok(value)), Some(_)) => Err(format!("{value}, …")),
        (Some(Err(_)), _) => Err("…".to_owned()),
    }
}

/// Returns the form of a name that is compared.
fn normalized(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Returns the names of a host: its own, and that name in each domain that the resolver searches.
fn own_names(hostname: &str, resolver: &str) -> Vec<String> {
    let hostname = normalized(hostname);
    if hostname.is_empty() {
        return Vec::new();
    }
    let domains = resolver.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then_some(words)
    });
    let full_names: Vec<String> = domains
        .flatten()
        .map(normalized)
        .filter(|domain| !domain.is_empty())
        .map(|domain| format!("{hostname}.{domain}"))
        .collect();
    [vec![hostname.clone()], full_names].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> HostNames {
        let own = own_names("Build1", "nameserver 10.0.0.1\nsearch corp.example .\n");
        HostNames::new(own, &["Builds.Example".to_owned()])
    }

    fn headers(lines: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_addresses_and_names_of_the_server_are_accepted_as_host() {
        let check = |target: &str, hosts: &[&str]| {
            let lines: Vec<_> = hosts.iter().map(|host| (&HOST, *host)).collect();
            names().check_host(&target.parse().unwrap(), &headers(&lines))
        };
        for host in [
            "127.0.0.1:8585",
            "10.1.2.3",
            "[::1]:8585",
            "[fd00::1]",
            "localhost:8585",
            "LOCALHOST.",
            "build1",
            "build1.corp.example:80",
            "builds.example:8443",
            "",
        ] {
            assert_eq!(check("/", &[host]), Ok(()), "{host}");
        }
        assert_eq!(check("/", &[]), Ok(()), "HTTP/1.0");
        for host in [
            "rebound.example",
            "rebound.example:8585",
            "build1.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "2130706433",
            "evil example",
            ":80",
        ] {
            assert!(check("/", &[host]).is_err(), "{host}");
        }
        assert!(check("/", &["localhost", "rebound.example"]).is_err());
        assert!(check("http://rebound.example/", &["localhost"]).is_err());
        assert_eq!(check("http://localhost/", &["localhost"]), Ok(()));
    }

    #[test]
    fn only_the_server_itself_and_allowed_names_are_accepted_as_origin() {
        let check = |host: &str, origins: &[&str]| {
            let mut lines = vec![(&HOST, host)];
            lines.extend(origins.iter().map(|origin| (&ORIGIN, *origin)));
            names().check_origin(&headers(&lines))
        };
        for (host, origin) in [
            ("localhost:8585", "http://localhost:8585"),
            ("10.1.2.3", "http://10.1.2.3"),
            ("10.1.2.3:443", "https://10.1.2.3"),
            ("[::1]:8585", "http://[::1]:8585"),
            ("127.0.0.1:8000", "https://builds.example"),
            ("builds.example", "https://builds.example:8443"),
        ] {
            assert_eq!(check(host, &[origin]), Ok(()), "{host} {origin}");
        }
        for (host, origin) in [
            ("localhost:8585", "http://localhost:3000"),
            ("localhost:8585", "http://localhost"),
            ("localhost:8585", "https://evil.example"),
            ("localhost:8585", "null"),
            ("localhost:8585", "file://"),
            ("localhost:8585", "build1"),
            ("localhost:8585", ""),
            ("evil.example", "http://evil.example.evil"),
            ("build1", "http://build1:3000"),
        ] {
            assert!(check(host, &[origin]).is_err(), "{host} {origin}");
        }
        let twice = ["http://localhost", "https://evil.example"];
        assert!(check("localhost", &twice).is_err());
        assert_eq!(check("localhost", &[]), Ok(()));
    }

    #[test]
    fn a_refusal_names_what_was_sent_and_no_control_characters() {
        let error = ForeignRequest::Host("evil\u{1b}[2J".to_owned());
        assert_eq!(
            error.to_string(),
            "this server is not known as `evil\\u{1b}[2J`; if the name is right, add it to the allowed host names"
        );
    }
}
