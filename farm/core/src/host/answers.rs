//! The answers to polls: new leases, confirmed ones, and those that are over.

use std::collections::BTreeSet;

use config::MachineName;
use config::task::Outcome;

use super::{Effect, Grant, Held, HostAgent, Next, PollAnswer, Waiting};
use crate::{Lease, Moment, Published};

impl HostAgent {
    /// Compares the leases of the host with the answer to its last poll. Answers to others are ignored.
    pub(super) fn answered(&mut self, now: Moment, answer: PollAnswer, effects: &mut Vec<Effect>) {
        let Some(waiting) = self.waiting.take_if(|it| it.id == answer.id) else {
            return;
        };
        self.unanswered = 0;
        self.poll_due = now.after(self.terms.poll_ms);
        let deadline = self.terms.deadline(waiting.sent);
        let granted: BTreeSet<_> = answer.leases.iter().map(|it| it.lease).collect();
        for grant in answer.leases {
            self.granted(deadline, &waiting, grant, effects);
        }
        for lease in waiting.listed {
            if !granted.contains(&lease) {
                self.revoke(lease, effects);
            }
        }
        for (machine, wanted) in answer.published {
            self.published(machine, wanted, effects);
        }
        for (machine, order) in answer.trials {
            self.ordered(machine, order, effects);
        }
    }

    fn granted(
        &mut self,
        deadline: Moment,
        waiting: &Waiting,
        grant: Grant,
        effects: &mut Vec<Effect>,
    ) {
        let lease = grant.lease;
        if waiting.settled.contains(&lease) || self.outbox.contains_key(&lease) {
            return;
        }
        match self.held.get_mut(&lease) {
            Some(Held::Stopping(next @ Next::Release)) if grant.canceled => *next = Next::Abort,
            Some(Held::Stopping(_) | Held::Releasing { .. }) => {}
            Some(held @ Held::Running(_)) if grant.canceled => {
                *held = Held::Stopping(Next::Abort);
                effects.push(Effect::Stop(lease));
            }
            _ if grant.canceled => {
                self.held.remove(&lease);
                self.conclude(lease, Outcome::Abort, effects);
            }
            Some(Held::Running(current)) => {
                if *current < deadline {
                    *current = deadline;
                    effects.push(Effect::Guard(lease, deadline));
                }
            }
            Some(Held::Recording(current)) => *current = deadline.max(*current),
            None => {
                self.held.insert(lease, Held::Recording(deadline));
                effects.push(Effect::Record(lease, grant.requirements, grant.trial));
            }
        }
    }

    /// Ends a lease that the farm has given to others. A result stays until it was reported.
    fn revoke(&mut self, lease: Lease, effects: &mut Vec<Effect>) {
        match self.held.get_mut(&lease) {
            Some(held @ Held::Running(_)) => {
                *held = Held::Stopping(Next::Forget);
                effects.push(Effect::Stop(lease));
            }
            Some(Held::Stopping(next)) => *next = Next::Forget,
            Some(Held::Recording(_) | Held::Releasing { .. }) => {
                self.held.remove(&lease);
                effects.push(Effect::Forget(lease));
            }
            None => {}
        }
    }

    /// Fetches a newer revision, one at a time of each machine.
    fn published(&mut self, machine: MachineName, wanted: Published, effects: &mut Vec<Effect>) {
        let current = self.revisions.get(&machine).copied().unwrap_or_default();
        if wanted.revision > current && self.fetching.insert(machine.clone()) {
            effects.push(Effect::Fetch(machine, wanted));
        }
    }
}
