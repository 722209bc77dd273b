//! The end of a guest on the host: its process, its network, its run directory. Blocks.

use std::error::Error;
use std::path::Path;

use guest::Guest;
use guest::network::{self, Network};
use tracing::warn;

use super::egress;

/// Kills a guest, and logs a failure.
pub(super) fn kill(guest: &Guest) {
    if let Err(error) = guest.kill_and_wait() {
        warn!(error = &error as &dyn Error, "cannot end a guest");
    }
}

/// Deletes the network and the run directory of a guest that has ended. Continues after a
/// failure and logs it.
pub(super) fn tear_down(network: &Network, run_dir: &Path) {
    let name = network.name();
    if let Err(error) = egress::close(network, run_dir) {
        warn!(
            error = &error as &dyn Error,
            network = name,
            "cannot close the egress of a guest"
        );
    }
    if let Err(error) = network::delete(name) {
        warn!(
            error = &error as &dyn Error,
            network = name,
            "cannot delete the network of a guest"
        );
    }
    remove_run_dir(run_dir);
}

/// Removes the run directory of a guest that has ended.
pub(super) fn remove_run_dir(run_dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(run_dir) {
        warn!(%error, path = %run_dir.display(), "cannot remove the run directory of a guest");
    }
}
