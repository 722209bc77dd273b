//! Polls of hosts: a sign of life, a placement, a claim.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;

use super::{FarmView, Step};
use crate::messages::{Grant, Poll, PollAnswer, Reply};
use crate::operation::{Answer, Operation, Unknown};
use crate::placement::{Placement, place};
use crate::trials::Trial;
use crate::{HostId, Moment, Published, Terms};

/// The most builds of one submitter and machine that a placement looks at.
const CANDIDATES_MAX: u64 = 32;

/// A poll that is being handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollHandling {
    host: HostId,
    poll: Poll,
    hold_until: Moment,
    beat: u64,
    drained: bool,
    /// The time at which the next window of the host begins.
    window: Option<Moment>,
    leases: Vec<Grant>,
    published: BTreeMap<MachineName, Published>,
    trials: BTreeMap<MachineName, Trial>,
}

impl PollHandling {
    pub(super) fn begin(host: HostId, poll: Poll, terms: Terms, now: Moment) -> (Self, Step) {
        let beat = Operation::Beat(host, poll.offer.clone());
        let hold_ms = poll.hold_ms.min(terms.hold_ms);
        let handling = Self {
            host,
            poll,
            hold_until: now.after(hold_ms),
            beat: 0,
            drained: false,
            window: None,
            leases: Vec::new(),
            published: BTreeMap::new(),
            trials: BTreeMap::new(),
        };
        (handling, Step::Ask(beat))
    }

    pub(super) fn answered(
        &mut self,
        now: Moment,
        view: &FarmView,
        answer: Result<Answer, Unknown>,
    ) -> Step {
        match answer {
            Ok(Answer::Beaten {
                beat,
                leases,
                published,
                trials,
                drained,
                opens_in_ms,
            }) => {
                self.window = opens_in_ms.map(|it| now.after(it));
                self.beat = beat;
                self.leases = leases;
                self.published = published;
                self.trials = trials;
                self.drained = drained;
                if self.has_news() {
                    return self.reply();
                }
                if self.can_take() {
                    return self.look();
                }
                self.wait(now)
            }
            Ok(Answer::Candidates {
                builds,
                used_ms,
                vacancies,
            }) => {
                let picks = place(&Placement {
                    host: self.host,
                    offer: &self.poll.offer,
                    published: &self.published,
                    trials: &self.trials,
                    vacancies: &vacancies,
                    builds: &builds,
                    used_ms: &used_ms,
                    hosts: &view.hosts,
                    opens_in_ms: self.window.map(|it| it.since(now)),
                });
                if !picks.is_empty() {
                    return Step::Ask(Operation::Claim {
                        host: self.host,
                        beat: self.beat,
                        picks,
                    });
                }
                self.wait(now)
            }
            Ok(Answer::Claimed(claimed)) => {
                self.leases.extend(claimed);
                self.reply()
            }
            Ok(Answer::Overtaken) => self.reply(),
            Ok(Answer::NotFound) => Step::Reply(Reply::NotFound(format!(
                "host {} does not exist in the farm; it must enrol again",
                self.host.0
            ))),
            // A claim that was committed all the same is granted by the next poll.
            Ok(_) | Err(Unknown) => Step::Reply(Reply::Unavailable),
        }
    }

    /// Returns the host.
    pub(super) fn host(&self) -> HostId {
        self.host
    }

    pub(super) fn waited(&mut self, now: Moment) -> Step {
        if now < self.hold_until && self.can_take() {
            return self.look();
        }
        self.wait(now)
    }

    /// Answers at once, because there are orders for the host or the coordinator ends.
    pub(super) fn hurried(&self) -> Step {
        self.reply()
    }

    /// Returns true if the host can start builds now. The poll of one that cannot is a sign of life only.
    fn can_take(&self) -> bool {
        let offer = &self.poll.offer;
        let is_ready = offer.halt.is_none() && offer.free.guests > 0;
        is_ready && !offer.machines.is_empty() && !self.drained
    }

    /// Returns true if the host does not know one of its leases, or a cancellation.
    fn has_news(&self) -> bool {
        let held: BTreeSet<_> = self.poll.held.iter().copied().collect();
        let known: BTreeSet<_> = self.leases.iter().map(|it| it.lease).collect();
        held != known || self.leases.iter().any(|it| it.canceled)
    }

    fn look(&self) -> Step {
        Step::Ask(Operation::Candidates {
            machines: self.poll.offer.machines.keys().cloned().collect(),
            most: CANDIDATES_MAX,
        })
    }

    fn wait(&self, now: Moment) -> Step {
        if now >= self.hold_until {
            return self.reply();
        }
        Step::Wait(self.hold_until)
    }

    fn reply(&self) -> Step {
        let trials = self.trials.iter();
        let orders = trials.filter_map(|(machine, it)| Some((machine.clone(), it.order()?)));
        Step::Reply(Reply::Leases(PollAnswer {
            id: self.poll.id,
            leases: self.leases.clone(),
            published: self.published.clone(),
            trials: orders.collect(),
            transfers: Vec::new(),
        }))
    }
}
