//! The local builds of a farm's leases: submitted, looked at, ended, settled.

use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, State, Submitter};
use config::{BuildId, ControllerName};
use farm_core::messages::Message;
use farm_core::{Lease, Moment, Requirements, Revision};
use guard::Deadline;
use jiff::Timestamp;
use records::RecordsError;
use state::{AgentState, LeaseEnd};
use sys::blocking::blocking;
use tracing::{error, info, warn};

use super::super::leases;
use super::{Farm, offer};
use crate::triggers::submission::{GivenTask, GivenTaskError, submit_given};

/// The pause before something is written again that could not be written.
pub(super) const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// Submits the build of a lease, with its lease in the same transaction. Returns `None` if there is one.
pub(super) async fn submit(
    agent: &Arc<AgentState>,
    farm: &Farm,
    held: Lease,
    needs: &Requirements,
    trial: Option<Revision>,
) -> Result<Option<Build>, GivenTaskError> {
    let key = config::ImageKey {
        machine: needs.machine.clone(),
        toolchain: needs.toolchain.clone(),
    };
    let own = agent.queue_snapshot().request(&key, None);
    let request = offer::request(&farm.rules, held, (needs, trial), &own, Timestamp::now());
    let given = GivenTask {
        manifest: offer::script(needs),
        terms: String::new(),
    };
    let toolchain = needs.toolchain.clone();
    let submitter = submitter(&farm.rules.name);
    let build = submit_given(agent, request, toolchain, submitter, given).await?;
    if let Some(build) = &build {
        info!(build = %build.id, controller = %farm.rules.name, lease = %held, "took a build of a farm");
    }
    Ok(build)
}

fn submitter(name: &ControllerName) -> Submitter {
    format!("controller:{name}")
        .parse()
        .unwrap_or_else(|_| Submitter::root())
}

/// Permits a build to run until a time: in the agent, and at the guard of its guest.
pub(super) async fn permit(agent: &AgentState, build: BuildId, until: Moment) {
    let deadline = Deadline(until.0);
    agent.lease_deadlines.set(build, deadline);
    let run_dir = agent.guests.run_dir_of(&build.to_string());
    let moved = blocking(move || guard::move_to(&run_dir, deadline)).await;
    if let Err(error) = moved {
        // The guest ends at the deadline before.
        warn!(%build, %error, "cannot move the deadline of a guest");
    }
}

/// Ends a build for which a lease is over, whether it waits or runs.
pub(super) async fn end(agent: &AgentState, build: BuildId, reason: LeaseEnd) {
    agent.lease_deadlines.remove(build);
    leases::end(agent, build, reason).await;
}

/// Returns true if a build waits in the queue of this host.
pub(super) fn waits(build: &Build) -> bool {
    build.outcome.is_none() && build.state == State::Queued
}

/// Returns the message of a build, if it has one. The result does not wait for records that fail.
pub(super) async fn message(agent: &AgentState, build: Option<BuildId>) -> Option<Message> {
    let recorded = agent.records.get(build?).await.ok()??;
    (!recorded.message.is_empty()).then(|| recorded.message.into())
}

/// Settles the lease of a build, repeatedly until the records have it or the agent stops.
pub(super) async fn settle(agent: &AgentState, build: BuildId, answer: String) {
    write(agent, || {
        agent
            .records
            .settle_lease(build, answer.clone(), Timestamp::now())
    })
    .await;
}

/// Marks the lease of a build as canceled, repeatedly until the records have it. Returns false if the
/// agent stops before.
pub(super) async fn mark_canceled(agent: &AgentState, build: BuildId) -> bool {
    let part = super::lease::CANCELED.to_owned();
    write(agent, || agent.records.lease_part_sent(build, part.clone())).await
}

/// Repeats a write until it succeeds. Returns false if the agent stops before.
async fn write<F>(agent: &AgentState, mut attempt: impl FnMut() -> F) -> bool
where
    F: Future<Output = Result<(), RecordsError>>,
{
    loop {
        match attempt().await {
            Ok(()) => return true,
            Err(failure) => {
                let error = &failure as &dyn std::error::Error;
                error!(error, "cannot write the lease of a farm; trying again");
            }
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return false,
            () = tokio::time::sleep(WRITE_PAUSE) => {}
        }
    }
}
