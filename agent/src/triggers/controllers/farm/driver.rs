//! The driver: it gives events to the state machine of the host, and executes its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::task::{Digest, Outcome};
use config::{BuildId, MachineName};
use controllers::farm::{FarmError, FarmKey, Settled};
use farm_core::host::{Effect, HostAgent, Input};
use farm_core::messages::{PollAnswer, Report};
use farm_core::trials::TrialOrder;
use farm_core::{Lease, Moment, Offer, Terms};
use planner::Observed;
use state::{AgentState, LeaseEnd};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tracing::warn;

use super::super::draw;
use super::contents::{Contents, OfferedRevision};
use super::transfers::Begun;
use super::{Failure, Farm, builds, offer, recovery, revisions, transfers};
use looks::LastLook;

mod looks;
mod machines;
mod requests;

/// The longest time between two looks at what this host offers.
const PERIOD: Duration = Duration::from_millis(300);

/// An event, or the end of a request that matters to the driver itself.
enum Event {
    /// An event of the state machine.
    Input(Input),
    /// A lease is on disk with its build.
    Submitted(Lease, Option<BuildId>),
    /// The farm has answered a result or a lease that was given back.
    Answered(Lease, Settled),
    /// The content of an offered revision was read.
    Content(MachineName, OfferedRevision, Option<Digest>),
    /// This host has other content under the number of a revision that the farm has on trial.
    NotTried(MachineName, TrialOrder),
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
    /// The contents of the offered revisions.
    contents: Contents,
    /// The trials that cannot begin here, because this host has other content under the number.
    not_tried: BTreeMap<MachineName, TrialOrder>,
    /// The answers with which leases are settled.
    answers: BTreeMap<Lease, String>,
    begun: Begun,
    looked: LastLook,
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
        let observed = agent.queue_snapshot().observed;
        let machines = observed.host_state().machines.into_iter();
        let revisions = machines.map(|(name, it)| (name, offer::number(it.revision)));
        recovered.revisions = revisions.collect();
        recovered.trials = revisions::trials_of(&observed, &farm.rules.name);
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
            contents: Contents::default(),
            not_tried: BTreeMap::new(),
            answers: BTreeMap::new(),
            begun: Begun::default(),
            looked: LastLook::default(),
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
                event = self.events.recv() => event,
                () = looks::build_ended(&agent, &self.looked) => None,
                () = sleep(left.min(PERIOD)) => None,
            };
            let mut inputs = match event {
                None => Vec::new(),
                Some(Event::KeyRefused(error)) => return Err(error.into()),
                Some(event) => self.inputs(event).await,
            };
            inputs.extend(self.look().await?);
            inputs.extend(self.look_at_machines());
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
            Event::Content(machine, of, content) => {
                let is_new = self.contents.note(&machine, &of, content, Instant::now());
                let changed = is_new.then_some(Input::OfferChanged);
                changed.into_iter().collect()
            }
            Event::NotTried(machine, order) => {
                self.not_tried.insert(machine, order);
                Vec::new()
            }
            Event::KeyRefused(_) => Vec::new(),
        }
    }

    async fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Poll { id, held, hold_ms } => self.poll(id, held, hold_ms),
            Effect::Record(lease, needs, trial) => self.record(lease, needs, trial),
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
            Effect::Release(release) => self.release(release),
            Effect::Forget(lease) => self.forget(lease).await,
            Effect::Fetch(machine, wanted) => self.fetch(machine, wanted),
            Effect::Try(machine, order) => self.try_revision(machine, order),
            Effect::EndTrial(machine, order) => self.end_trial(machine, order),
        }
    }

    /// Begins the transfers of an answer, and leaves out the machines that this host does not take.
    fn accept(&mut self, mut answer: PollAnswer) -> PollAnswer {
        for order in self.begun.new_ones(std::mem::take(&mut answer.transfers)) {
            let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
            tokio::spawn(transfers::send(agent, farm, Arc::clone(&self.key), order));
        }
        let rules = &self.farm.rules;
        let is_taken = |machine: &MachineName| rules.preference(machine).is_some();
        answer.published.retain(|machine, _| is_taken(machine));
        answer.trials.retain(|machine, _| is_taken(machine));
        self.compare(&answer);
        answer
    }

    fn give(&self, input: Input) {
        // The receiver is this driver's own.
        let _ = self.sender.send(Event::Input(input));
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
