//! The guests of an earlier agent, found by the names of their run directories, processes
//! and networks.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::GuestTag;
use guest::Guest;
use guest::network::{self, Network};
use sys::blocking::blocking;
use tracing::{info, warn};

use super::teardown::{kill, remove_run_dir};
use super::{GuestServices, SessionError};

/// Returns the directory with the run directories of guests.
pub fn guests_directory(run: &Path) -> PathBuf {
    run.join("guests")
}

/// Returns true if the guest of an earlier agent with this tag runs. Blocks.
pub fn is_running(services: &GuestServices, tag: &str) -> bool {
    matches!(Guest::find(&services.run_dir_of(tag)), Ok(Some(_)))
        && Network::open(&services.network_name(tag)).is_ok()
}

/// Returns the number of bytes that a virtual machine has written so far; 0 for containers.
/// Blocks.
pub fn bytes_written(services: &GuestServices, tag: &str) -> u64 {
    let guest = Guest::find(&services.run_dir_of(tag)).ok().flatten();
    guest.map_or(0, |guest| guest.bytes_written())
}

/// Lets a suspended guest run again.
///
/// # Errors
/// When the guest has ended or does not answer.
pub async fn resume(services: &Arc<GuestServices>, tag: &str) -> Result<(), SessionError> {
    let run_dir = services.run_dir_of(tag);
    blocking(move || {
        let guest = Guest::find(&run_dir)?.ok_or(SessionError::Gone)?;
        Ok(guest.resume()?)
    })
    .await
}

/// Ends the guests that an earlier agent left running, except those with a tag in `kept`:
/// their processes, networks and run directories. Leaves everything alone that does not have
/// the name of a guest. Continues after a failure and logs it.
pub async fn end_orphans(services: &Arc<GuestServices>, kept: &BTreeSet<String>) {
    let (services, kept) = (Arc::clone(services), kept.clone());
    blocking(move || {
        let is_orphan = |tag: &str| tag.parse::<GuestTag>().is_ok() && !kept.contains(tag);
        end_processes(&services, is_orphan);
        delete_networks(&services, is_orphan);
    })
    .await;
}

fn end_processes(services: &GuestServices, is_orphan: impl Fn(&str) -> bool) {
    for run_dir in sys::file::entries(&services.run_dir).unwrap_or_default() {
        let tag = run_dir.file_name().and_then(|name| name.to_str());
        if !tag.is_some_and(&is_orphan) {
            continue;
        }
        match Guest::find(&run_dir) {
            Ok(Some(guest)) => {
                info!(guest = %run_dir.display(), "ending a guest of an earlier agent");
                kill(&guest);
            }
            Ok(None) => {}
            Err(error) => warn!(
                error = &error as &dyn Error,
                "cannot find the guest of an earlier agent"
            ),
        }
        remove_run_dir(&run_dir);
    }
}

fn delete_networks(services: &GuestServices, is_orphan: impl Fn(&str) -> bool) {
    let prefix = services.network_name("");
    for name in &network::list(&prefix).unwrap_or_default() {
        if !name.strip_prefix(&prefix).is_some_and(&is_orphan) {
            continue;
        }
        // The link is deleted with the network, but the kernel does that with delay.
        let closed = Network::open(name).and_then(|network| network::egress::close(&network));
        if let Err(error) = closed.and_then(|()| network::delete(name)) {
            warn!(
                error = &error as &dyn Error,
                name, "cannot delete the network of a guest"
            );
        }
    }
    if let Err(error) = network::egress::clean_up() {
        warn!(%error, "cannot delete the host's egress table");
    }
}
