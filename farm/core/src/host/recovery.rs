//! The start of a host's agent: it continues with what is on disk and with the guests that still run.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;
use config::task::Outcome;

use super::{Effect, Held, HostAgent, Pending, releasing};
use crate::messages::Report;
use crate::trials::HostTrial;
use crate::{Lease, Moment, Revision, Terms};

/// A lease on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisk {
    /// It has no result, and its guest may have started.
    Lease,
    /// Its guest has not started.
    Unused,
    /// Its guest has left a result, which a power failure could still destroy.
    Left(Outcome),
    /// It has a result, which the farm may not have.
    Result(Outcome),
}

/// Everything that an agent finds when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The leases on disk.
    pub disk: BTreeMap<Lease, OnDisk>,
    /// The guests that run, each with its guard.
    pub guests: BTreeMap<Lease, Moment>,
    /// The current revision of each machine.
    pub revisions: BTreeMap<MachineName, Revision>,
    /// The last trial of each machine that the farm has asked for.
    pub trials: BTreeMap<MachineName, HostTrial>,
}

/// Returns the state of a host that continues, and the effects that clean it.
///
/// Without an answer of the farm, a guest is never started and no deadline is moved.
pub(super) fn recover(
    terms: Terms,
    incarnation: u64,
    now: Moment,
    recovered: Recovered,
) -> (HostAgent, Vec<Effect>) {
    let Recovered {
        disk,
        guests,
        revisions,
        trials,
    } = recovered;
    let mut effects = Vec::new();
    let (mut held, mut outbox) = (BTreeMap::new(), BTreeMap::new());
    for (lease, on_disk) in &disk {
        match on_disk {
            OnDisk::Lease => {
                let state = guests
                    .get(lease)
                    .map_or(releasing(now, false), |it| Held::Running(*it));
                held.insert(*lease, state);
            }
            OnDisk::Unused => {
                held.insert(*lease, releasing(now, true));
            }
            OnDisk::Left(outcome) => {
                let (lease, outcome) = (*lease, *outcome);
                outbox.insert(lease, Pending { outcome, due: None });
                let message = None;
                effects.push(Effect::Store(Report {
                    lease,
                    outcome,
                    message,
                }));
            }
            OnDisk::Result(outcome) => {
                let outcome = *outcome;
                let due = Some(now);
                outbox.insert(*lease, Pending { outcome, due });
            }
        }
    }
    for lease in guests.keys() {
        if !held.contains_key(lease) {
            effects.push(Effect::Stop(*lease));
        }
    }
    let agent = HostAgent {
        terms,
        incarnation,
        polls: 0,
        waiting: None,
        unanswered: 0,
        poll_due: now,
        held,
        outbox,
        revisions,
        fetching: BTreeSet::new(),
        trials,
    };
    (agent, effects)
}
