//! What guests leave on the host, found by their names: their directories, processes
//! and networks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{SessionError, way};
use crate::guest::{Exit, Guest, GuestError};
use crate::guest_tag::GuestTag;
use crate::host::Host;
use crate::network::{self, Network};

/// Where the directories of running guests lie.
pub fn guests_directory(run: &Path) -> PathBuf {
    run.join("guests")
}

/// Whether a guest that an earlier agent started still runs.
pub fn is_running(host: &Host, tag: &str) -> bool {
    matches!(Guest::find(&run_directory(host, tag)), Ok(Some(_)))
        && Network::open(&network_name(host, tag)).is_ok()
}

/// What a virtual machine has written so far; nothing is known of others.
pub fn bytes_written(host: &Host, tag: &str) -> u64 {
    let guest = Guest::find(&run_directory(host, tag));
    guest
        .ok()
        .flatten()
        .map_or(0, |guest| guest.bytes_written())
}

/// Lets a guest run that was suspended.
///
/// # Errors
/// When it is gone or does not answer.
pub async fn wake(host: &Host, tag: &str) -> Result<(), SessionError> {
    let guest = Guest::find(&run_directory(host, tag))?.ok_or(SessionError::Gone)?;
    Ok(guest.go_on().await?)
}

/// Ends what an agent before us left running on this host, but for the guests in
/// `kept`: processes, networks, directories. What has no name of a guest is somebody
/// else's and stays. Goes on after a failure and logs it.
pub async fn clear(host: &Host, kept: &BTreeSet<String>) {
    let directory = guests_directory(&host.settings.paths.run);
    for run in store::file::entries(&directory).unwrap_or_default() {
        let name = run.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| is_left(name, kept)) {
            continue;
        }
        match Guest::find(&run) {
            Ok(Some(guest)) => {
                info!(guest = %run.display(), "ending a guest that an earlier agent left");
                complain(guest.end().await);
            }
            Ok(None) => {}
            Err(error) => warn!("{}", crate::chain(&error)),
        }
        remove_directory(&run);
    }
    let prefix = network_name(host, "");
    for name in &network::list(&prefix).unwrap_or_default() {
        if !is_left(name.strip_prefix(&prefix).unwrap_or_default(), kept) {
            continue;
        }
        // With its way out: the kernel takes its time for what is left to it.
        let closed = Network::open(name).and_then(|network| network::egress::close(&network));
        if let Err(error) = closed.and_then(|()| network::delete(name)) {
            warn!(name, %error, "cannot delete the network of a guest");
        }
    }
    if let Err(error) = network::egress::tidy() {
        warn!(%error, "cannot remove what the host had for ways out of guests");
    }
}

/// Whether something was a guest's and is wanted no more.
fn is_left(name: &str, kept: &BTreeSet<String>) -> bool {
    name.parse::<GuestTag>().is_ok() && !kept.contains(name)
}

pub(super) fn network_name(host: &Host, tag: &str) -> String {
    format!("{}-{tag}", host.settings.name)
}

pub(super) fn run_directory(host: &Host, tag: &str) -> PathBuf {
    guests_directory(&host.settings.paths.run).join(tag)
}

/// Logs that a guest could not be ended.
pub(super) fn complain(ended: Result<Exit, GuestError>) {
    if let Err(error) = ended {
        warn!("{}", crate::chain(&error));
    }
}

pub(super) fn tear_down(network: Network, run: &Path) {
    if let Err(error) = way::close(&network, run) {
        warn!("{}", crate::chain(&error));
    }
    if let Err(error) = network.delete() {
        warn!(%error, "cannot delete the network of a guest");
    }
    remove_directory(run);
}

fn remove_directory(run: &Path) {
    if let Err(error) = std::fs::remove_dir_all(run) {
        warn!(path = %run.display(), %error, "cannot remove the directory of a guest");
    }
}
