//! A host whose guests end at once: the state machine of `farm_core` over real coordinators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::task::Outcome;
use farm::coordinator::Coordinator;
use farm_core::host::{Effect, HostAgent, Input, OnDisk, Recovered};
use farm_core::messages::{Poll, Reply, Request};
use farm_core::{Capacity, HostId, Lease, Moment, Offer, OfferedMachine};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::farm::TERMS;

/// The guests that a host runs at once.
const GUESTS: u64 = 8;

/// A host, which is killed when its task is aborted.
pub(crate) fn start(
    number: u64,
    coordinators: Vec<Arc<Coordinator>>,
    disk: BTreeMap<Lease, OnDisk>,
) -> JoinHandle<()> {
    tokio::spawn(run(HostId(number), coordinators, disk))
}

async fn run(host: HostId, coordinators: Vec<Arc<Coordinator>>, disk: BTreeMap<Lease, OnDisk>) {
    let started = Instant::now();
    let now = || Moment(u64::try_from(started.elapsed().as_millis()).unwrap());
    let recovered = Recovered {
        disk,
        ..Recovered::default()
    };
    let incarnation = host.0 << 32 | u64::from(std::process::id());
    let (mut agent, first) = HostAgent::new(TERMS, incarnation, now(), recovered);
    let (inputs, mut events) = unbounded_channel();
    let mut requests = 0;
    let mut effects = first;
    loop {
        for effect in std::mem::take(&mut effects) {
            requests += 1;
            let coordinator = Arc::clone(&coordinators[requests % coordinators.len()]);
            let busy = agent.busy().count() as u64;
            execute(host, &coordinator, &inputs, busy, effect);
        }
        let wait = Duration::from_millis(agent.wake().since(now()));
        let input = tokio::time::timeout(wait, events.recv()).await;
        let input = input.ok().flatten().unwrap_or(Input::Tick);
        effects = agent.step(now(), input);
        if agent.wake() <= now() {
            effects.extend(agent.step(now(), Input::Tick));
        }
    }
}

fn execute(
    host: HostId,
    coordinator: &Arc<Coordinator>,
    inputs: &UnboundedSender<Input>,
    busy: u64,
    effect: Effect,
) {
    let request = match effect {
        Effect::Poll { id, held, hold_ms } => {
            let poll = Poll {
                id,
                held,
                hold_ms,
                offer: offer(busy),
            };
            Request::Poll(host, poll)
        }
        Effect::Report(report) => Request::Report(host, report),
        Effect::Release(release) => Request::Release(host, release),
        Effect::Record(lease, ..) => return give(inputs, Input::Recorded(lease)),
        Effect::Start(lease, _) => return give(inputs, Input::Ended(lease, Outcome::Success)),
        Effect::Stop(lease) => return give(inputs, Input::Gone(lease)),
        Effect::Store(report) => return give(inputs, Input::Stored(report.lease)),
        Effect::Guard(..)
        | Effect::Forget(_)
        | Effect::Fetch(..)
        | Effect::Try(..)
        | Effect::EndTrial(..) => return,
    };
    let (coordinator, inputs) = (Arc::clone(coordinator), inputs.clone());
    tokio::spawn(async move {
        let poll = match &request {
            Request::Poll(_, poll) => Some(poll.id),
            _ => None,
        };
        match coordinator.handle(request).await {
            Reply::Leases(answer) => give(&inputs, Input::Answered(answer)),
            Reply::Recorded(lease) | Reply::Released(lease) | Reply::Stale(lease) => {
                give(&inputs, Input::Settled(lease));
            }
            _ => {
                if let Some(poll) = poll {
                    give(&inputs, Input::Unanswered(poll));
                }
            }
        }
    });
}

/// Gives an event to the host. It may have been killed meanwhile.
fn give(inputs: &UnboundedSender<Input>, input: Input) {
    let _ = inputs.send(input);
}

/// Returns the offer of a host.
pub(crate) fn offer(busy: u64) -> Offer {
    let capacity = |guests| Capacity {
        guests,
        cpus: guests,
        memory_mib: guests,
        resources: BTreeMap::new(),
    };
    let machine = OfferedMachine {
        toolchains: ["default".parse().unwrap()].into(),
        ..OfferedMachine::default()
    };
    Offer {
        machines: [("linux".parse().unwrap(), machine)].into(),
        total: capacity(GUESTS),
        free: capacity(GUESTS - busy.min(GUESTS)),
        ..Offer::default()
    }
}
