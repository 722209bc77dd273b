//! Builds that are asked for by the clock. A schedule runs when one of its times has
//! come; times that passed while nobody looked are made up for by one run.

mod plan;
mod timing;

use std::sync::Arc;

use config::builds::Build;
use config::schedule::{Cron, Page, Run, RunResult, Schedule, Timing};
use config::{ScheduleName, ToolchainName};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::{info, warn};

use crate::records::{Added, RecordsError};
use crate::state::AgentState;
use crate::triggers::submission::{self, Unfit, check};
use plan::{MachineState, plan};
use timing::Times;

pub use timing::TimingError;

/// What a schedule that runs is to do.
enum Decision {
    /// Make a build with this toolchain.
    Make(ToolchainName),
    /// Nothing: this build is under way, for this reason as good.
    Attach(Box<Build>, String),
}

/// Runs the schedules that are due; returns when the next one is.
pub(crate) async fn round(agent: &Arc<AgentState>) -> Option<Timestamp> {
    let all = match agent.records.schedules(Page::default()).await {
        Ok(all) => all,
        Err(error) => {
            warn!(
                "cannot look at the schedules: {}",
                sys::error_report::chain(&error)
            );
            return None;
        }
    };
    let now = Timestamp::now();
    let mut seen = Vec::new();
    for schedule in &all {
        match see(schedule) {
            Ok(it) => seen.push(it),
            Err(error) => complain(agent, schedule, &error, now).await,
        }
    }
    let plan = plan(&seen, now);
    for (name, due) in plan.due {
        let Some(schedule) = all.iter().find(|it| it.name == name) else {
            continue;
        };
        if let Err(unfit) = run(agent, schedule, Some(due), now).await {
            // It is due still: the next round tries it again.
            warn!(schedule = %name, "a schedule could not run: {}", sys::error_report::chain(&unfit));
        }
    }
    plan.wake_at
}

/// What a plan must know of a schedule.
fn see(schedule: &Schedule) -> Result<MachineState, TimingError> {
    Ok(MachineState {
        name: schedule.name.clone(),
        times: Times::new(&schedule.timing, schedule.added)?,
        since: schedule.since,
    })
}

/// Notes, once, that a timing means nothing any more: its time zone is gone.
async fn complain(agent: &AgentState, schedule: &Schedule, error: &TimingError, now: Timestamp) {
    let message = error.to_string();
    if schedule
        .last
        .as_ref()
        .is_some_and(|last| last.message == message)
    {
        return;
    }
    warn!(schedule = %schedule.name, "a schedule cannot run: {message}");
    let run = Run {
        due: None,
        at: now,
        result: RunResult::Failed,
        build: None,
        message,
    };
    match agent.records.record_run(schedule, run, None).await {
        Ok(Some((schedule, _))) => tell(agent, &schedule),
        Ok(None) => {}
        Err(error) => warn!("cannot record that: {}", sys::error_report::chain(&error)),
    }
}

/// The schedule with the time when it runs next.
pub(crate) fn with_next(mut schedule: Schedule, now: Timestamp) -> Schedule {
    schedule.next = see(&schedule).ok().and_then(|seen| seen.next(now));
    schedule
}

/// A timing with the host's time zone where none was named, if it means anything.
///
/// # Errors
/// When it does not.
pub(crate) fn settled(timing: Timing, now: Timestamp) -> Result<Timing, TimingError> {
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

/// The name of the host's time zone; a host that says nothing of it lives by UTC.
fn host_zone() -> String {
    let zone = TimeZone::try_system().ok();
    let name = zone.as_ref().and_then(TimeZone::iana_name);
    name.unwrap_or("UTC").to_owned()
}

/// Adds a schedule, also in place of the one of its name if `replace` says so. The
/// caller has held [`AgentState::queue`] since it saw the sources.
///
/// # Errors
/// When the records cannot be written.
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
        info!(schedule = %schedule.name, submitter = %schedule.submitter, "schedule added: {}", schedule.timing);
        tell(agent, schedule);
        agent.wake.notify_one();
    }
    Ok(added)
}

/// Removes a schedule; whether there was one. What it has asked for goes on.
///
/// # Errors
/// When the records cannot be written.
pub(crate) async fn remove(agent: &AgentState, name: &ScheduleName) -> Result<bool, RecordsError> {
    let removed = agent.records.remove_schedule(name).await?;
    if removed {
        info!(schedule = %name, "schedule removed");
        agent.telemetry.events.unscheduled(name);
    }
    Ok(removed)
}

/// Runs a schedule because somebody wants it now; its own times stay as they are. The
/// build, and whether it is a new one.
///
/// # Errors
/// When there is no build.
pub(crate) async fn run_now(
    agent: &Arc<AgentState>,
    schedule: &Schedule,
) -> Result<(Build, bool), Unfit> {
    let build = run(agent, schedule, None, Timestamp::now()).await?;
    build.ok_or_else(|| {
        let words = format!(
            "schedule {} was changed or has run at the same time; ask again",
            schedule.name
        );
        Unfit::Conflict(words)
    })
}

/// Runs a schedule for one of its times, or now. There is no build when it is not what
/// it was any more; nor when it cannot be had, and one of its times is over with that.
async fn run(
    agent: &Arc<AgentState>,
    schedule: &Schedule,
    due: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<(Build, bool)>, Unfit> {
    // As for every build that is asked for: its sources stay, and two that are equal
    // find each other.
    let _queue = agent.queue.lock().await;
    let run = |result, message| Run {
        due,
        at: now,
        result,
        build: None,
        message,
    };
    let (run, toolchain, found) = match decide(agent, schedule).await {
        Ok(Decision::Make(toolchain)) => {
            let run = run(RunResult::Submitted, String::new());
            (run, Some(toolchain), None)
        }
        Ok(Decision::Attach(build, why)) => {
            let mut run = run(RunResult::Coalesced, why);
            run.build = Some(build.id);
            (run, None, Some((*build, false)))
        }
        Err(unfit @ (Unfit::Records(_) | Unfit::Store(_))) => return Err(unfit),
        Err(unfit) if due.is_none() => return Err(unfit),
        Err(unfit) => (run(RunResult::Failed, unfit.to_string()), None, None),
    };
    let result = run.result;
    let Some((schedule, made)) = agent.records.record_run(schedule, run, toolchain).await? else {
        return Ok(None);
    };
    agent.telemetry.metrics.schedule_run(&schedule.name, result);
    tell(agent, &schedule);
    if let Some(Run { message, .. }) = &schedule.last
        && !message.is_empty()
    {
        info!(schedule = %schedule.name, %result, "a schedule has run: {message}");
    }
    if let Some(build) = &made {
        submission::begun(agent, build);
    }
    Ok(made.map(|build| (build, true)).or(found))
}

/// What it is to do now.
async fn decide(agent: &Arc<AgentState>, schedule: &Schedule) -> Result<Decision, Unfit> {
    let request = &schedule.build;
    let toolchain = check::has_machine(agent, request).await?;
    check::has_sources(agent, request)?;
    if request.coalesce {
        let unfinished = agent.records.unfinished().await?;
        let mut ours = unfinished.into_iter();
        if let Some(build) = ours.find(|it| it.schedule.as_ref() == Some(&schedule.name)) {
            let why = format!("build {} of an earlier run is {}", build.id, build.state);
            return Ok(Decision::Attach(Box::new(build), why));
        }
    }
    Ok(
        match submission::attached(agent, request, &toolchain).await? {
            Some(build) => {
                let why = format!(
                    "build {}, which is {}, does the same",
                    build.id, build.state
                );
                Decision::Attach(Box::new(build), why)
            }
            None => Decision::Make(toolchain),
        },
    )
}

fn tell(agent: &AgentState, schedule: &Schedule) {
    let schedule = with_next(schedule.clone(), Timestamp::now());
    agent.telemetry.events.schedule(&schedule);
}
