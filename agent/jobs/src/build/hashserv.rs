//! The rights of a build at the hash equivalence service.

use config::builds::Build;
use config::hashserv::HashservMode;
use config::settings::Hashserv;
use session::HashservAccess;
use state::AgentState;

/// Returns the rights of a build; `None` if it does not reach the service.
pub(super) fn mode(agent: &AgentState, build: &Build) -> Option<HashservMode> {
    decide(&agent.settings().hashserv, build)
}

/// Returns the access of a build's guest.
pub(super) fn of_build(agent: &AgentState, build: &Build) -> Option<HashservAccess> {
    mode(agent, build).map(|mode| access(mode, build))
}

/// Returns the access of a debug session of a build, which only looks up hashes.
pub(crate) fn of_debug_session(agent: &AgentState, build: &Build) -> Option<HashservAccess> {
    mode(agent, build).map(|_| access(HashservMode::Read, build))
}

fn access(mode: HashservMode, build: &Build) -> HashservAccess {
    HashservAccess {
        mode,
        owner: format!("build {}", build.id),
    }
}

/// Decides about the rights of a build. Those report that may fill a cache: a report counts at once
/// for all builds, so nothing that a person or a revision on trial may have influenced is one.
fn decide(settings: &Hashserv, build: &Build) -> Option<HashservMode> {
    if !settings.serves(&build.machine, &build.toolchain) {
        return None;
    }
    let is_trusted = settings.reporters.contains(&build.submitter);
    if is_trusted && !build.is_influenced() && !settings.read_only {
        Some(HashservMode::Report)
    } else {
        Some(HashservMode::Read)
    }
}

#[cfg(test)]
mod tests;
