//! How long the guest of a build may take.

use std::path::Path;

use config::builds::Build;
use config::layout::Entry;
use config::limits::{LimitOverrides, Limits};
use config::machine::{FILE, Machine};

use crate::jobs::hold;
use crate::state::agent_state::AgentState;

/// The limits of a guest that starts cold in the snapshot of a build.
pub(crate) fn of(agent: &AgentState, build: &Build) -> Limits {
    let own = hold::volume_of(agent, build).and_then(|volume| {
        let snapshot = Entry::Snapshot(build.toolchain.clone(), build.id.tag());
        let directory = volume.directory(&build.machine);
        read(&directory.join(snapshot.name(&build.machine)))
    });
    let settings = &agent.settings;
    let all = settings.builds.limits;
    let own = own.unwrap_or_default();
    all.of(&build.machine, own, &settings.guests.limits)
}

fn read(snapshot: &Path) -> Option<LimitOverrides> {
    let text = std::fs::read_to_string(snapshot.join(FILE)).ok()?;
    Some(Machine::parse(&text).ok()?.limits)
}
