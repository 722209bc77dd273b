//! Draining the host: no guest starts until somebody says so, restarts of the agent
//! and boots included. What runs ends by itself, bootstraps too.
//!
//! It is a file in the state directory, so an administrator can see it, and take it
//! away, without an agent.

use std::io;
use std::path::PathBuf;

use config::queue::Drained;

use crate::state::agent_state::AgentState;

const FILE: &str = "drained.json";

fn path(agent: &AgentState) -> PathBuf {
    agent.settings.paths.state.join(FILE)
}

/// Takes in what was said to an earlier agent.
///
/// # Errors
/// When the file cannot be read: a host that was drained must not begin to build.
pub fn load(agent: &AgentState) -> io::Result<()> {
    let text = match std::fs::read_to_string(path(agent)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let drained: Drained = serde_json::from_str(&text)?;
    agent.set_drained(Some(drained));
    Ok(())
}

/// Drains the host, or ends that; it is on disk when this returns.
///
/// # Errors
/// When the file cannot be written or removed; nothing has changed then.
pub fn set(agent: &AgentState, drained: Option<Drained>) -> io::Result<()> {
    let path = path(agent);
    match &drained {
        Some(drained) => sys::file::replace(&path, &serde_json::to_vec(drained)?)?,
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::File::open(&agent.settings.paths.state)?.sync_all()?,
        },
    }
    agent.set_drained(drained);
    agent.wake.notify_one();
    Ok(())
}
