//! The placement of builds on a host: a pure function of what the host offers and what waits.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;
use config::builds::Submitter;

use crate::operation::{Candidate, HostRow, Pick};
use crate::trials::{Trial, TrialNumber};
use crate::windows::ends_before;
use crate::{Capacity, HostId, Offer, Published, Requirements};

mod refusal;

use refusal::shortage;
pub use refusal::{Refusal, refusal, unlike, why};

/// The time for which a build waits for a host that has its checkpoint or caches.
const LOCALITY_MS: u64 = 5_000;
/// The time after which the priority of a waiting build has risen by one.
const AGING_MS: u64 = 600_000;
/// The time that is charged for a build until its true one is known.
const CHARGE_MS: u64 = 60_000;

/// Everything that a placement depends on.
#[derive(Debug, Clone, Copy)]
pub struct Placement<'a> {
    /// The host.
    pub host: HostId,
    /// Its offer.
    pub offer: &'a Offer,
    /// The revisions that the farm has published.
    pub published: &'a BTreeMap<MachineName, Published>,
    /// The last trial of each machine.
    pub trials: &'a BTreeMap<MachineName, Trial>,
    /// The number of builds that may start on the candidate of each open trial.
    pub vacancies: &'a BTreeMap<TrialNumber, usize>,
    /// The builds in the queue. The earlier of two comes first, if nothing else distinguishes them.
    pub builds: &'a [Candidate],
    /// The recent use of submitters.
    pub used_ms: &'a BTreeMap<Submitter, u64>,
    /// The hosts that are alive, as they were read last.
    pub hosts: &'a BTreeMap<HostId, HostRow>,
    /// The time until the next window of the host begins.
    pub opens_in_ms: Option<u64>,
}

/// Returns the builds that the host gets, in the order in which they were chosen.
///
/// Higher priorities come first, then submitters with less use of the farm, then older builds. A build of the
/// share of a trial runs on the candidate if the host has its image, and otherwise on the published revision.
/// Another coordinator may see the same vacancies at the same moment, so that some more builds run on the
/// candidate than the verdict needs, which does no harm.
pub fn place(placement: &Placement<'_>) -> Vec<Pick> {
    let mut free = placement.offer.free.clone();
    let mut used = placement.used_ms.clone();
    let mut vacancies = placement.vacancies.clone();
    let mut picks = Vec::new();
    if placement.offer.halt.is_some() {
        return picks;
    }
    let offer = placement.offer;
    let better = Better::new(placement);
    // A build that does not fit now does not fit later, when less is free.
    let waiting = placement.builds.iter().enumerate().filter(|(_, it)| {
        refusal(offer, &free, &it.requirements, placement.published).is_none()
            && ends_before(placement.opens_in_ms, it.usual_ms)
            && !better.has(placement, it)
    });
    let mut waiting: Vec<_> = waiting.collect();
    while free.guests > 0 {
        waiting.retain(|(_, it)| shortage(&free, &it.requirements).is_none());
        let best = waiting
            .iter()
            .min_by_key(|(place, it)| rank(*place, it, &used));
        let Some((place, best)) = best.copied() else {
            break;
        };
        waiting.retain(|(it, _)| *it != place);
        take(&mut free, &best.requirements);
        *used.entry(best.submitter.clone()).or_default() += CHARGE_MS;
        let offered = &offer.machines[&best.requirements.machine];
        let current = Published {
            revision: offered.revision,
            content: offered.content.clone(),
        };
        let trial = trial_for(placement, best, &mut vacancies);
        let on = trial.map_or(current, |it| it.candidate.clone());
        picks.push(Pick {
            build: best.build,
            epoch: best.epoch,
            revision: on.revision,
            content: on.content,
            charge_ms: CHARGE_MS,
            trial: trial.map(|it| it.number),
        });
    }
    picks
}

/// Returns the trial on whose candidate a build of the share runs, and takes its vacancy.
fn trial_for<'a>(
    placement: &Placement<'a>,
    build: &Candidate,
    vacancies: &mut BTreeMap<TrialNumber, usize>,
) -> Option<&'a Trial> {
    let needs = &build.requirements;
    let trial = placement.trials.get(&needs.machine)?;
    let offered = placement.offer.machines.get(&needs.machine)?;
    if !build.may_be_on_trial || !trial.takes(build.build, &needs.toolchain, offered) {
        return None;
    }
    let left = vacancies.get_mut(&trial.number).filter(|it| **it > 0)?;
    *left -= 1;
    Some(trial)
}

/// Returns the sort key of a build; the least is placed first.
fn rank(place: usize, candidate: &Candidate, used: &BTreeMap<Submitter, u64>) -> (i64, u64, usize) {
    let risen = i64::try_from(candidate.waited_ms / AGING_MS).unwrap_or(i64::MAX);
    let priority = i64::from(candidate.priority.0).saturating_add(risen);
    let used = used.get(&candidate.submitter).copied().unwrap_or_default();
    (priority.saturating_neg(), used, place)
}

/// Takes the needs of a build from what is free.
fn take(free: &mut Capacity, requirements: &Requirements) {
    free.guests = free.guests.saturating_sub(1);
    free.cpus = free.cpus.saturating_sub(requirements.cpus);
    free.memory_mib = free.memory_mib.saturating_sub(requirements.memory_mib);
    for (name, count) in &requirements.resources {
        if let Some(left) = free.resources.get_mut(name) {
            *left = left.saturating_sub(*count);
        }
    }
}

/// The hosts that have a checkpoint or caches of a machine that this host does not have.
#[derive(Debug)]
struct Better<'a>(BTreeMap<&'a MachineName, Vec<&'a Offer>>);

impl<'a> Better<'a> {
    fn new(placement: &Placement<'a>) -> Self {
        let machines: BTreeSet<_> = placement
            .builds
            .iter()
            .map(|it| &it.requirements.machine)
            .collect();
        let hosts = |machine| {
            let own = locality(placement.offer, machine);
            let others = placement.hosts.values().filter(|other| {
                other.host != placement.host
                    && !other.drained
                    && other.offer.halt.is_none()
                    && locality(&other.offer, machine) > own
            });
            others.map(|it| &it.offer).collect()
        };
        Self(machines.into_iter().map(|it| (it, hosts(it))).collect())
    }

    /// Returns true if a build is new and one of the hosts could start it now.
    fn has(&self, placement: &Placement<'_>, candidate: &Candidate) -> bool {
        let requirements = &candidate.requirements;
        let hosts = self.0.get(&requirements.machine).into_iter().flatten();
        candidate.waited_ms < LOCALITY_MS
            && hosts
                .into_iter()
                .any(|it| refusal(it, &it.free, requirements, placement.published).is_none())
    }
}

/// Returns the value of a host for a machine's builds: 2 for a checkpoint, 1 for caches.
fn locality(offer: &Offer, machine: &MachineName) -> u8 {
    offer
        .machines
        .get(machine)
        .map_or(0, |it| 2 * u8::from(it.frozen) + u8::from(it.cached))
}

#[cfg(test)]
mod tests;
