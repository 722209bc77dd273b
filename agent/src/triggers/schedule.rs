//! Schedules: builds that are submitted at certain times. Times that were missed are made up
//! for by one run.

use std::error::Error;
use std::sync::Arc;

use config::builds::{Build, Request};
use config::schedule::{Cron, Page, Run, RunResult, Schedule, Timing};
use config::{ScheduleName, ToolchainName};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use records::{Added, RecordsError};
use tracing::{info, warn};

use crate::triggers::projects;
use crate::triggers::submission::{self, InvalidRequest, check};
use state::AgentState;
use timing::{ScheduleState, Times, plan};

pub use timing::TimingError;

/// The action of a run.
enum Decision {
    /// Submits a build of this request with this toolchain.
    Submit(Box<Request>, ToolchainName),
    /// Coalesces with this unfinished build, for this reason.
    Coalesce(Box<Build>, String),
}

/// Runs the schedules that are due. Returns the time of the next run.
pub(crate) async fn round(agent: &Arc<AgentState>) -> Option<Timestamp> {
    let all = match agent.records.schedules(Page::default()).await {
        Ok(all) => all,
        Err(error) => {
            warn!(error = &error as &dyn Error, "cannot read the schedules");
            return None;
        }
    };
    let now = Timestamp::now();
    let mut states = Vec::new();
    for schedule in &all {
        match state(schedule) {
            Ok(it) => states.push(it),
            Err(error) => record_invalid(agent, schedule, &error, now).await,
        }
    }
    let plan = plan(&states, now);
    for (name, due) in plan.due {
        let Some(schedule) = all.iter().find(|it| it.name == name) else {
            continue;
        };
        if schedule.project.is_some() {
            begin(agent, schedule, due);
            continue;
        }
        let request = Ok(schedule.build.clone());
        report(schedule, run(agent, schedule, request, Some(due)).await);
    }
    plan.wake_at
}

/// Logs that a run failed for a reason of this host. The schedule stays due: the next round tries
/// again.
fn report(schedule: &Schedule, ran: Result<Option<(Build, bool)>, InvalidRequest>) {
    if let Err(error) = ran {
        let error = &error as &dyn Error;
        warn!(schedule = %schedule.name, error, "cannot run a schedule");
    }
}

/// Runs a schedule of a project beside the scheduler, because its repositories take minutes.
fn begin(agent: &Arc<AgentState>, schedule: &Schedule, due: Timestamp) {
    if !agent.resolving.lock().insert(schedule.name.clone()) {
        return;
    }
    let (task_agent, schedule) = (Arc::clone(agent), schedule.clone());
    agent.tasks.spawn(async move {
        let agent = task_agent;
        tokio::select! {
            request = resolve(&agent, &schedule) => {
                report(&schedule, run(&agent, &schedule, request, Some(due)).await);
            }
            // It stays due for the next agent.
            () = agent.stopping.cancelled() => {}
        }
        agent.resolving.lock().remove(&schedule.name);
        agent.wake.notify_one();
    });
}

/// Returns the request of a run.
async fn resolve(agent: &Arc<AgentState>, schedule: &Schedule) -> Result<Request, InvalidRequest> {
    let Some(project) = &schedule.project else {
        return Ok(schedule.build.clone());
    };
    let resolved = projects::resolve_scheduled(agent, project, &schedule.build).await;
    resolved.map_err(|error| InvalidRequest::Conflict(sys::error_report::chain(&error)))
}

/// Returns the facts that the plan needs.
fn state(schedule: &Schedule) -> Result<ScheduleState, TimingError> {
    Ok(ScheduleState {
        name: schedule.name.clone(),
        times: Times::new(&schedule.timing, schedule.added)?,
        since: schedule.since,
    })
}

/// Records once that a timing has become invalid, such as by the loss of its time zone.
async fn record_invalid(
    agent: &AgentState,
    schedule: &Schedule,
    error: &TimingError,
    now: Timestamp,
) {
    let message = error.to_string();
    if schedule
        .last
        .as_ref()
        .is_some_and(|last| last.message == message)
    {
        return;
    }
    warn!(schedule = %schedule.name, message, "the timing of a schedule is invalid");
    let run = Run {
        due: None,
        at: now,
        result: RunResult::Failed,
        build: None,
        message,
    };
    match agent.records.record_run(schedule, run, None).await {
        Ok(Some((schedule, _))) => publish(agent, &schedule),
        Ok(None) => {}
        Err(error) => warn!(
            error = &error as &dyn Error,
            "cannot record the run of a schedule"
        ),
    }
}

/// Returns a schedule with the time of its next run.
pub fn with_next(mut schedule: Schedule, now: Timestamp) -> Schedule {
    schedule.next = state(&schedule).ok().and_then(|state| state.next(now));
    schedule
}

/// Returns a timing with the host's time zone as the default.
///
/// # Errors
/// The timing is invalid.
pub fn resolve_timing(timing: Timing, now: Timestamp) -> Result<Timing, TimingError> {
    let timing = match timing {
        Timing::Cron(Cron {
            pattern,
            zone: None,
        }) => Timing::Cron(Cron {
            pattern,
            zone: Some(host_zone()),
        }),
        timing => timing,
    };
    Times::new(&timing, now).map(|_| timing)
}

/// Returns the name of the host's time zone; UTC if the host does not set one.
fn host_zone() -> String {
    let zone = TimeZone::try_system().ok();
    let name = zone.as_ref().and_then(TimeZone::iana_name);
    name.unwrap_or("UTC").to_owned()
}

/// Adds a schedule. With `replace`, it may replace another one of its name. The caller has held
/// [`AgentState::queue`] since it checked the sources.
///
/// # Errors
/// The records cannot be written.
pub(crate) async fn add(
    agent: &AgentState,
    schedule: &Schedule,
    replace: bool,
) -> Result<Added, RecordsError> {
    let added = agent
        .records
        .add_schedule(schedule.clone(), replace)
        .await?;
    if matches!(added, Added::New | Added::Replaced) {
        info!(schedule = %schedule.name, submitter = %schedule.submitter, timing = %schedule.timing, "added a schedule");
        publish(agent, schedule);
        agent.wake.notify_one();
    }
    Ok(added)
}

/// Deletes a schedule. Returns false if there was no such schedule. Its builds continue.
///
/// # Errors
/// The records cannot be written.
pub(crate) async fn remove(agent: &AgentState, name: &ScheduleName) -> Result<bool, RecordsError> {
    let removed = agent.records.remove_schedule(name).await?;
    if removed {
        info!(schedule = %name, "deleted a schedule");
        agent.telemetry.events.unscheduled(name);
    }
    Ok(removed)
}

/// Runs a schedule now, on request; its own times do not change. Returns the build, and true
/// if it is new.
///
/// # Errors
/// The build is refused, or the schedule has changed meanwhile.
pub(crate) async fn run_now(
    agent: &Arc<AgentState>,
    schedule: &Schedule,
) -> Result<(Build, bool), InvalidRequest> {
    let request = resolve(agent, schedule).await?;
    let build = run(agent, schedule, Ok(request), None).await?;
    build.ok_or_else(|| {
        InvalidRequest::Conflict(format!(
            "schedule {} was changed or has run at the same time; try again",
            schedule.name
        ))
    })
}

/// Runs a schedule with a request for the time `due`, or now. Returns no build if the schedule has
/// changed meanwhile, or if the build is refused and `due` is done with that.
async fn run(
    agent: &Arc<AgentState>,
    schedule: &Schedule,
    request: Result<Request, InvalidRequest>,
    due: Option<Timestamp>,
) -> Result<Option<(Build, bool)>, InvalidRequest> {
    let now = Timestamp::now();
    // As for every submission: its sources stay, and equal builds are coalesced.
    let _queue = agent.queue.lock().await;
    let run = |result, message| Run {
        due,
        at: now,
        result,
        build: None,
        message,
    };
    let decided = match request {
        Ok(request) => decide(agent, schedule, request).await,
        Err(error) => Err(error),
    };
    let (run, new, found) = match decided {
        Ok(Decision::Submit(request, toolchain)) => {
            let run = run(RunResult::Submitted, String::new());
            (run, Some((*request, toolchain)), None)
        }
        Ok(Decision::Coalesce(build, why)) => {
            let mut run = run(RunResult::Coalesced, why);
            run.build = Some(build.id);
            (run, None, Some((*build, false)))
        }
        Err(error @ (InvalidRequest::Records(_) | InvalidRequest::Store(_))) => return Err(error),
        Err(error) if due.is_none() => return Err(error),
        Err(error) => (run(RunResult::Failed, error.to_string()), None, None),
    };
    let result = run.result;
    let Some((schedule, build)) = agent.records.record_run(schedule, run, new).await? else {
        return Ok(None);
    };
    agent.telemetry.metrics.schedule_run(&schedule.name, result);
    publish(agent, &schedule);
    if let Some(Run { message, .. }) = &schedule.last
        && !message.is_empty()
    {
        info!(schedule = %schedule.name, %result, message, "ran a schedule");
    }
    if let Some(build) = &build {
        submission::announce(agent, build);
    }
    Ok(build.map(|build| (build, true)).or(found))
}

/// Decides what a run does now.
async fn decide(
    agent: &Arc<AgentState>,
    schedule: &Schedule,
    request: Request,
) -> Result<Decision, InvalidRequest> {
    let toolchain = check::resolve_toolchain(agent, &request).await?;
    check::check_sources(agent, &request).await?;
    check::check_secrets(agent, &request, &schedule.submitter).await?;
    if request.coalesce {
        let unfinished = agent.records.unfinished().await?;
        let mut unfinished = unfinished.into_iter();
        if let Some(build) = unfinished.find(|it| it.schedule.as_ref() == Some(&schedule.name)) {
            let why = format!("build {} of an earlier run is {}", build.id, build.state);
            return Ok(Decision::Coalesce(Box::new(build), why));
        }
    }
    Ok(
        match submission::coalesce(agent, &request, &toolchain).await? {
            Some(build) => {
                let why = format!(
                    "build {}, which is {}, does the same",
                    build.id, build.state
                );
                Decision::Coalesce(Box::new(build), why)
            }
            None => Decision::Submit(Box::new(request), toolchain),
        },
    )
}

fn publish(agent: &AgentState, schedule: &Schedule) {
    let schedule = with_next(schedule.clone(), Timestamp::now());
    agent.telemetry.events.schedule(&schedule);
}
