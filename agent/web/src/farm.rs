//! The pages of a farm: overview, builds, hosts and machines.

mod build;
mod builds;
mod hosts;
mod overview;

use config::builds::State;
use farm_core::view::{BuildState, BuildView, HostView};

use crate::marks::Mark;

pub use build::FarmBuild;
pub use builds::FarmBuilds;
pub use hosts::{FarmHost, FarmHosts, FarmMachines};
pub use overview::FarmOverview;

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
fn class(host: &HostView) -> &'static str {
    match host.state() {
        "alive" => "good",
        "drained" | "maintenance" => "warn",
        "silent" => "bad",
        _ => "idle",
    }
}

#[cfg(test)]
pub(crate) mod examples;
