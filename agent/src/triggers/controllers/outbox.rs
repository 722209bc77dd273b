//! The outbox of one controller: the results of its tasks, in the order of their builds, each sent until
//! the controller has it or refuses it. What was sent twice counts once, because the session of a task
//! ends with its first result.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::BuildId;
use config::builds::Build;
use controllers::{Answer, Step, backoff, next_step};
use jiff::Timestamp;
use records::{Lease, RecordsError};
use state::AgentState;
use sys::blocking::blocking;
use telemetry::metrics::RequestResult;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Member, draw, job_logs, reporting};

/// The time between two looks at the outbox.
const PERIOD: Duration = Duration::from_secs(1);

/// Reports the results of a controller's tasks until the agent stops.
pub(super) async fn run(agent: &Arc<AgentState>, member: &Member) {
    let mut due = BTreeMap::new();
    while !agent.stopping.is_cancelled() {
        if let Err(error) = round(agent, member, &mut due).await {
            let error = &error as &dyn Error;
            warn!(controller = %member.rules.name, error, "cannot use the outbox of a controller");
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}

/// Reports what is due. After a failure the rest waits: the controller would fail again.
async fn round(
    agent: &Arc<AgentState>,
    member: &Member,
    due: &mut BTreeMap<BuildId, Instant>,
) -> Result<(), RecordsError> {
    let open = agent.records.open_leases().await?;
    due.retain(|id, _| open.iter().any(|(lease, _)| lease.build == *id));
    for (lease, build) in open {
        let is_due = due.get(&build.id).is_none_or(|at| *at <= Instant::now());
        if lease.controller != member.rules.name || build.outcome.is_none() || !is_due {
            continue;
        }
        if agent.stopping.is_cancelled() {
            return Ok(());
        }
        if let Some(failures) = report(agent, member, lease, &build).await? {
            let pause = backoff::report(failures, draw());
            due.insert(build.id, Instant::now() + pause);
            return Ok(());
        }
    }
    Ok(())
}

/// Reports one result, uploads first. Returns the number of failures if it must be sent again.
async fn report(
    agent: &Arc<AgentState>,
    member: &Member,
    mut lease: Lease,
    build: &Build,
) -> Result<Option<u32>, RecordsError> {
    let directory = agent.paths.build(build.id);
    if build.has_script()
        && let Err(failure) = job_logs::finish(agent, member, &lease, build).await
    {
        return failed(agent, &lease, &failure).await.map(Some);
    }
    let files = build
        .has_script()
        .then(|| member.client.archives(&lease.terms));
    let uploads = blocking(move || match files {
        Some(files) => Ok(reporting::archives(&directory, files)),
        None => reporting::uploads(&directory),
    });
    let uploads = match uploads.await {
        Ok(uploads) => uploads,
        Err(error) => return failed(agent, &lease, &error.to_string()).await.map(Some),
    };
    loop {
        let step = next_step(&uploads, &lease.sent);
        let answer = send(agent, member, &lease, build, step.clone()).await;
        count(agent, member, &answer);
        match (step, answer) {
            (_, Answer::Retry(failure)) => return failed(agent, &lease, &failure).await.map(Some),
            (Step::Upload(upload), answer) => {
                if let Answer::Refused(reason) = &answer {
                    warn!(build = %build.id, upload = upload.part(), reason, "a controller refuses an upload");
                }
                agent
                    .records
                    .lease_part_sent(build.id, upload.part())
                    .await?;
                lease.sent.push(upload.part());
            }
            (Step::Result, Answer::Accepted(answer)) => {
                info!(build = %build.id, controller = %lease.controller, answer, "reported a result");
                return settled(agent, build, answer).await;
            }
            (Step::Result, Answer::Refused(answer)) => {
                warn!(build = %build.id, controller = %lease.controller, answer, "a controller refuses a result");
                return settled(agent, build, answer).await;
            }
        }
    }
}

/// Records that a report need not be sent again.
async fn settled(
    agent: &AgentState,
    build: &Build,
    answer: String,
) -> Result<Option<u32>, RecordsError> {
    let settle = agent
        .records
        .settle_lease(build.id, answer, Timestamp::now());
    settle.await.map(|()| None)
}

async fn send(
    agent: &Arc<AgentState>,
    member: &Member,
    lease: &Lease,
    build: &Build,
    step: Step,
) -> Answer {
    let (client, directory) = (Arc::clone(&member.client), agent.paths.build(build.id));
    let (lease, build) = (lease.clone(), build.clone());
    blocking(move || match step {
        Step::Upload(upload) => client.upload(&lease.session, &lease.terms, &upload),
        Step::Result => match reporting::ending(&directory, &build) {
            Ok(ending) => {
                let task = build.controller.as_ref();
                let package =
                    task.map_or(("", ""), |it| (it.package.as_str(), it.version.as_str()));
                client.report(&lease.session, &lease.terms, package, &ending)
            }
            Err(error) => Answer::Retry(format!("cannot read the result of the build: {error}")),
        },
    })
    .await
}

/// Records a failed report, and returns the number of failures.
async fn failed(agent: &AgentState, lease: &Lease, failure: &str) -> Result<u32, RecordsError> {
    if lease.failure != failure {
        warn!(build = %lease.build, controller = %lease.controller, failure, "cannot report a result; trying again");
    }
    agent
        .records
        .lease_failed(lease.build, failure.to_owned())
        .await?;
    Ok(lease.failures.saturating_add(1))
}

fn count(agent: &AgentState, member: &Member, answer: &Answer) {
    let result = match answer {
        Answer::Accepted(_) => RequestResult::Accepted,
        Answer::Refused(_) => RequestResult::Refused,
        Answer::Retry(_) => RequestResult::Failed,
    };
    let metrics = &agent.telemetry.metrics.controllers;
    metrics.request(&member.rules.name, result);
}
