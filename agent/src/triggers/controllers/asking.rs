//! The requests for tasks: one at a time, so that no place is offered twice.

use std::collections::BTreeMap;
use std::error::Error;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::builds::{Build, ControllerTask, Request, Resources, Submitter, Target};
use config::layout::Entry;
use config::machine::Machine;
use config::{BuildId, ControllerName, SecretName};
use controllers::priority::{RunningTask, interruptible, may_be_asked, order};
use controllers::{Offer, OfferedMachine, TakeError, Taken, backoff};
use jiff::Timestamp;
use planner::Opening;
use records::RecordsError;
use state::{AgentState, LeaseEnd};
use sys::blocking::blocking;
use telemetry::metrics::RequestResult;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::offering::{OfferedPlace, auxiliaries, places};
use super::{Member, draw, leases};
use crate::triggers::submission::{GivenTask, submit_given};

/// The time between two looks at what could be asked.
const PERIOD: Duration = Duration::from_secs(1);
/// The time within which the scheduler sees a build that was submitted.
const SEEN_MAX: Duration = Duration::from_secs(10);
/// The time for which a stopping agent waits for an answer.
const STOP_MAX: Duration = Duration::from_secs(5);

/// When a controller is asked again.
#[derive(Debug, Clone, Copy)]
struct Turn {
    due: Instant,
    failures: u32,
}

/// Asks controllers until the agent stops.
pub(super) async fn run(agent: &Arc<AgentState>, members: &[Member]) {
    let mut turns = BTreeMap::new();
    while !agent.stopping.is_cancelled() {
        let has_taken = round(agent, members, &mut turns).await;
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(if has_taken { Duration::ZERO } else { PERIOD }) => {}
        }
    }
}

/// Asks the controllers that are due, in their order, until one gives a task. Returns true if one did.
async fn round(
    agent: &Arc<AgentState>,
    members: &[Member],
    turns: &mut BTreeMap<ControllerName, Turn>,
) -> bool {
    let running = match running(agent).await {
        Ok(running) => running,
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(error, "cannot read the leases of controllers");
            return false;
        }
    };
    let priorities: Vec<_> = members.iter().map(|it| it.rules.priority).collect();
    for index in order(&priorities, draw) {
        let member = &members[index];
        let name = &member.rules.name;
        let found = match plan(agent, member, &running) {
            Ok(found) => found,
            Err(reason) => {
                agent.contacts.not_asked(name, &reason);
                continue;
            }
        };
        agent.contacts.not_asked(name, "");
        if turns.get(name).is_some_and(|it| it.due > Instant::now()) {
            continue;
        }
        let Some(taken) = ask(agent, member, &found).await else {
            return false;
        };
        let failures = turns.get(name).map_or(0, |it| it.failures);
        let (pause, failures) = match &taken {
            Ok(Some(_)) => (Duration::ZERO, 0),
            Ok(None) => (backoff::poll(member.rules.poll, 0, draw()), 0),
            Err(_) => {
                let failures = failures.saturating_add(1);
                (backoff::poll(member.rules.poll, failures, draw()), failures)
            }
        };
        let due = Instant::now() + pause;
        turns.insert(name.clone(), Turn { due, failures });
        note(agent, name, &taken);
        if let Ok(Some(taken)) = taken {
            take(agent, member, taken, &found).await;
            return true;
        }
    }
    false
}

/// Returns the places that a controller is offered now.
fn plan(
    agent: &AgentState,
    member: &Member,
    running: &[(RunningTask, ControllerName)],
) -> Result<Vec<OfferedPlace>, String> {
    let priority = member.rules.priority;
    let tasks: Vec<_> = running.iter().map(|(task, _)| *task).collect();
    let excluding = running
        .iter()
        .find(|(it, _)| it.priority.excludes(priority));
    if let (false, Some((task, by))) = (may_be_asked(priority, &tasks), excluding) {
        return Err(format!(
            "build {} runs, a task of controller {by}, which has a higher priority",
            task.build
        ));
    }
    let observed = agent.queue_snapshot().observed;
    places(&observed, member, &interruptible(priority, &tasks))
}

/// Returns the tasks whose builds wait or run, each with its controller.
async fn running(agent: &AgentState) -> Result<Vec<(RunningTask, ControllerName)>, RecordsError> {
    let open = agent.records.open_leases().await?;
    let task = |build: Build| {
        let task = build.controller.filter(|_| build.outcome.is_none())?;
        let running = RunningTask {
            build: build.id,
            priority: task.priority,
        };
        Some((running, task.controller))
    };
    Ok(open
        .into_iter()
        .filter_map(|(_, build)| task(build))
        .collect())
}

/// Sends the request. Returns `None` if the agent stops meanwhile.
async fn ask(
    agent: &Arc<AgentState>,
    member: &Member,
    places: &[OfferedPlace],
) -> Option<Result<Option<Taken>, TakeError>> {
    let (shared, places) = (Arc::clone(agent), places.to_vec());
    let observed = agent.queue_snapshot().observed;
    let (auxiliaries, auxiliary_memory_kib) = auxiliaries(&observed, member, &places);
    let (client, toolchain) = (Arc::clone(&member.client), member.toolchain.clone());
    let take = blocking(move || {
        let offered = |opening: &Opening| offered(&shared, opening).map(|(offered, _)| offered);
        let machines = places.iter().filter_map(|place| offered(&place.opening));
        let offer = Offer {
            agent: shared.settings().name.clone(),
            toolchain: toolchain.to_string(),
            machines: machines.collect(),
            auxiliaries: auxiliaries.iter().filter_map(offered).collect(),
            auxiliary_memory_kib,
        };
        client.take(&offer)
    });
    tokio::pin!(take);
    tokio::select! {
        taken = &mut take => Some(taken),
        // An answer that is already under way is a task that must not be lost.
        () = agent.stopping.cancelled() => timeout(STOP_MAX, take).await.ok(),
    }
}

/// Returns the header of a machine and its manifest. Blocks.
fn offered(agent: &AgentState, opening: &Opening) -> Option<(OfferedMachine, Machine)> {
    let entry = Entry::Image(opening.key.toolchain.clone());
    let volume = agent.volumes.get(opening.volume)?;
    let directory = volume.entry(&opening.key.machine, &entry);
    let facts = agent.image_facts.get(opening.image, &directory);
    let machine = facts.machine.as_ref().ok()?.clone();
    let offered = OfferedMachine {
        name: opening.key.machine.clone(),
        id: opening.identity.clone(),
        summary: machine.summary.clone(),
        memory_kib: machine.memory_kib.get(),
        memory_max_kib: machine.memory_max_kib.map(NonZeroU64::get),
    };
    Some((offered, machine))
}

/// Notes the answer of a controller.
fn note(agent: &AgentState, name: &ControllerName, taken: &Result<Option<Taken>, TakeError>) {
    let now = Timestamp::now();
    let metrics = &agent.telemetry.metrics.controllers;
    match taken {
        Ok(taken) => {
            let result = match taken {
                Some(_) => RequestResult::Task,
                None => RequestResult::NoTask,
            };
            metrics.request(name, result);
            if agent.contacts.answered(name, now) {
                info!(controller = %name, "a controller answers again");
            }
        }
        Err(error) => {
            metrics.request(
                name,
                match error {
                    TakeError::Unavailable(_) => RequestResult::Failed,
                    TakeError::Refused(_) => RequestResult::Refused,
                },
            );
            if agent.contacts.failed(name, &error.to_string(), now) {
                let error = error as &dyn Error;
                warn!(controller = %name, error, "a controller gives no tasks");
            }
        }
    }
}

/// Submits the build of a task, and interrupts the builds whose place it needs.
async fn take(agent: &Arc<AgentState>, member: &Member, taken: Taken, places: &[OfferedPlace]) {
    let name = &member.rules.name;
    let place = places
        .iter()
        .find(|it| it.opening.key.machine == taken.machine);
    let given = GivenTask {
        manifest: taken.manifest.clone(),
        terms: taken.terms.clone(),
    };
    let boost = match place.filter(|_| member.rules.priority.boosts()) {
        Some(place) => {
            let (shared, place) = (Arc::clone(agent), place.clone());
            blocking(move || offered(&shared, &place.opening))
                .await
                .map(|(_, machine)| machine)
        }
        None => None,
    };
    let request = request(member, &taken, boost.as_ref(), Timestamp::now());
    let submitter = submitter(name);
    let recorded = submit_given(agent, request, member.toolchain.clone(), submitter, given);
    match recorded.await {
        Ok(Some(build)) => {
            info!(build = %build.id, controller = %name, session = taken.session, "took a task");
            for interrupted in place.iter().flat_map(|it| &it.interrupted) {
                let end = LeaseEnd::Interrupted(name.clone());
                leases::end(agent, *interrupted, end).await;
            }
            seen(agent, build.id).await;
        }
        Ok(None) => {
            warn!(controller = %name, session = taken.session, "a controller gave a task twice");
        }
        Err(error) => {
            // Its controller gives it again when the time of the session is over.
            let error = &error as &dyn Error;
            warn!(controller = %name, error, "cannot record a task, which is lost");
        }
    }
}

/// Returns the submitter of a controller's builds.
fn submitter(name: &ControllerName) -> Submitter {
    format!("controller:{name}")
        .parse()
        .unwrap_or_else(|_| Submitter::root())
}

/// Returns the request for the build of a task. `boost` is the machine if it gets all processors.
fn request(member: &Member, taken: &Taken, boost: Option<&Machine>, now: Timestamp) -> Request {
    let rules = &member.rules;
    let limit = taken.script.and_then(|script| script.limit);
    let limit = limit.map_or(rules.lease_max, |limit| limit.min(rules.lease_max));
    Request {
        machine: taken.machine.clone(),
        toolchain: Some(member.toolchain.clone()),
        sources: Vec::new(),
        interactive: None,
        hold: false,
        commands: None,
        target: taken.package.parse::<Target>().ok(),
        priority: config::builds::Priority::default(),
        resources: boost.map(boosted).unwrap_or_default(),
        after: Vec::new(),
        secrets: masked_names(taken),
        submitter: None,
        coalesce: false,
        project: None,
        controller: Some(ControllerTask {
            controller: rules.name.clone(),
            priority: rules.priority,
            session: taken.session.clone(),
            package: taken.package.clone(),
            version: taken.version.clone(),
            auxiliaries: taken.auxiliaries.clone(),
            script: taken.script.is_some(),
            guarded: false,
            trial: None,
            expires: now.saturating_add(limit).unwrap_or(Timestamp::MAX),
        }),
    }
}

/// Returns the names of the texts that the log of a script must not have.
fn masked_names(taken: &Taken) -> Vec<SecretName> {
    let count = taken.script.map_or(0, |script| script.masked);
    let names = (1..=count).map(|number| format!("masked-{number}"));
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Returns all processors of the host, as many as the machine permits.
fn boosted(machine: &Machine) -> Resources {
    let all = std::thread::available_parallelism().ok();
    let all = all.and_then(|all| NonZeroU32::try_from(all).ok());
    let most = machine.cpus_max.unwrap_or(machine.cpus);
    Resources {
        cpus: all.map(|all| all.min(most)),
        ..Resources::default()
    }
}

/// Waits until the scheduler has seen a build, so that its place is not offered again.
async fn seen(agent: &AgentState, id: BuildId) {
    let seen = async {
        loop {
            let observed = agent.queue_snapshot().observed;
            let is_queued = observed.queue.iter().any(|it| it.id == id);
            if is_queued || observed.jobs.builds.contains_key(&id) {
                return;
            }
            agent.wake.notify_one();
            sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = timeout(SEEN_MAX, seen).await;
}
