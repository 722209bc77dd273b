//! What guests leave on the host, found by their names: their directories, processes
//! and networks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{GuestServices, SessionError, egress};
use crate::state::guest_tag::GuestTag;
use guest::network::{self, Network};
use guest::{Exit, Guest, GuestError};

/// Where the directories of running guests lie.
pub fn guests_directory(run: &Path) -> PathBuf {
    run.join("guests")
}

/// Whether a guest that an earlier agent started still runs.
pub fn is_running(guests: &GuestServices, tag: &str) -> bool {
    matches!(Guest::find(&guests.run_dir_of(tag)), Ok(Some(_)))
        && Network::open(&guests.network_name(tag)).is_ok()
}

/// What a virtual machine has written so far; nothing is known of others.
pub fn bytes_written(guests: &GuestServices, tag: &str) -> u64 {
    let guest = Guest::find(&guests.run_dir_of(tag));
    guest
        .ok()
        .flatten()
        .map_or(0, |guest| guest.bytes_written())
}

/// Lets a guest run that was suspended.
///
/// # Errors
/// When it is gone or does not answer.
pub async fn resume(guests: &GuestServices, tag: &str) -> Result<(), SessionError> {
    let guest = Guest::find(&guests.run_dir_of(tag))?.ok_or(SessionError::Gone)?;
    Ok(guest.go_on().await?)
}

/// Ends what an agent before us left running on this host, but for the guests in
/// `kept`: processes, networks, directories. What has no name of a guest is somebody
/// else's and stays. Goes on after a failure and logs it.
pub async fn end_orphans(guests: &GuestServices, kept: &BTreeSet<String>) {
    for run in sys::file::entries(&guests.run_dir).unwrap_or_default() {
        let name = run.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| is_left(name, kept)) {
            continue;
        }
        match Guest::find(&run) {
            Ok(Some(guest)) => {
                info!(guest = %run.display(), "ending a guest that an earlier agent left");
                log_failure(guest.end().await);
            }
            Ok(None) => {}
            Err(error) => warn!("{}", sys::error_report::chain(&error)),
        }
        remove_directory(&run);
    }
    let prefix = guests.network_name("");
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

/// Logs that a guest could not be ended.
pub(super) fn log_failure(ended: Result<Exit, GuestError>) {
    if let Err(error) = ended {
        warn!("{}", sys::error_report::chain(&error));
    }
}

pub(super) fn tear_down(network: Network, run: &Path) {
    if let Err(error) = egress::close(&network, run) {
        warn!("{}", sys::error_report::chain(&error));
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
