//! The pages of a farm: overview, builds, hosts and machines.

mod artifacts;
mod build;
mod builds;
mod hosts;
mod machines;
mod overview;
mod schedules;

use config::builds::State;
use farm_core::site::HostState;
use farm_core::view::{BuildState, BuildView};

use crate::marks::Mark;

pub use artifacts::FarmArtifacts;
pub use build::FarmBuild;
pub use builds::FarmBuilds;
pub use hosts::{FarmHost, FarmHosts};
pub use machines::FarmMachines;
pub use overview::FarmOverview;
pub use schedules::FarmSchedules;

/// Returns the symbol of a build: of its outcome, or of its state.
fn mark(build: &BuildView) -> Mark {
    match (build.outcome, build.state) {
        (Some(outcome), _) => Mark::of_outcome(outcome),
        (None, BuildState::Queued) => Mark::of_state(State::Queued),
        (None, BuildState::Running) => Mark::of_state(State::Running),
        (None, BuildState::Finished) => Mark::of_state(State::Finished),
    }
}

/// Returns the class of the color of a host's state.
fn class(state: HostState) -> &'static str {
    match state {
        HostState::Alive => "good",
        HostState::Halted | HostState::Drained | HostState::Maintenance => "warn",
        HostState::Silent => "bad",
        HostState::New | HostState::Revoked => "idle",
    }
}

#[cfg(test)]
pub(crate) mod examples;
