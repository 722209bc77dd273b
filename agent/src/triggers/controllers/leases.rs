//! Early ends of leases: by a task of a controller with a higher priority, or because their time is
//! over.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use config::BuildId;
use config::builds::{Build, State};
use jiff::Timestamp;
use records::RecordsError;
use state::{AgentState, CancelAnswer, LeaseEnd};
use tokio::time::sleep;
use tracing::{info, warn};

/// The time between two looks at the leases.
const PERIOD: Duration = Duration::from_secs(1);
/// The longest time that a lease can have left.
const LEFT_MAX: Duration = Duration::from_hours(24 * 365);

/// Ends the leases whose time is over, until the agent stops. Without controllers that could give
/// tasks, returns when no lease of an earlier agent is left.
pub(super) async fn run(agent: &AgentState, has_controllers: bool) {
    let mut deadlines = BTreeMap::new();
    while !agent.stopping.is_cancelled() {
        match agent.records.open_leases().await {
            Ok(open) if open.is_empty() && !has_controllers => return,
            Ok(open) => {
                let builds: Vec<_> = open.into_iter().map(|(_, build)| build).collect();
                for id in expired(&builds, &mut deadlines, Timestamp::now(), Instant::now()) {
                    end(agent, id, LeaseEnd::Expired).await;
                }
            }
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(error, "cannot read the leases of controllers");
            }
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}

/// Returns the unfinished builds whose lease is over. The time that was left when a lease was seen
/// first runs on a clock that nobody sets.
fn expired(
    builds: &[Build],
    deadlines: &mut BTreeMap<BuildId, Instant>,
    now: Timestamp,
    instant: Instant,
) -> Vec<BuildId> {
    let unfinished: BTreeMap<_, _> = builds
        .iter()
        .filter(|build| build.outcome.is_none())
        .filter_map(|build| Some((build.id, build.controller.as_ref()?.expires)))
        .collect();
    deadlines.retain(|id, _| unfinished.contains_key(id));
    for (id, expires) in unfinished {
        let left = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
        deadlines.entry(id).or_insert(instant + left.min(LEFT_MAX));
    }
    let over = deadlines
        .iter()
        .filter(|(_, deadline)| **deadline <= instant);
    over.map(|(id, _)| *id).collect()
}

/// Ends the build of a lease early, whether it waits or runs.
pub(super) async fn end(agent: &AgentState, id: BuildId, end: LeaseEnd) {
    match agent.jobs.end_lease(id, end.clone()) {
        CancelAnswer::Accepted => {
            if let LeaseEnd::Interrupted(_) = end {
                count(agent, id).await;
            }
            info!(build = %id, reason = %end, "ending the build of a controller's task early");
        }
        // Its result is worth keeping.
        CancelAnswer::Concluded => {}
        CancelAnswer::NotRunning => {
            if let Err(error) = dequeue(agent, id, end).await {
                let error = &error as &dyn Error;
                warn!(build = %id, error, "cannot end the build of a controller's task early");
            }
        }
    }
}

/// Counts an interrupted task of a controller.
async fn count(agent: &AgentState, id: BuildId) {
    if let Ok(Some(lease)) = agent.records.lease(id).await {
        agent
            .telemetry
            .metrics
            .controllers
            .interrupted(&lease.controller);
    }
}

/// Ends a build that waits in the queue.
async fn dequeue(agent: &AgentState, id: BuildId, end: LeaseEnd) -> Result<(), RecordsError> {
    let _queue = agent.queue.lock().await;
    let change = move |build: &mut Build| {
        let (outcome, message) = (end.outcome(), end.to_string());
        build.state == State::Queued && jobs::end_without_start(build, outcome, message).is_ok()
    };
    agent.records.change(id, change).await.map(drop)
}

#[cfg(test)]
mod tests {
    use config::builds::{ControllerTask, Request, Submitter};

    use super::*;

    fn build(id: u64, expires: i64) -> Build {
        let request: Request =
            serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let task = ControllerTask {
            controller: "ci".parse().unwrap(),
            priority: "0".parse().unwrap(),
            session: id.to_string(),
            package: "x".into(),
            version: "1".into(),
            expires: Timestamp::from_second(expires).unwrap(),
            auxiliaries: Vec::new(),
            script: false,
            guarded: false,
            trial: None,
        };
        let request = Request {
            controller: Some(task),
            ..request
        };
        Build::new(
            BuildId(id),
            request,
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn a_lease_ends_by_a_clock_that_nobody_sets() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let (start, mut deadlines) = (Instant::now(), BTreeMap::new());
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut builds = vec![build(1, 100), build(2, 50)];
        let mut expired = |builds: &[Build], now, seconds| {
            let ids = super::expired(builds, &mut deadlines, second(now), after(seconds));
            ids.iter().map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(expired(&builds, 0, 0), [0; 0]);
        // The clock is set forward by a day, then back to the beginning.
        assert_eq!(expired(&builds, 86_400, 1), [0; 0]);
        assert_eq!(expired(&builds, 0, 49), [0; 0]);
        assert_eq!(expired(&builds, 0, 50), [2]);
        assert_eq!(expired(&builds, 0, 100), [1, 2]);
        builds[1].outcome = Some(config::task::Outcome::Abort);
        assert_eq!(
            expired(&builds, 0, 101),
            [1],
            "a build that has ended has a result"
        );
        builds.push(build(3, 10));
        assert_eq!(
            expired(&builds, 20, 102),
            [1, 3],
            "it was over before it was seen"
        );
    }
}
