//! The requests of a host to its farm, and the writes of its leases. Each is a task, whose end is an event
//! of the driver.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use controllers::farm::{FarmError, Settled};
use farm_core::host::Input;
use farm_core::messages::{Poll, PollId, Release, Report};
use farm_core::{Lease, Requirements, Revision};
use telemetry::metrics::RequestResult;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::super::{builds, note_answer, note_failure, sources};
use super::{Driver, Event};

impl Driver {
    /// Sends a poll, to each coordinator once until one answers.
    pub(super) fn poll(&mut self, id: PollId, held: Vec<Lease>, hold_ms: u64) {
        let offer = self.offer();
        self.offered = offer.clone();
        let poll = Poll {
            id,
            held,
            hold_ms,
            offer,
        };
        let (farm, key) = (Arc::clone(&self.farm), Arc::clone(&self.key));
        let (agent, sender) = (Arc::clone(&self.agent), self.sender.clone());
        let known: BTreeSet<_> = poll.held.iter().copied().collect();
        let limit = Duration::from_millis(hold_ms + self.terms.request_ms);
        let polls = async move {
            for _ in 0..farm.client.coordinators() {
                match farm.client.poll(&key, &poll, limit).await {
                    Ok(answer) => {
                        let is_new = answer.leases.iter().any(|it| !known.contains(&it.lease));
                        note_answer(
                            &agent,
                            &farm,
                            if is_new {
                                RequestResult::Task
                            } else {
                                RequestResult::NoTask
                            },
                        );
                        let _ = sender.send(Event::Input(Input::Answered(answer)));
                        return;
                    }
                    Err(error @ FarmError::Key { .. }) => {
                        let _ = sender.send(Event::KeyRefused(error));
                        return;
                    }
                    Err(error) => note_failure(&agent, &farm, &error),
                }
            }
            let _ = sender.send(Event::Input(Input::Unanswered(id)));
        };
        // The state machine sends another one then.
        tokio::spawn(timeout(limit, polls));
    }

    /// Fetches the sources of a build, and writes its lease with it, repeatedly until that succeeds.
    pub(super) fn record(&self, lease: Lease, needs: Requirements, trial: Option<Revision>) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        let (key, sender) = (Arc::clone(&self.key), self.sender.clone());
        tokio::spawn(async move {
            if !sources::fetch(&agent, &farm, &key, &needs.work.sources).await {
                let _ = sender.send(Event::Input(Input::NotRecorded(lease)));
                return;
            }
            while !agent.stopping.is_cancelled() {
                match builds::submit(&agent, &farm, lease, &needs, trial).await {
                    Ok(build) => {
                        let build = build.map(|it| it.id);
                        let _ = sender.send(Event::Submitted(lease, build));
                        return;
                    }
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        warn!(%lease, error, "cannot record a lease; trying again");
                    }
                }
                sleep(builds::WRITE_PAUSE).await;
            }
        });
    }

    /// Sends a result with the message of its build.
    pub(super) fn report(&self, mut report: Report) {
        let (farm, key) = (Arc::clone(&self.farm), Arc::clone(&self.key));
        let (agent, build) = (
            Arc::clone(&self.agent),
            self.own.get(&report.lease).map(|it| it.build),
        );
        let limit = Duration::from_millis(self.terms.request_ms);
        let lease = report.lease;
        let sent = async move {
            report.message = builds::message(&agent, build).await;
            farm.client.report(&key, &report, limit).await
        };
        self.settle(lease, sent);
    }

    pub(super) fn release(&self, release: Release) {
        let (farm, key) = (Arc::clone(&self.farm), Arc::clone(&self.key));
        let limit = Duration::from_millis(self.terms.request_ms);
        let sent = async move { farm.client.release(&key, &release, limit).await };
        self.settle(release.lease, sent);
    }

    /// Sends a request that settles a lease. The state machine repeats one that fails.
    fn settle(
        &self,
        lease: Lease,
        sent: impl Future<Output = Result<Settled, FarmError>> + Send + 'static,
    ) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        let (sender, build) = (self.sender.clone(), self.own.get(&lease).map(|it| it.build));
        tokio::spawn(async move {
            match sent.await {
                Ok(settled) => {
                    let _ = sender.send(Event::Answered(lease, settled));
                }
                Err(FarmError::Refused { reason, .. }) => {
                    let _ = sender.send(Event::Answered(lease, Settled::Stale(reason)));
                }
                Err(error) => {
                    note_failure(&agent, &farm, &error);
                    if let Some(build) = build {
                        let _ = agent.records.lease_failed(build, error.to_string()).await;
                    }
                }
            }
        });
    }
}
