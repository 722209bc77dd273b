//! Forecasts, against a host on which builds really come to their ends.

use std::time::Duration;

use super::*;
use crate::JobId;
use crate::admission::RunningUsage;
use crate::durations::ExpectedDuration;
use crate::plan::PlannedStart;
use crate::plan::forecast::FORECAST_MAX;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn lasting(seconds: u64) -> ExpectedDuration {
    ExpectedDuration {
        duration: Duration::from_secs(seconds),
        builds: 5,
        same_package: true,
    }
}

/// Returns the starts of a forecast: the build and the second.
fn starts(forecast: &[PlannedStart]) -> Vec<(u64, i64)> {
    let start = |start: &PlannedStart| (start.id.0, start.at.as_second());
    forecast.iter().map(start).collect()
}

/// Observes a host with one guest slot, on which build 1 has run since second 0.
fn busy(queue: std::ops::RangeInclusive<u64>) -> Observed {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed.capacity.guests = Some(1);
    observed.jobs.builds.insert(BuildId(1), key_of("linux"));
    let running = RunningBuild {
        submitter: Submitter::root(),
        since: at(0),
        may_be_on_trial: false,
    };
    observed.running.insert(BuildId(1), running);
    observed.queue = queue.map(|id| queued(id, "linux")).collect();
    observed.now = at(10);
    observed
}

#[test]
fn builds_start_one_after_the_other_when_those_before_have_ended() {
    let observed = busy(2..=4);
    let durations = [(1, 60), (2, 30), (3, 5)];
    let durations = durations.map(|(id, seconds)| (BuildId(id), lasting(seconds)));
    let forecast = observed.forecast(&durations.into(), at(12));
    assert_eq!(starts(&forecast), [(2, 60), (3, 90), (4, 95)]);
    assert!(forecast.iter().all(|it| it.unknown.is_none()));
    assert_eq!(forecast[0].builds, Some(5));
}

#[test]
fn a_job_of_unknown_duration_makes_later_starts_a_lower_bound() {
    let observed = busy(2..=4);
    let durations = [(1, 60), (3, 5)].map(|(id, seconds)| (BuildId(id), lasting(seconds)));
    let forecast = observed.forecast(&durations.into(), at(12));
    assert_eq!(starts(&forecast), [(2, 60), (3, 60), (4, 65)]);
    let unknown: Vec<_> = forecast.iter().map(|it| it.unknown.clone()).collect();
    let second = Some(JobId::Build(BuildId(2)));
    assert_eq!(unknown, [None, second.clone(), second]);
}

#[test]
fn dependencies_backoff_and_missing_images_are_waited_for() {
    let mut observed = busy(2..=4);
    observed.capacity.guests = Some(3);
    observed.queue[0].after = vec![BuildId(1)];
    let pending = (BuildId(1), DependencyState::Pending);
    observed.dependencies = [pending].into();
    observed.queue[1].backoff = Some(at(0)..at(20));
    let located = machine("new");
    observed.machines.insert("new".parse().unwrap(), located);
    observed.queue[2].key = key_of("new");
    let durations = [(BuildId(1), lasting(60))];
    let forecast = observed.forecast(&durations.into(), at(12));
    assert_eq!(starts(&forecast), [(4, 12), (3, 20), (2, 60)]);
    let bootstrap = Some(JobId::Bootstrap(key_of("new")));
    assert_eq!(forecast[0].unknown, bootstrap);
}

#[test]
fn builds_that_do_not_start_as_things_are_have_no_forecast() {
    let mut observed = busy(2..=3);
    observed.drained = Some(Drained {
        since: at(0),
        reason: String::new(),
    });
    assert_eq!(observed.forecast(&BTreeMap::new(), at(12)), []);
    let mut observed = busy(2..=2);
    observed.queue[0].after = vec![BuildId(99)];
    assert_eq!(observed.forecast(&BTreeMap::new(), at(12)), []);
}

#[test]
fn only_the_next_builds_of_a_long_queue_are_simulated() {
    let mut observed = busy(2..=1001);
    observed.queue[900].priority = Priority(1);
    let forecast = observed.forecast(&BTreeMap::new(), at(12));
    assert_eq!(forecast.len(), FORECAST_MAX);
    assert_eq!(forecast[0].id, BuildId(902));
}

/// A build of the scripted run: its machine, submitter, priority, duration, and whether it is
/// to come after the build before it.
type Scripted = (usize, usize, i32, u64, bool);

/// Returns a host with the scripted builds in its queue, and their durations.
fn scripted(builds: &[Scripted], slots: usize) -> (Observed, BTreeMap<BuildId, ExpectedDuration>) {
    let mut observed = bootstrapped_machines(&["small", "large"]);
    observed.capacity.guests = Some(slots);
    observed.rules = crate::admission::Rules {
        aging: Some(Duration::from_mins(1)),
        backfill: Duration::from_secs(30),
    };
    for (name, memory) in [("small", 500), ("large", 3000)] {
        let request = ResourceRequest {
            cpus: 1,
            memory,
            ..ResourceRequest::default()
        };
        observed.requests.insert(key_of(name), request);
    }
    observed.now = at(1);
    let mut durations = BTreeMap::new();
    for ((machine, submitter, priority, seconds, after), id) in builds.iter().zip(10..) {
        let mut build = queued(id, ["small", "large"][*machine]);
        build.submitter = ["ann", "bob"][*submitter].parse().unwrap();
        build.priority = Priority(*priority);
        build.since = at(1);
        if *after && id > 10 {
            build.after = vec![BuildId(id - 1)];
            let pending = DependencyState::Pending;
            observed.dependencies.insert(BuildId(id - 1), pending);
        }
        durations.insert(BuildId(id), lasting(*seconds));
        observed.queue.push(build);
    }
    (observed, durations)
}

/// Runs the host second by second with these durations, as the scheduler does, and returns the
/// starts.
fn run(mut host: Observed, durations: &BTreeMap<BuildId, ExpectedDuration>) -> Vec<(u64, i64)> {
    let mut starts = Vec::new();
    let mut shares = host.shares.clone();
    let available = host.capacity.available;
    while !host.queue.is_empty() {
        let now = host.now;
        let is_over = |id: &BuildId, running: &RunningBuild| {
            now.duration_since(running.since).unsigned_abs() >= durations[id].duration
        };
        let mut ended = Vec::new();
        host.running.retain(|id, running| {
            let over = is_over(id, running);
            if over {
                ended.push(*id);
            }
            !over
        });
        for id in ended {
            host.jobs.builds.remove(&id);
            host.dependencies.insert(id, DependencyState::Succeeded);
        }
        let used: u64 = host
            .jobs
            .builds
            .values()
            .map(|key| host.request(key).memory)
            .sum();
        host.capacity.available = available - used;
        shares.observe(host.usage(), &host.contenders(), &host.pool(), now);
        host.shares = shares.clone();
        for action in host.plan() {
            let Action::StartBuild(start) = action else {
                continue;
            };
            starts.push((start.id.0, now.as_second()));
            host.queue.retain(|queued| queued.id != start.id);
            let running = RunningBuild {
                submitter: start.submitter.clone(),
                since: now,
                may_be_on_trial: false,
            };
            host.running.insert(start.id, running);
            host.jobs.builds.insert(start.id, start.key);
            let usage = RunningUsage {
                submitter: start.submitter,
                since: now,
                request: start.request,
            };
            shares.begin(start.id, usage);
        }
        // The scheduler sees each build that it has started, also the shortest one.
        shares.observe(host.usage(), &host.contenders(), &host.pool(), now);
        host.now = at(u64::try_from(now.as_second()).unwrap() + 1);
        assert!(host.now < at(10_000), "{host:?}");
    }
    starts
}

fn script() -> impl Strategy<Value = Vec<Scripted>> {
    let build = (0..2usize, 0..2usize, -1..2i32, 1..90u64, any::<bool>());
    prop::collection::vec(build, 1..9)
}

/// The seconds by which a forecast may differ from what the planner then does: between the ends of
/// two guests, the use of the host by submitters grows and can change their order.
const OFF_MAX: u64 = 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_exact_durations_a_forecast_is_within_a_minute_of_what_the_planner_then_does(
        builds in script(),
        slots in 1..4usize,
    ) {
        let (host, durations) = scripted(&builds, slots);
        let forecast = host.forecast(&durations, host.now);
        let forecast: BTreeMap<_, _> = starts(&forecast).into_iter().collect();
        let real: BTreeMap<_, _> = run(host, &durations).into_iter().collect();
        prop_assert_eq!(
            forecast.keys().collect::<Vec<_>>(),
            real.keys().collect::<Vec<_>>()
        );
        for (id, at) in &real {
            let off = forecast[id].abs_diff(*at);
            prop_assert!(off <= OFF_MAX, "build {}: {:?}, really {:?}", id, forecast, real);
        }
    }

    #[test]
    fn a_forecast_is_in_the_order_of_its_starts_and_never_in_the_past(
        builds in script(),
        slots in 1..4usize,
        known in any::<u16>(),
        late in 0..100u64,
    ) {
        let (host, mut durations) = scripted(&builds, slots);
        durations.retain(|id, _| known & (1 << (id.0 - 10)) != 0);
        let asked = at(1 + late);
        let forecast = host.forecast(&durations, asked);
        prop_assert_eq!(forecast.len(), builds.len(), "each build starts some day");
        prop_assert!(forecast.iter().all(|start| start.at >= asked));
        prop_assert!(forecast.is_sorted_by_key(|start| start.at));
    }
}
