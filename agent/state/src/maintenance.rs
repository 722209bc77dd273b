//! Draining the host: no guest starts until the drain ends, across restarts of the agent
//! and reboots. Running jobs end by themselves, bootstraps included.
//!
//! The drain is a file in the state directory, so that an administrator can see it, and
//! remove it, without an agent.

use std::io;

use config::queue::Drained;

use super::agent_state::AgentState;

/// Restores the drain of an earlier agent.
///
/// # Errors
/// When the file cannot be read: a drained host must not start builds.
pub fn load(agent: &AgentState) -> io::Result<()> {
    let text = match sys::trusted::read_text(agent.paths.drained()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let drained: Drained = serde_json::from_str(&text)?;
    agent.set_drained(Some(drained));
    Ok(())
}

/// Starts or ends a drain. The change is on disk when this returns.
///
/// # Errors
/// When the file cannot be written or removed; then nothing has changed.
pub fn set(agent: &AgentState, drained: Option<Drained>) -> io::Result<()> {
    let path = agent.paths.drained();
    match &drained {
        Some(drained) => sys::file::replace(&path, &serde_json::to_vec(drained)?)?,
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => sys::trusted::open(agent.paths.state())?.sync_all()?,
        },
    }
    agent.set_drained(drained);
    agent.wake.notify_one();
    Ok(())
}
