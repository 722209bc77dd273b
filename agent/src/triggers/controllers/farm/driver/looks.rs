//! The looks at the builds of this host that run under leases, and at what it offers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::builds::{Build, StartKind};
use config::task::Outcome;
use config::{ImageKey, MachineName};
use farm_core::host::Input;
use farm_core::{Lease, Moment, Offer};
use state::{AgentState, LeaseEnd};

use super::super::lease::{End, end};
use super::super::{Failure, builds, offer};
use super::{Driver, Own, now};

/// The longest time between two looks at the builds, of which some may wait too long. The end of one is
/// noticed at once.
const PERIOD: Duration = Duration::from_secs(1);
/// The time for which a granted build may wait in the queue of this host. Then others get it.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// The last look at the builds.
#[derive(Debug, Default)]
pub(super) struct LastLook {
    at: Option<Instant>,
    /// The number of builds of this host that had ended by then.
    finished: u64,
}

/// Waits until a build of this host ends that was not looked at.
pub(super) async fn build_ended(agent: &AgentState, last: &LastLook) {
    let events = &agent.telemetry.events;
    let mut newest = events.subscribe();
    while events.finished() == last.finished {
        // The sender lives as long as the agent.
        if newest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Driver {
    /// Returns the ends of builds since the last look, if one is due.
    pub(super) async fn look(&mut self) -> Result<Vec<Input>, Failure> {
        let finished = self.agent.telemetry.events.finished();
        let is_due = self.looked.at.is_none_or(|it| it.elapsed() >= PERIOD);
        if finished == self.looked.finished && !is_due {
            return Ok(Vec::new());
        }
        self.looked = LastLook {
            at: Some(Instant::now()),
            finished,
        };
        let running = self.own.iter().filter(|(_, own)| !own.has_ended);
        let running: Vec<_> = running.map(|(lease, own)| (*lease, *own)).collect();
        if running.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = running.iter().map(|(_, own)| own.build).collect();
        let found = self.agent.records.several(&ids).await?;
        let mut inputs = Vec::new();
        for (lease, own) in running {
            let build = found.iter().find(|it| it.id == own.build);
            inputs.extend(self.look_at(lease, own, build).await);
        }
        Ok(inputs)
    }

    /// Returns the end of a build. One that waits too long is ended.
    async fn look_at(&mut self, lease: Lease, own: Own, build: Option<&Build>) -> Option<Input> {
        let Some(ended) = build.map_or(Some(End::Lost), end) else {
            if build.is_some_and(builds::waits)
                && let Some(reason) = self.too_long(own.since)
            {
                builds::end(&self.agent, own.build, LeaseEnd::Revoked(reason)).await;
            }
            return None;
        };
        self.agent.lease_deadlines.remove(own.build);
        let has_ended = true;
        self.own.insert(lease, Own { has_ended, ..own });
        Some(match ended {
            // The end of a canceled build, which is no result of its guest.
            End::Result(Outcome::Abort) if self.stopped.contains(&lease) => Input::Gone(lease),
            End::Result(outcome) => Input::Ended(lease, outcome),
            End::Lost => Input::Gone(lease),
            End::Unused => Input::Unused(lease),
        })
    }

    /// Returns the reason for which a build does not wait any longer.
    fn too_long(&self, since: Moment) -> Option<String> {
        if let Some(drained) = self.agent.drained() {
            return Some(drained.message());
        }
        let most = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
        (now().since(since) > most)
            .then(|| "it waited too long in the queue of this host".to_owned())
    }

    pub(super) fn offer(&self) -> Offer {
        let snapshot = self.agent.queue_snapshot();
        let observed = &snapshot.observed;
        let is_frozen = |key: &ImageKey| {
            let mode = observed.start_modes.get(key);
            mode.is_some_and(|it| it.start == StartKind::Restored)
        };
        let is_cached = |key: &ImageKey| {
            let cache = self.agent.caches.of(&key.machine, &key.toolchain);
            cache.is_some_and(|it| it.has_entries())
        };
        let host = observed.host_state();
        let content = |machine: &MachineName, it| self.contents.of(observed, machine, it);
        let mut offered = offer::offer(host, &self.farm.rules, is_frozen, is_cached, content);
        // Those that the scheduler has not seen yet.
        let unseen = self.own.values().filter(|own| {
            let is_queued = observed.queue.iter().any(|it| it.id == own.build);
            !own.has_ended && !is_queued && !observed.jobs.builds.contains_key(&own.build)
        });
        offered.free.guests = offered.free.guests.saturating_sub(unseen.count() as u64);
        offered
    }

    /// Returns true if the scheduler has observed something since the last poll that matters for the
    /// placement of builds. Free memory alone changes all the time.
    pub(super) fn has_other_offer(&mut self) -> bool {
        let observed = self.agent.queue_snapshot().observed;
        if Arc::ptr_eq(&observed, &self.observed) {
            return false;
        }
        self.observed = observed;
        let offer = self.offer();
        offer::differs(&offer, &self.offered)
    }
}
