//! Timing of operations, and the statistics of repeated timings.

use std::time::{Duration, Instant};

use anyhow::Result;

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

/// Runs two operations alternately, so that both see the same load of the machine, and returns the
/// durations of each.
pub fn alternate(
    rounds: usize,
    mut one: impl FnMut() -> Result<Duration>,
    mut other: impl FnMut() -> Result<Duration>,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        first.push(one()?);
        second.push(other()?);
    }
    Ok((first, second))
}

/// Returns the shortest duration: other load can only prolong an operation. Suits few runs of a
/// long operation.
pub fn shortest(durations: &[Duration]) -> Duration {
    durations.iter().min().copied().unwrap_or_default()
}

/// Returns the median. Suits many runs of a short operation.
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
