//! The offer to a controller: the machines that could start now, and the builds that end for each;
//! pure.

use std::collections::{BTreeMap, BTreeSet};

use config::auxiliary::may_be_offered;
use config::{BuildId, MachineName};
use controllers::priority::Interruptible;
use planner::{Observed, Opening};

use super::Member;

/// A machine that is offered, and the builds that are interrupted if its task is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OfferedPlace {
    /// The machine.
    pub(super) opening: Opening,
    /// The builds.
    pub(super) interrupted: BTreeSet<BuildId>,
}

/// Returns the places that a controller is offered, in the order of its preference.
///
/// # Errors
/// The reason for which there are none.
pub(super) fn places(
    observed: &Observed,
    member: &Member,
    interruptible: &Interruptible,
) -> Result<Vec<OfferedPlace>, String> {
    let (mut places, mut reason) = (BTreeMap::new(), None);
    for interrupted in choices(interruptible) {
        match observed.openings(&member.toolchain, &interrupted) {
            Ok(openings) => add(&mut places, member, openings, &interrupted),
            Err(found) => reason = reason.or(Some(found)),
        }
    }
    if places.is_empty() {
        return Err(reason.unwrap_or_else(|| {
            "its setting `machines` matches no machine that could start now".to_owned()
        }));
    }
    let mut places: Vec<_> = places.into_values().collect();
    places.sort_by_key(|place: &OfferedPlace| member.rules.preference(&place.opening.key.machine));
    Ok(places)
}

/// Returns the auxiliary machines that a controller is offered beside these places, in the order of
/// its preference, and their memory in KiB.
pub(super) fn auxiliaries(
    observed: &Observed,
    member: &Member,
    places: &[OfferedPlace],
) -> (Vec<Opening>, u64) {
    let most = member.rules.auxiliary_memory_mib_max;
    let Some(first) = places.first().filter(|_| most > 0) else {
        return (Vec::new(), 0);
    };
    // Those that start by the same interruption.
    let beside = places
        .iter()
        .filter(|it| it.interrupted == first.interrupted);
    let beside: Vec<_> = beside.map(|it| it.opening.clone()).collect();
    let openings = observed.auxiliary_openings(&member.toolchain, &first.interrupted, &beside);
    let memory = most.min(openings.memory);
    let mut machines = openings.machines;
    machines.retain(|it| {
        let name = &it.key.machine;
        may_be_offered(name)
            && member.rules.preference(name).is_some()
            && it.request.memory <= memory
    });
    machines.sort_by_key(|it| member.rules.preference(&it.key.machine));
    (machines, memory * 1024)
}

/// Returns the sets of builds that may end for a task, the best first.
fn choices(interruptible: &Interruptible) -> Vec<BTreeSet<BuildId>> {
    match interruptible {
        Interruptible::All(builds) => vec![builds.iter().copied().collect()],
        Interruptible::One(builds) => {
            let one = builds.iter().map(|build| BTreeSet::from([*build]));
            std::iter::once(BTreeSet::new()).chain(one).collect()
        }
    }
}

/// Adds the machines that an earlier choice does not have.
fn add(
    places: &mut BTreeMap<MachineName, OfferedPlace>,
    member: &Member,
    openings: Vec<Opening>,
    interrupted: &BTreeSet<BuildId>,
) {
    for opening in openings {
        let machine = opening.key.machine.clone();
        if member.rules.preference(&machine).is_some() {
            places.entry(machine).or_insert_with(|| OfferedPlace {
                opening,
                interrupted: interrupted.clone(),
            });
        }
    }
}
