//! Forecasts of the starts of waiting builds, computed when they are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::BuildId;
use config::builds::Build;
use config::queue::{Forecast, Queue};
use jiff::Timestamp;
use planner::durations::{ExpectedDuration, Quantile, Samples};
use planner::plan::{FORECAST_MAX, PlannedStart};
use sys::blocking::blocking;

use super::super::error::ApiError;
use state::{AgentState, QueueSnapshot};

/// Adds the forecasts of the waiting builds to the queue.
pub(super) async fn add(
    agent: &AgentState,
    snapshot: &QueueSnapshot,
    unfinished: &[Build],
    queue: &mut Queue,
) -> Result<(), ApiError> {
    let now = queue.at;
    let waiting = queue.waiting.iter().map(|it| it.build).take(FORECAST_MAX);
    let running = queue.running.iter().filter_map(|it| it.build);
    let records: BTreeMap<_, _> = unfinished.iter().map(|build| (build.id, build)).collect();
    let builds: Vec<_> = waiting
        .chain(running)
        .filter_map(|id| records.get(&id).copied())
        .collect();
    let samples = samples(agent, &builds).await?;
    let durations = |quantile| {
        let all = builds.iter().zip(&samples).filter_map(|(build, samples)| {
            let expected = samples.expected(quantile, elapsed(build, now))?;
            Some((build.id, expected))
        });
        all.collect::<BTreeMap<BuildId, ExpectedDuration>>()
    };
    let (median, high) = (durations(Quantile::MEDIAN), durations(Quantile::HIGH));
    let observed = Arc::clone(&snapshot.observed);
    let simulate = move || {
        (
            observed.forecast(&median, now),
            observed.forecast(&high, now),
        )
    };
    let (expected, late) = blocking(simulate).await;
    let mut forecasts = forecasts(queue, expected, &late);
    for waiting in &mut queue.waiting {
        waiting.forecast = forecasts.remove(&waiting.build);
    }
    Ok(())
}

/// Returns the expected durations of running builds from the start of their guests.
pub(in super::super) async fn expected(
    agent: &AgentState,
    running: &[&Build],
    now: Timestamp,
) -> Result<BTreeMap<BuildId, Duration>, ApiError> {
    let samples = samples(agent, running).await?;
    let expected = running.iter().zip(&samples).filter_map(|(build, samples)| {
        let expected = samples.expected(Quantile::MEDIAN, elapsed(build, now))?;
        Some((build.id, expected.duration))
    });
    Ok(expected.collect())
}

/// Returns the durations of earlier builds that each build is compared with.
async fn samples(agent: &AgentState, builds: &[&Build]) -> Result<Vec<Samples>, ApiError> {
    let subject = |build: &&Build| (build.machine.clone(), build.target.clone());
    let mut subjects: Vec<_> = builds.iter().map(subject).collect();
    subjects.sort();
    subjects.dedup();
    let earlier = agent.records.earlier_durations(subjects).await?;
    let samples = |build: &&Build| {
        let found = earlier.get(&subject(build)).cloned().unwrap_or_default();
        Samples::new(found.seconds, found.same_package)
    };
    Ok(builds.iter().map(samples).collect())
}

/// Returns the time for which the guest of a build has run.
fn elapsed(build: &Build, now: Timestamp) -> Duration {
    // A build that waits for another attempt still has the start of the last one.
    let started = build
        .started
        .filter(|_| build.state != config::builds::State::Queued);
    let elapsed = started.map(|started| now.duration_since(started));
    elapsed.map_or(Duration::ZERO, |it| it.try_into().unwrap_or_default())
}

/// Returns the forecasts of the builds that still wait, from their simulated starts.
fn forecasts(
    queue: &Queue,
    expected: Vec<PlannedStart>,
    late: &[PlannedStart],
) -> BTreeMap<BuildId, Forecast> {
    let late: BTreeMap<_, _> = late.iter().map(|start| (start.id, start.at)).collect();
    let waits = |start: &PlannedStart| queue.waiting.iter().any(|it| it.build == start.id);
    let forecast = |(start, place): (PlannedStart, usize)| {
        let latest = late.get(&start.id).map(|late| start.at.max(*late));
        let forecast = Forecast {
            place,
            start: start.at,
            start_late: latest.filter(|_| start.unknown.is_none()),
            unknown: start.unknown.map(|job| job.to_string()),
            builds: start.builds,
            same_package: start.same_package,
        };
        (start.id, forecast)
    };
    let waiting = expected.into_iter().filter(waits);
    waiting.zip(1..).map(forecast).collect()
}
