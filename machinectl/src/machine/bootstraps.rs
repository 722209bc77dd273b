//! The failed bootstraps of machines, as far as the agent tells.

use std::collections::BTreeMap;
use std::path::Path;

use client::{Client, ClientError};
use config::{MachineName, ToolchainName};
use store::Volume;

/// The errors of the last bootstraps of a machine's images, by their toolchains.
pub(super) type FailedBootstraps = BTreeMap<ToolchainName, String>;

/// Returns the failed bootstraps of the machines in a volume. Without an agent that answers, none
/// are known.
pub(super) fn failed(volume: &Volume, socket: &Path) -> BTreeMap<MachineName, FailedBootstraps> {
    if !socket.exists() {
        return BTreeMap::new();
    }
    find(volume, socket).unwrap_or_default()
}

/// Asks the agent. It has no other volume's machines.
fn find(
    volume: &Volume,
    socket: &Path,
) -> Result<BTreeMap<MachineName, FailedBootstraps>, ClientError> {
    let status = Client::new(socket)?.status()?;
    let mut failed: BTreeMap<_, FailedBootstraps> = BTreeMap::new();
    if !status.volumes.iter().any(|it| it.path == volume.path()) {
        return Ok(failed);
    }
    for image in status.machines {
        if !image.bootstrap_error.is_empty() {
            let of_machine = failed.entry(image.machine).or_default();
            of_machine.insert(image.toolchain, image.bootstrap_error);
        }
    }
    Ok(failed)
}
