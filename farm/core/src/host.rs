//! The host's side of the farm: polls, leases, guests and the outbox of results.
//!
//! A lease is on disk before its guest starts, and a result is on disk before it is reported. A guest
//! runs until the deadline of its lease, which only the answer to a poll moves, counted from the time
//! at which that poll was sent. A lease starts one guest at most: if that is lost, the lease is given
//! back, which the farm counts, so that a build that kills its hosts comes to an end. A lease whose guest
//! certainly did not start is given back as unused, which is no loss.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;
use config::task::Outcome;

use crate::messages::{Grant, PollAnswer, PollId, Release, Report};
use crate::trials::{HostTrial, TrialNumber, TrialOrder};
use crate::{Lease, Moment, Published, Requirements, Revision, Terms};

mod answers;
mod polls;
mod recovery;
mod trials;

pub use recovery::{OnDisk, Recovered};

/// An event on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The time that was asked for has come.
    Tick,
    /// A coordinator has answered a poll.
    Answered(PollAnswer),
    /// A poll was refused for now, or reached no coordinator.
    Unanswered(PollId),
    /// A lease is on disk.
    Recorded(Lease),
    /// A lease is not on disk, because a source of its build has not arrived.
    NotRecorded(Lease),
    /// A guest has ended with a result.
    Ended(Lease, Outcome),
    /// A guest has ended without a result.
    Gone(Lease),
    /// A guest was not started, and will not be.
    Unused(Lease),
    /// A result is on disk.
    Stored(Lease),
    /// The farm has the result or the lease back, or does not want it any more.
    Settled(Lease),
    /// A revision has arrived and is current.
    Fetched(MachineName, Revision),
    /// A machine was deleted. The next answer of the farm fetches it again.
    Removed(MachineName),
    /// The offer has changed for another reason.
    OfferChanged,
    /// The revision of a trial has arrived, and the trial is on disk.
    Tried(MachineName, TrialNumber),
    /// A revision has not arrived. The next answer of the farm begins again.
    NotFetched(MachineName),
}

/// An effect of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a poll. The caller adds the offer.
    Poll {
        /// Its identity.
        id: PollId,
        /// The leases that the host knows.
        held: Vec<Lease>,
        /// The time for which it may be held.
        hold_ms: u64,
    },
    /// Fetch the sources of a build and write its lease to the disk, then give [`Input::Recorded`] or
    /// [`Input::NotRecorded`]. The build runs on the current revision, or on this one, which is on trial.
    Record(Lease, Requirements, Option<Revision>),
    /// Start a guest that ends at this time unless its guard is moved.
    Start(Lease, Moment),
    /// Move the guard of a guest.
    Guard(Lease, Moment),
    /// End a guest, then give [`Input::Gone`] or [`Input::Unused`].
    Stop(Lease),
    /// Write a result to the disk, then give [`Input::Stored`].
    Store(Report),
    /// Send a result. The caller adds the message.
    Report(Report),
    /// Give a lease back.
    Release(Release),
    /// Delete the lease and its result from the disk.
    Forget(Lease),
    /// Make a revision current that is on trial here, or else fetch it. Then give [`Input::Fetched`] or
    /// [`Input::NotFetched`].
    Fetch(MachineName, Published),
    /// Fetch a revision and put it on trial, then give [`Input::Tried`] or [`Input::NotFetched`].
    Try(MachineName, TrialOrder),
    /// Note the end of a trial, whose revision was rolled back.
    EndTrial(MachineName, TrialOrder),
}

/// The state of a lease that has no result yet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    /// It is being written to the disk.
    Recording(Moment),
    /// It is given back, again at this time, because it has lost its guest or is unused.
    Releasing { due: Moment, is_unused: bool },
    /// Its guest runs until the deadline.
    Running(Moment),
    /// Its guest is being ended.
    Stopping(Next),
}

/// The fate of a lease whose guest is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It is given back.
    Release,
    /// It is over.
    Forget,
    /// Its result is `abort`.
    Abort,
}

/// A result that the farm does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    outcome: Outcome,
    /// The time at which it is sent again; `None` until it is on disk.
    due: Option<Moment>,
}

/// A poll without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    id: PollId,
    sent: Moment,
    /// The time at which another poll replaces it.
    until: Moment,
    listed: Vec<Lease>,
    /// The leases that were settled since it was sent. Its answer may still name them.
    settled: BTreeSet<Lease>,
}

/// The state machine of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAgent {
    terms: Terms,
    incarnation: u64,
    polls: u64,
    waiting: Option<Waiting>,
    /// The polls in a row that were refused.
    unanswered: u32,
    poll_due: Moment,
    held: BTreeMap<Lease, Held>,
    outbox: BTreeMap<Lease, Pending>,
    revisions: BTreeMap<MachineName, Revision>,
    fetching: BTreeSet<MachineName>,
    /// The last trial of each machine.
    trials: BTreeMap<MachineName, HostTrial>,
}

impl HostAgent {
    /// Creates the state of a host after the start of its agent. `recovered` is what was found.
    pub fn new(
        terms: Terms,
        incarnation: u64,
        now: Moment,
        recovered: Recovered,
    ) -> (Self, Vec<Effect>) {
        recovery::recover(terms, incarnation, now, recovered)
    }

    /// Handles an event.
    pub fn step(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Tick => self.tick(now, &mut effects),
            Input::Answered(answer) => self.answered(now, answer, &mut effects),
            Input::Unanswered(poll) => self.unanswered(now, poll),
            Input::Recorded(lease) => self.recorded(now, lease, &mut effects),
            Input::NotRecorded(lease) => self.not_recorded(now, lease),
            Input::Ended(lease, outcome) => self.ended(now, lease, outcome, &mut effects),
            Input::Gone(lease) => self.gone(now, lease, false, &mut effects),
            Input::Unused(lease) => self.gone(now, lease, true, &mut effects),
            Input::Stored(lease) => self.stored(now, lease, &mut effects),
            Input::Settled(lease) => self.settled(now, lease, &mut effects),
            Input::Fetched(machine, revision) => self.fetched(now, machine, revision),
            Input::Removed(machine) => self.removed(&machine),
            Input::Tried(machine, number) => self.tried(now, machine, number),
            Input::OfferChanged => self.poll_soon(now),
            Input::NotFetched(machine) => drop(self.fetching.remove(&machine)),
        }
        effects
    }

    /// Returns the time at which [`Input::Tick`] is needed.
    pub fn wake(&self) -> Moment {
        let poll = match &self.waiting {
            Some(waiting) => waiting.until,
            None => self.poll_due,
        };
        let guests = self.held.values().filter_map(|held| match held {
            Held::Running(due) | Held::Releasing { due, .. } => Some(*due),
            Held::Recording(_) | Held::Stopping(_) => None,
        });
        let reports = self.outbox.values().filter_map(|it| it.due);
        guests.chain(reports).fold(poll, Moment::min)
    }

    /// Returns the leases whose builds take resources of the host.
    pub fn busy(&self) -> impl Iterator<Item = Lease> {
        self.held.keys().copied()
    }

    /// Returns the current revision of each machine.
    pub fn revisions(&self) -> &BTreeMap<MachineName, Revision> {
        &self.revisions
    }

    /// Returns true if the host has a result that the farm does not have.
    pub fn has_results(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for (lease, held) in &mut self.held {
            match held {
                Held::Running(deadline) if *deadline <= now => {
                    *held = Held::Stopping(Next::Release);
                    effects.push(Effect::Stop(*lease));
                }
                Held::Releasing { due, is_unused } if *due <= now => {
                    *due = now.after(self.terms.request_ms);
                    let (lease, is_unused) = (*lease, *is_unused);
                    effects.push(Effect::Release(Release { lease, is_unused }));
                }
                _ => {}
            }
        }
        if self.waiting.as_ref().is_some_and(|it| it.until <= now) {
            self.waiting = None;
            self.poll_due = now;
        }
        if self.waiting.is_none() && self.poll_due <= now {
            effects.push(self.poll(now));
        }
        for (lease, pending) in &mut self.outbox {
            if pending.due.is_some_and(|due| due <= now) {
                pending.due = Some(now.after(self.terms.request_ms));
                effects.push(Effect::Report(Report {
                    lease: *lease,
                    outcome: pending.outcome,
                    message: None,
                }));
            }
        }
    }

    fn recorded(&mut self, now: Moment, lease: Lease, effects: &mut Vec<Effect>) {
        let Some(Held::Recording(deadline)) = self.held.get(&lease) else {
            return;
        };
        let deadline = *deadline;
        if now < deadline {
            effects.push(Effect::Start(lease, deadline));
            self.held.insert(lease, Held::Running(deadline));
        } else {
            self.held.insert(lease, releasing(now, true));
        }
    }

    /// Gives a lease back whose guest has not started, which is no loss. The farm waits longer each time.
    fn not_recorded(&mut self, now: Moment, lease: Lease) {
        if let Some(held @ Held::Recording(_)) = self.held.get_mut(&lease) {
            *held = releasing(now, true);
        }
    }

    fn ended(&mut self, now: Moment, lease: Lease, outcome: Outcome, effects: &mut Vec<Effect>) {
        match self.held.remove(&lease) {
            Some(Held::Stopping(Next::Forget)) => self.forget(now, lease, effects),
            Some(Held::Stopping(Next::Abort)) => self.conclude(lease, Outcome::Abort, effects),
            Some(_) => self.conclude(lease, outcome, effects),
            None => {}
        }
    }

    fn gone(&mut self, now: Moment, lease: Lease, is_unused: bool, effects: &mut Vec<Effect>) {
        match self.held.get(&lease) {
            Some(Held::Running(_) | Held::Stopping(Next::Release)) => {
                self.held.insert(lease, releasing(now, is_unused));
            }
            Some(Held::Stopping(Next::Forget)) => {
                self.held.remove(&lease);
                self.forget(now, lease, effects);
            }
            Some(Held::Stopping(Next::Abort)) => {
                self.held.remove(&lease);
                self.conclude(lease, Outcome::Abort, effects);
            }
            Some(Held::Recording(_) | Held::Releasing { .. }) | None => {}
        }
    }

    /// Deletes a lease whose guest has ended. Its resources are free.
    fn forget(&mut self, now: Moment, lease: Lease, effects: &mut Vec<Effect>) {
        effects.push(Effect::Forget(lease));
        self.poll_soon(now);
    }

    fn conclude(&mut self, lease: Lease, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.outbox.insert(lease, Pending { outcome, due: None });
        effects.push(Effect::Store(Report {
            lease,
            outcome,
            message: None,
        }));
    }

    fn stored(&mut self, now: Moment, lease: Lease, effects: &mut Vec<Effect>) {
        if let Some(pending) = self.outbox.get_mut(&lease) {
            pending.due = Some(now);
            self.tick(now, effects);
        }
    }

    fn settled(&mut self, now: Moment, lease: Lease, effects: &mut Vec<Effect>) {
        let released = matches!(self.held.get(&lease), Some(Held::Releasing { .. }));
        if released {
            self.held.remove(&lease);
        }
        if released || self.outbox.remove(&lease).is_some() {
            if let Some(waiting) = &mut self.waiting {
                waiting.settled.insert(lease);
            }
            self.forget(now, lease, effects);
        }
    }

    fn removed(&mut self, machine: &MachineName) {
        self.revisions.remove(machine);
        self.trials.remove(machine);
    }

    fn fetched(&mut self, now: Moment, machine: MachineName, revision: Revision) {
        self.fetching.remove(&machine);
        let current = self.revisions.entry(machine).or_default();
        *current = revision.max(*current);
        self.poll_soon(now);
    }
}

/// Returns the state of a lease that is given back.
fn releasing(due: Moment, is_unused: bool) -> Held {
    Held::Releasing { due, is_unused }
}

#[cfg(test)]
mod tests;
