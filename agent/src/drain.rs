//! Draining the host: no guest starts until somebody says so, restarts of the agent
//! and boots included. What runs ends by itself, bootstraps too.
//!
//! It is a file in the state directory, so an administrator can see it, and take it
//! away, without an agent.

use std::io;
use std::path::PathBuf;

use config::queue::Drained;

use crate::host::Host;

const FILE: &str = "drained.json";

fn path(host: &Host) -> PathBuf {
    host.settings.paths.state.join(FILE)
}

/// Takes in what was said to an earlier agent.
///
/// # Errors
/// When the file cannot be read: a host that was drained must not begin to build.
pub fn load(host: &Host) -> io::Result<()> {
    let text = match std::fs::read_to_string(path(host)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let drained: Drained = serde_json::from_str(&text)?;
    host.set_drained(Some(drained));
    Ok(())
}

/// Drains the host, or ends that; it is on disk when this returns.
///
/// # Errors
/// When the file cannot be written or removed; nothing has changed then.
pub fn set(host: &Host, drained: Option<Drained>) -> io::Result<()> {
    let path = path(host);
    match &drained {
        Some(drained) => store::file::replace(&path, &serde_json::to_vec(drained)?)?,
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::File::open(&host.settings.paths.state)?.sync_all()?,
        },
    }
    host.set_drained(drained);
    host.wake.notify_one();
    Ok(())
}
