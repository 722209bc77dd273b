//! The settings of the PR service.

use std::path::PathBuf;

use ipnet::IpNet;

use super::reader::{HOST_NAMES, Reader, host_name, is_address};

/// The settings of the PR service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pr {
    /// The database: a file, by default in the state directory, or `postgres://…`.
    pub database: String,
    /// The network address to listen on, `host:port`. Guests always reach the service
    /// at their gateway.
    pub listen: Option<String>,
    /// The parent server in a hierarchy, `host:port`.
    pub upstream: Option<String>,
    /// The HTTP proxy for connections to other servers; by default the environment's.
    pub proxy: Option<String>,
    /// The service's mode.
    pub mode: PrMode,
    /// The networks whose clients may allocate values; all networks if empty.
    pub writers: Vec<IpNet>,
    /// The file with tokens, one a line, that allow writes and removals from anywhere.
    pub token_file: Option<PathBuf>,
    /// The file that gets a line for each value that is assigned, imported or removed.
    pub audit_log: Option<PathBuf>,
    /// The file with the token that is presented to the servers of `elsewhere`.
    pub client_token_file: Option<PathBuf>,
    /// The answer to a reader that requests an unknown value; the connection is closed
    /// if `None`.
    pub unknown: Option<String>,
    /// The names under which HTTP clients may address the service, besides those of this host.
    pub allowed_hosts: Vec<String>,
    /// The largest number of simultaneous connections from the network.
    pub connections_max: usize,
    /// The largest number of simultaneous connections of one address or IPv6 /64 network.
    pub connections_per_peer_max: usize,
    /// The packages whose revisions come from elsewhere; the first match counts.
    pub elsewhere: Vec<PackageRoute>,
}

/// The modes of a PR service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrMode {
    /// Allocates new values for writers.
    ReadWrite,
    /// Returns existing values, or the values that would be allocated.
    ReadOnly,
    /// Treats every client as a reader.
    Lockdown,
}

/// The server that numbers the packages of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRoute {
    /// The pattern of package names, with `*` for any text.
    pub pattern: String,
    /// The server, `host:port`; if `None`, the packages are not numbered.
    pub server: Option<String>,
}

pub(super) fn pr(reader: &mut Reader<'_>) -> Pr {
    let modes = [
        ("read-write", PrMode::ReadWrite),
        ("read-only", PrMode::ReadOnly),
        ("lockdown", PrMode::Lockdown),
    ];
    Pr {
        database: reader.text("pr.database", "", database),
        listen: reader.optional_address("pr.listen"),
        upstream: reader.optional_address("pr.upstream"),
        proxy: reader.optional_text("pr.proxy", |_| Ok(())),
        mode: reader.choice("pr.mode", &modes),
        token_file: reader.optional_path("pr.token_file"),
        audit_log: reader.optional_path("pr.audit_log"),
        client_token_file: reader.optional_path("pr.client_token_file"),
        writers: reader.list("pr.writers", "networks such as `10.1.0.0/16`", |text| {
            text.parse().ok()
        }),
        unknown: reader.optional_text("pr.unknown", |_| Ok(())),
        allowed_hosts: reader.list("pr.allowed_hosts", HOST_NAMES, host_name),
        connections_max: reader.count("pr.connections_max", 4096, 1..=65536),
        connections_per_peer_max: reader.count("pr.connections_per_peer_max", 512, 1..=65536),
        elsewhere: reader.list(
            "pr.elsewhere",
            "`PATTERN = HOST:PORT` or `PATTERN = none`",
            route,
        ),
    }
}

/// Checks that a text is empty or names a database.
pub(super) fn database(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.starts_with('/') || text.starts_with("postgres") {
        Ok(())
    } else {
        Err("an absolute path or `postgres://…` is expected")
    }
}

fn route(text: &str) -> Option<PackageRoute> {
    let (pattern, server) = text.split_once('=')?;
    let (pattern, server) = (pattern.trim(), server.trim());
    let is_valid = server == "none" || is_address(server);
    (is_valid && !pattern.is_empty()).then(|| PackageRoute {
        pattern: pattern.to_owned(),
        server: (server != "none").then(|| server.to_owned()),
    })
}
