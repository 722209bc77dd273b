//! What guests leave on the host, found by their names: their directories, processes
//! and networks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{SessionError, egress};
use crate::state::agent_state::AgentState;
use crate::state::guest_tag::GuestTag;
use guest::network::{self, Network};
use guest::{Exit, Guest, GuestError};

/// Where the directories of running guests lie.
pub fn guests_directory(run: &Path) -> PathBuf {
    run.join("guests")
}

/// Whether a guest that an earlier agent started still runs.
pub fn is_running(agent: &AgentState, tag: &str) -> bool {
    matches!(Guest::find(&run_directory(agent, tag)), Ok(Some(_)))
        && Network::open(&network_name(agent, tag)).is_ok()
}

/// What a virtual machine has written so far; nothing is known of others.
pub fn bytes_written(agent: &AgentState, tag: &str) -> u64 {
    let guest = Guest::find(&run_directory(agent, tag));
    guest
        .ok()
        .flatten()
        .map_or(0, |guest| guest.bytes_written())
}

/// Lets a guest run that was suspended.
///
/// # Errors
/// When it is gone or does not answer.
pub async fn wake(agent: &AgentState, tag: &str) -> Result<(), SessionError> {
    let guest = Guest::find(&run_directory(agent, tag))?.ok_or(SessionError::Gone)?;
    Ok(guest.go_on().await?)
}

/// Ends what an agent before us left running on this host, but for the guests in
/// `kept`: processes, networks, directories. What has no name of a guest is somebody
/// else's and stays. Goes on after a failure and logs it.
pub async fn clear(agent: &AgentState, kept: &BTreeSet<String>) {
    let directory = guests_directory(&agent.settings.paths.run);
    for run in sys::file::entries(&directory).unwrap_or_default() {
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
            Err(error) => warn!("{}", sys::error_report::chain(&error)),
        }
        remove_directory(&run);
    }
    let prefix = network_name(agent, "");
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

pub(super) fn network_name(agent: &AgentState, tag: &str) -> String {
    format!("{}-{tag}", agent.settings.name)
}

pub(super) fn run_directory(agent: &AgentState, tag: &str) -> PathBuf {
    guests_directory(&agent.settings.paths.run).join(tag)
}

/// Logs that a guest could not be ended.
pub(super) fn complain(ended: Result<Exit, GuestError>) {
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
