//! The driver: it gives events to the state machine of the host, and executes its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::task::Outcome;
use config::{BuildId, MachineName};
use controllers::farm::{FarmError, FarmKey, Settled};
use farm_core::host::{Effect, HostAgent, Input};
use farm_core::messages::{Poll, PollAnswer, PollId, Report};
use farm_core::{Lease, Moment, Offer, Requirements, Revision, Terms};
use planner::Observed;
use state::{AgentState, LeaseEnd};
use telemetry::metrics::RequestResult;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::super::draw;
use super::lease::{End, end};
use super::transfers::Begun;
use super::{
    Failure, Farm, builds, note_answer, note_failure, offer, recovery, sources, transfers,
};

/// The longest time between two looks at the builds.
const LOOK: Duration = Duration::from_millis(300);
/// The time for which a granted build may wait in the queue of this host. Then others get it.
const WAIT_MAX: Duration = Duration::from_mins(10);

/// The pause before a revision that has not arrived is fetched again.
const FETCH_PAUSE: Duration = Duration::from_secs(5);

/// An event, or the end of a request that matters to the driver itself.
enum Event {
    /// An event of the state machine.
    Input(Input),
    /// A lease is on disk with its build.
    Submitted(Lease, Option<BuildId>),
    /// The farm has answered a result or a lease that was given back.
    Answered(Lease, Settled),
    /// The farm does not know the key of this host any more.
    KeyRefused(FarmError),
}

/// A build of this host that runs under a lease.
#[derive(Debug, Clone, Copy)]
struct Own {
    build: BuildId,
    /// The time at which it was seen first.
    since: Moment,
    /// True if the state machine knows its end.
    has_ended: bool,
}

/// The driver of one farm.
pub(super) struct Driver {
    agent: Arc<AgentState>,
    farm: Arc<Farm>,
    key: Arc<FarmKey>,
    terms: Terms,
    host: HostAgent,
    own: BTreeMap<Lease, Own>,
    /// The leases whose guests are being ended by the state machine.
    stopped: BTreeSet<Lease>,
    /// The leases that the farm has canceled.
    canceled: BTreeSet<Lease>,
    /// The offer of the last poll.
    offered: Offer,
    /// The observation that was compared with it.
    observed: Arc<Observed>,
    /// The answers with which leases are settled.
    answers: BTreeMap<Lease, String>,
    begun: Begun,
    sender: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
}

impl Driver {
    /// Recovers the state of a host, and returns the first effects.
    pub(super) async fn begin(
        agent: &Arc<AgentState>,
        farm: &Arc<Farm>,
        key: FarmKey,
        terms: Terms,
    ) -> Result<(Self, Vec<Effect>), Failure> {
        let (mut recovered, found) = recovery::recover(agent, farm).await?;
        recovered.revisions = agent
            .queue_snapshot()
            .observed
            .host_state()
            .machines
            .into_iter()
            .map(|(name, (revision, _))| (name, farm_core::Revision(revision.0.into())))
            .collect();
        let now = now();
        let own = |build| Own {
            build,
            since: now,
            has_ended: false,
        };
        let own = found.into_iter().map(|(lease, build)| (lease, own(build)));
        let mut own: BTreeMap<_, _> = own.collect();
        for (lease, own) in &mut own {
            own.has_ended = !recovered.guests.contains_key(lease);
        }
        let (host, effects) = HostAgent::new(terms, draw(), now, recovered);
        let (sender, events) = unbounded_channel();
        let driver = Self {
            agent: Arc::clone(agent),
            farm: Arc::clone(farm),
            key: Arc::new(key),
            terms,
            host,
            own,
            stopped: BTreeSet::new(),
            canceled: BTreeSet::new(),
            offered: Offer::default(),
            observed: Arc::default(),
            answers: BTreeMap::new(),
            begun: Begun::default(),
            sender,
            events,
        };
        Ok((driver, effects))
    }

    /// Drives the host until the agent stops, or until its key is refused.
    pub(super) async fn run(mut self, mut effects: Vec<Effect>) -> Result<(), Failure> {
        loop {
            for effect in std::mem::take(&mut effects) {
                self.execute(effect).await;
            }
            let left = Duration::from_millis(self.host.wake().since(now()));
            let agent = Arc::clone(&self.agent);
            let event = tokio::select! {
                () = agent.stopping.cancelled() => return Ok(()),
                event = timeout(left.min(LOOK), self.events.recv()) => event.ok().flatten(),
            };
            let mut inputs = match event {
                None => Vec::new(),
                Some(Event::KeyRefused(error)) => return Err(error.into()),
                Some(event) => self.inputs(event).await,
            };
            inputs.extend(self.look().await?);
            if self.has_other_offer() {
                inputs.push(Input::OfferChanged);
            }
            for input in inputs {
                effects.extend(self.host.step(now(), input));
            }
            if self.host.wake() <= now() {
                effects.extend(self.host.step(now(), Input::Tick));
            }
        }
    }

    /// Returns what an event means for the state machine.
    async fn inputs(&mut self, event: Event) -> Vec<Input> {
        match event {
            Event::Input(Input::Answered(answer)) => {
                let canceled = answer.leases.iter().filter(|it| it.canceled);
                self.canceled.extend(canceled.map(|it| it.lease));
                vec![Input::Answered(self.accept(answer))]
            }
            Event::Input(input) => vec![input],
            Event::Submitted(lease, build) => {
                if let Some(build) = build {
                    let (since, has_ended) = (now(), false);
                    let own = Own {
                        build,
                        since,
                        has_ended,
                    };
                    self.own.insert(lease, own);
                    if !self.host.busy().any(|it| it == lease) {
                        // The lease was over before it was on disk.
                        self.forget(lease).await;
                    }
                }
                vec![Input::Recorded(lease)]
            }
            Event::Answered(lease, settled) => {
                let answer = match settled {
                    Settled::Recorded => "the farm has it".to_owned(),
                    Settled::Stale(reason) => {
                        let name = &self.farm.rules.name;
                        warn!(controller = %name, %lease, reason, "a farm refuses a result or a lease");
                        reason
                    }
                };
                self.answers.insert(lease, answer);
                vec![Input::Settled(lease)]
            }
            Event::KeyRefused(_) => Vec::new(),
        }
    }

    /// Returns the ends of builds since the last look. Builds that wait too long are ended.
    async fn look(&mut self) -> Result<Vec<Input>, Failure> {
        let running = self.own.iter().filter(|(_, own)| !own.has_ended);
        let running: Vec<_> = running.map(|(lease, own)| (*lease, *own)).collect();
        let mut inputs = Vec::new();
        for (lease, own) in running {
            let build = self.agent.records.get(own.build).await?;
            let ended = build.as_ref().map_or(Some(End::Lost), end);
            if let Some(ended) = ended {
                self.agent.lease_deadlines.remove(own.build);
                self.own.insert(
                    lease,
                    Own {
                        has_ended: true,
                        ..own
                    },
                );
                inputs.push(match ended {
                    // The end of a canceled build, which is no result of its guest.
                    End::Result(Outcome::Abort) if self.stopped.contains(&lease) => {
                        Input::Gone(lease)
                    }
                    End::Result(outcome) => Input::Ended(lease, outcome),
                    End::Lost => Input::Gone(lease),
                });
            } else if build.as_ref().is_some_and(builds::waits)
                && let Some(reason) = self.too_long(own.since)
            {
                self.end(lease, &reason).await;
            }
        }
        Ok(inputs)
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

    async fn end(&self, lease: Lease, reason: &str) {
        if let Some(own) = self.own.get(&lease) {
            let end = LeaseEnd::Revoked(reason.to_owned());
            builds::end(&self.agent, own.build, end).await;
        }
    }

    async fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Poll { id, held, hold_ms } => self.poll(id, held, hold_ms),
            Effect::Record(lease, needs) => self.record(lease, needs),
            Effect::Start(lease, until) | Effect::Guard(lease, until) => {
                if let Some(own) = self.own.get(&lease) {
                    builds::permit(&self.agent, own.build, until).await;
                    self.agent.wake.notify_one();
                } else {
                    self.give(Input::Gone(lease));
                }
            }
            Effect::Stop(lease) => self.stop(lease).await,
            Effect::Store(report) => self.store(report).await,
            Effect::Report(report) => self.report(report),
            Effect::Release(lease) => self.release(lease),
            Effect::Forget(lease) => self.forget(lease).await,
            Effect::Fetch(machine, revision) => self.fetch(machine, revision),
        }
    }

    /// Begins the transfers of an answer, and leaves out the machines that this host does not take.
    fn accept(&mut self, mut answer: PollAnswer) -> PollAnswer {
        for order in self.begun.new_ones(std::mem::take(&mut answer.transfers)) {
            let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
            tokio::spawn(transfers::send(agent, farm, Arc::clone(&self.key), order));
        }
        let rules = &self.farm.rules;
        answer
            .published
            .retain(|machine, _| rules.preference(machine).is_some());
        answer
    }

    /// Fetches a revision. After a failure the state machine begins again with a later answer.
    fn fetch(&self, machine: MachineName, revision: Revision) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        let (key, sender) = (Arc::clone(&self.key), self.sender.clone());
        tokio::spawn(async move {
            let input = if transfers::fetch(&agent, &farm, &key, &machine, revision).await {
                Input::Fetched(machine, revision)
            } else {
                sleep(FETCH_PAUSE).await;
                Input::NotFetched(machine)
            };
            let _ = sender.send(Event::Input(input));
        });
    }

    fn give(&self, input: Input) {
        // The receiver is this driver's own.
        let _ = self.sender.send(Event::Input(input));
    }

    /// Sends a poll, to each coordinator once until one answers.
    fn poll(&mut self, id: PollId, held: Vec<Lease>, hold_ms: u64) {
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
        };
        // The state machine sends another one then.
        tokio::spawn(timeout(limit, polls));
    }

    fn offer(&self) -> Offer {
        let snapshot = self.agent.queue_snapshot();
        let observed = &snapshot.observed;
        let is_frozen = |key: &config::ImageKey| {
            let mode = observed.start_modes.get(key);
            mode.is_some_and(|it| it.start == config::builds::StartKind::Restored)
        };
        let mut offered = offer::offer(observed.host_state(), &self.farm.rules, is_frozen, |_| {
            false
        });
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
    fn has_other_offer(&mut self) -> bool {
        let observed = self.agent.queue_snapshot().observed;
        if Arc::ptr_eq(&observed, &self.observed) {
            return false;
        }
        self.observed = observed;
        let offer = self.offer();
        offer::differs(&offer, &self.offered)
    }

    /// Fetches the sources of a build, and writes its lease with it, repeatedly until that succeeds.
    fn record(&self, lease: Lease, needs: Requirements) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        let (key, sender) = (Arc::clone(&self.key), self.sender.clone());
        tokio::spawn(async move {
            if !sources::fetch(&agent, &farm, &key, &needs.work.sources).await {
                let _ = sender.send(Event::Input(Input::NotRecorded(lease)));
                return;
            }
            while !agent.stopping.is_cancelled() {
                match builds::submit(&agent, &farm, lease, &needs).await {
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

    async fn stop(&mut self, lease: Lease) {
        let Some(own) = self.own.get(&lease).copied() else {
            return self.give(Input::Gone(lease));
        };
        self.stopped.insert(lease);
        let reason = if self.canceled.contains(&lease) {
            LeaseEnd::Withdrawn("it was canceled in the farm".to_owned())
        } else {
            LeaseEnd::Revoked("the farm did not confirm it in time".to_owned())
        };
        builds::end(&self.agent, own.build, reason).await;
    }

    /// Writes a result. That of a build which has run is in its record already.
    async fn store(&mut self, report: Report) {
        let lease = report.lease;
        let is_canceled = report.outcome == Outcome::Abort && self.canceled.contains(&lease);
        if let Some(own) = self.own.get(&lease).copied().filter(|_| is_canceled) {
            if !builds::mark_canceled(&self.agent, own.build).await {
                return;
            }
            let reason = LeaseEnd::Withdrawn("it was canceled in the farm".to_owned());
            builds::end(&self.agent, own.build, reason).await;
        }
        self.give(Input::Stored(lease));
    }

    fn report(&self, report: Report) {
        let (farm, key) = (Arc::clone(&self.farm), Arc::clone(&self.key));
        let limit = Duration::from_millis(self.terms.request_ms);
        let sent = async move { farm.client.report(&key, &report, limit).await };
        self.settle(report.lease, sent);
    }

    fn release(&self, lease: Lease) {
        let (farm, key) = (Arc::clone(&self.farm), Arc::clone(&self.key));
        let limit = Duration::from_millis(self.terms.request_ms);
        let sent = async move { farm.client.release(&key, &lease, limit).await };
        self.settle(lease, sent);
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

    async fn forget(&mut self, lease: Lease) {
        self.stopped.remove(&lease);
        self.canceled.remove(&lease);
        let answer = self.answers.remove(&lease);
        let Some(own) = self.own.remove(&lease) else {
            return;
        };
        let is_over = LeaseEnd::Revoked("the farm has ended it".to_owned());
        builds::end(&self.agent, own.build, is_over).await;
        let answer = answer.unwrap_or_else(|| "the lease was over".to_owned());
        builds::settle(&self.agent, own.build, answer).await;
    }
}

/// Returns the time on the clock of guards.
fn now() -> Moment {
    Moment(guard::now().0)
}
