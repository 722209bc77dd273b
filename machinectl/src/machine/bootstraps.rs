//! The failed and waiting bootstraps of machines, as far as the agent tells.

use std::collections::BTreeMap;
use std::path::Path;

use client::{Client, ClientError};
use config::{MachineName, ToolchainName};
use store::Volume;

/// The bootstraps of a machine's images that have a message.
#[derive(Debug, Clone, Default)]
pub(super) struct Bootstraps {
    /// The errors of those that failed last, by their toolchains.
    pub(super) failed: BTreeMap<ToolchainName, String>,
    /// The reasons of those that wait, by their toolchains.
    pub(super) waiting: BTreeMap<ToolchainName, String>,
}

/// Returns the bootstraps of the machines in a volume. Without an agent that answers, none are
/// known.
pub(super) fn of_volume(volume: &Volume, socket: &Path) -> BTreeMap<MachineName, Bootstraps> {
    if !socket.exists() {
        return BTreeMap::new();
    }
    find(volume, socket).unwrap_or_default()
}

/// Asks the agent. It has no other volume's machines.
fn find(volume: &Volume, socket: &Path) -> Result<BTreeMap<MachineName, Bootstraps>, ClientError> {
    let status = Client::new(socket)?.status()?;
    let mut found: BTreeMap<_, Bootstraps> = BTreeMap::new();
    if !status.volumes.iter().any(|it| it.path == volume.path()) {
        return Ok(found);
    }
    for image in status.machines {
        let of_machine = found.entry(image.machine).or_default();
        if !image.bootstrap_wait.is_empty() {
            let toolchain = image.toolchain.clone();
            of_machine.waiting.insert(toolchain, image.bootstrap_wait);
        }
        if !image.bootstrap_error.is_empty() {
            of_machine
                .failed
                .insert(image.toolchain, image.bootstrap_error);
        }
    }
    Ok(found)
}
