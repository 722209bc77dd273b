//! The polls of a host, and the time for which it waits for their answers.

use std::collections::BTreeSet;

use super::{Effect, Held, HostAgent, PollId, Waiting};
use crate::Moment;

/// The limits of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    /// The time for which the coordinator may hold it.
    hold_ms: u64,
    /// The time after which it is given up.
    answer_ms: u64,
}

/// The most doublings of the pause after polls that were refused.
const DOUBLINGS_MAX: u32 = 6;

impl HostAgent {
    /// Notes that a poll gets no answer. The next one is not long in coming, so that a farm that was away for
    /// a moment has its hosts back at once: the first pauses are short.
    pub(super) fn unanswered(&mut self, now: Moment, poll: PollId) {
        if self.waiting.take_if(|it| it.id == poll).is_some() {
            let pause = self.terms.poll_ms << self.unanswered.min(DOUBLINGS_MAX);
            self.unanswered = self.unanswered.saturating_add(1);
            self.poll_due = now.after(pause.min(self.terms.request_ms));
        }
    }

    /// Returns the limits of a poll that is sent now.
    ///
    /// A host without guests may wait for long. A guest ends at its deadline, which only an answer moves:
    /// one quarter of what is left is for the hold, and after one half the poll is repeated. So two polls
    /// in a row may get lost.
    fn patience(&self, now: Moment) -> Patience {
        let terms = &self.terms;
        let calm = Patience {
            hold_ms: terms.hold_ms,
            answer_ms: terms.hold_ms.saturating_add(terms.request_ms),
        };
        let deadlines = self.held.values().filter_map(|held| match held {
            Held::Recording(deadline) | Held::Running(deadline) => Some(*deadline),
            Held::Releasing { .. } | Held::Stopping(_) => None,
        });
        deadlines.min().map_or(calm, |deadline| {
            let left = deadline.since(now);
            let least = terms.request_ms / 3;
            Patience {
                hold_ms: calm.hold_ms.min(left / 4),
                answer_ms: calm.answer_ms.min(least.max(left / 2)),
            }
        })
    }

    /// Returns a poll, which replaces an earlier one.
    pub(super) fn poll(&mut self, now: Moment) -> Effect {
        self.polls += 1;
        let id = PollId {
            incarnation: self.incarnation,
            number: self.polls,
        };
        let listed: Vec<_> = self
            .held
            .keys()
            .chain(self.outbox.keys())
            .copied()
            .collect();
        let patience = self.patience(now);
        self.waiting = Some(Waiting {
            id,
            sent: now,
            until: now.after(patience.answer_ms),
            listed: listed.clone(),
            settled: BTreeSet::new(),
        });
        Effect::Poll {
            id,
            held: listed,
            hold_ms: patience.hold_ms,
        }
    }

    /// Polls without waiting for the answer to a poll that is held, because the offer has changed. Many
    /// changes at once make one poll.
    pub(super) fn poll_soon(&mut self, now: Moment) {
        match &mut self.waiting {
            Some(waiting) => {
                let soon = waiting.sent.after(self.terms.poll_ms).max(now);
                waiting.until = waiting.until.min(soon);
            }
            None => self.poll_due = now,
        }
    }
}
