//! The time for which a host waits for the answer to a poll.

use super::{Held, HostAgent};
use crate::Moment;

/// The limits of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// The time for which the coordinator may hold it.
    pub(super) hold_ms: u64,
    /// The time after which it is given up.
    pub(super) answer_ms: u64,
}

impl HostAgent {
    /// Returns the limits of a poll that is sent now.
    ///
    /// A host without guests may wait for long. A guest ends at its deadline, which only an answer moves:
    /// one quarter of what is left is for the hold, and after one half the poll is repeated. So two polls
    /// in a row may get lost.
    pub(super) fn patience(&self, now: Moment) -> Patience {
        let terms = &self.terms;
        let calm = Patience {
            hold_ms: terms.hold_ms,
            answer_ms: terms.hold_ms.saturating_add(terms.request_ms),
        };
        let deadlines = self.held.values().filter_map(|held| match held {
            Held::Recording(deadline) | Held::Running(deadline) => Some(*deadline),
            Held::Releasing(_) | Held::Stopping(_) => None,
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
}
