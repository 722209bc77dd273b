//! Timing of operations, and the statistics of repeated timings.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// The cost of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// The duration.
    pub wall: Duration,
    /// The time on processors, of all threads and of all child processes that have ended.
    pub cpu: Duration,
}

/// Durations under names, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Timings(Vec<(String, Duration)>);

impl Timings {
    /// Adds a duration under a name.
    pub fn add(&mut self, name: &str, duration: Duration) {
        self.0.push((name.to_owned(), duration));
    }

    /// Returns the median of the durations under a name in seconds, or `None` if there are none.
    pub fn median(&self, name: &str) -> Option<f64> {
        let durations = self.0.iter().filter(|(other, _)| other == name);
        let durations: Vec<_> = durations.map(|(_, duration)| *duration).collect();
        (!durations.is_empty()).then(|| median(durations).as_secs_f64())
    }

    /// Prints the median of the durations under a name and returns it in seconds.
    pub fn print_median(&self, name: &str) -> f64 {
        let median = self.median(name).unwrap();
        println!("{:>9.1} ms  {name}", median * 1e3);
        median
    }
}

/// Runs an operation and returns its duration.
pub fn time(operation: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    operation()?;
    Ok(began.elapsed())
}

/// Runs an operation and returns its cost.
pub fn measure(operation: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let before = cpu_time()?;
    let wall = time(operation)?;
    let cpu = cpu_time()?.saturating_sub(before);
    Ok(Cost { wall, cpu })
}

/// Returns the time on processors of this process and of its children that have ended.
fn cpu_time() -> Result<Duration> {
    let mut total = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        total += duration(usage.user_time()) + duration(usage.system_time());
    }
    Ok(total)
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let microseconds = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// Runs two operations alternately, so that both see the same load of the machine, and returns the
/// results of each.
pub fn alternate<T>(
    rounds: usize,
    mut one: impl FnMut() -> Result<T>,
    mut other: impl FnMut() -> Result<T>,
) -> Result<(Vec<T>, Vec<T>)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        first.push(one()?);
        second.push(other()?);
    }
    Ok((first, second))
}

/// Returns the median of both costs.
pub fn median_cost(costs: &[Cost]) -> Cost {
    Cost {
        wall: median(costs.iter().map(|it| it.wall).collect()),
        cpu: median(costs.iter().map(|it| it.cpu).collect()),
    }
}

/// Returns the median.
pub fn median(durations: Vec<Duration>) -> Duration {
    quantile(durations, 0.5)
}

/// Returns the duration that a fraction of all durations does not exceed.
pub fn quantile(mut durations: Vec<Duration>, fraction: f64) -> Duration {
    durations.sort();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a fraction of a length is an index"
    )]
    let index = (durations.len() as f64 * fraction) as usize;
    let last = durations.len().saturating_sub(1);
    durations.get(index.min(last)).copied().unwrap_or_default()
}
