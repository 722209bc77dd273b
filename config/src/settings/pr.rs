//! The settings of the PR service.

use std::path::PathBuf;

use ipnet::IpNet;

use super::reader::Reader;
use super::{absolute, address};

/// The PR service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pr {
    /// The database: a file, by default in the state directory, or `postgres://…`.
    pub database: String,
    /// `host:port` on which others may ask; guests always may, at their gateway.
    pub listen: Option<String>,
    /// The parent server in a hierarchy, `host:port`.
    pub upstream: Option<String>,
    /// The HTTP proxy on the way to other servers; without it the environment's.
    pub proxy: Option<String>,
    /// What it gives.
    pub mode: PrMode,
    /// The networks whose clients may be given values; everybody when empty.
    pub writers: Vec<IpNet>,
    /// A file with tokens, one a line, that allow writing over REST from anywhere.
    pub token_file: Option<PathBuf>,
    /// What the others are told that ask for something unknown; closed if `None`.
    pub unknown: Option<String>,
    /// Packages that are not ours to number; the first that matches counts.
    pub elsewhere: Vec<PackageRoute>,
}

/// What a PR service gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrMode {
    /// New values to those who may write.
    ReadWrite,
    /// No values: it tells those that there are, or would be.
    ReadOnly,
    /// No new values to anybody: whoever asks is a reader.
    Lockdown,
}

/// Packages whose revisions do not come from our own PR service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRoute {
    /// The package's name, with `*` for anything.
    pub pattern: String,
    /// The server that is asked, `host:port`; none at all if `None`.
    pub server: Option<String>,
}

pub(super) fn pr(reader: &mut Reader<'_>) -> Pr {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let modes = [
        ("read-write", PrMode::ReadWrite),
        ("read-only", PrMode::ReadOnly),
        ("lockdown", PrMode::Lockdown),
    ];
    Pr {
        database: reader.text("pr.database", "", |text| {
            let fine = text.is_empty() || text.starts_with('/') || text.starts_with("postgres");
            if fine {
                Ok(())
            } else {
                Err("an absolute path or `postgres://…` is expected")
            }
        }),
        listen: some(reader.text("pr.listen", "", address)),
        upstream: some(reader.text("pr.upstream", "", address)),
        proxy: some(reader.text("pr.proxy", "", |_| Ok(()))),
        mode: reader.choice("pr.mode", &modes),
        token_file: some(reader.text("pr.token_file", "", absolute)).map(PathBuf::from),
        writers: reader.list("pr.writers", "networks such as `10.1.0.0/16`", |text| {
            text.parse().ok()
        }),
        unknown: some(reader.text("pr.unknown", "", |_| Ok(()))),
        elsewhere: reader.list(
            "pr.elsewhere",
            "`PATTERN = HOST:PORT` or `PATTERN = none`",
            elsewhere,
        ),
    }
}

fn elsewhere(text: &str) -> Option<PackageRoute> {
    let (pattern, server) = text.split_once('=')?;
    let (pattern, server) = (pattern.trim(), server.trim());
    let known = server == "none" || (!server.is_empty() && address(server).is_ok());
    (known && !pattern.is_empty()).then(|| PackageRoute {
        pattern: pattern.to_owned(),
        server: (server != "none").then(|| server.to_owned()),
    })
}
