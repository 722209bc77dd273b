//! The pages of a farm: overview, builds, hosts and machines.

mod artifacts;
mod build;
mod builds;
mod hosts;
mod machines;
mod overview;
mod schedules;

use config::builds::State;
use farm_core::view::{BuildState, BuildView, HostView};

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

/// Returns true if a host that is alive and not drained starts no guest.
fn is_halted(host: &HostView) -> bool {
    host.state() == "alive" && host.offer.halt.is_some()
}

/// Returns the state of a host for people.
fn word(host: &HostView) -> &'static str {
    if is_halted(host) {
        "halted"
    } else {
        host.state()
    }
}

/// Returns the class of the color of a host's state.
fn class(host: &HostView) -> &'static str {
    match host.state() {
        _ if is_halted(host) => "warn",
        "alive" => "good",
        "drained" | "maintenance" => "warn",
        "silent" => "bad",
        _ => "idle",
    }
}

#[cfg(test)]
pub(crate) mod examples;
