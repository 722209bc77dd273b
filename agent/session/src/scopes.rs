//! The guests that run in scopes of systemd.

use std::path::PathBuf;

use config::GuestTag;
use config::machine::Kind;
use guest::Guest;

use super::GuestServices;

/// A running guest in a scope of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInScope {
    /// Its short name.
    pub tag: GuestTag,
    /// The name of its network and its control group.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The unit of its scope.
    pub unit: String,
    /// The process whose end is its end.
    pub pid: u32,
    /// The directory with its files.
    pub root: Option<PathBuf>,
}

/// Returns the running guests in scopes of systemd, except those that wait for a build. Blocks.
pub fn in_scopes(services: &GuestServices) -> Vec<GuestInScope> {
    let run_dirs = sys::file::entries(&services.run_dir).unwrap_or_default();
    let found = run_dirs.iter().filter_map(|run_dir| {
        let tag = run_dir.file_name()?.to_str()?.parse().ok()?;
        if matches!(tag, GuestTag::Ready(_)) {
            return None;
        }
        // A guest that has ended or cannot be found needs no name.
        let guest = Guest::find(run_dir).ok().flatten()?;
        Some(GuestInScope {
            tag,
            name: services.network_name(&tag.to_string()),
            kind: guest.kind(),
            unit: guest.scope()?.to_owned(),
            pid: guest.pid(),
            root: guest.root().map(PathBuf::from),
        })
    });
    found.collect()
}
