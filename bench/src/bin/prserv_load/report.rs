//! The results of several rounds, and their comparison with a reference of the same rounds.

use std::fmt;
use std::time::Duration;

/// The result of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// The answered requests per second.
    pub(crate) rate: f64,
    /// The server's time on processors per request.
    pub(crate) cpu: Duration,
    /// The latency that half of the requests did not exceed.
    pub(crate) p50: Duration,
    /// The latency that 99 % of the requests did not exceed.
    pub(crate) p99: Duration,
}

/// The rounds of one server.
#[derive(Debug, Clone)]
pub(crate) struct Rounds(Vec<Round>);

/// The least ratios that pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// Of the rates.
    pub(crate) rate: f64,
    /// Of the reference's time on processors per request to that of the server.
    pub(crate) cpu: f64,
}

/// The ratios of the medians of a server and of a reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    rate: f64,
    cpu: f64,
    goal: Option<Goal>,
}

impl Rounds {
    /// Creates a list. It must not be empty.
    pub(crate) fn new(rounds: Vec<Round>) -> Self {
        Self(rounds)
    }

    /// Returns the ratios to the rounds of a reference.
    pub(crate) fn ratio_to(&self, reference: &Self, goal: Option<Goal>) -> Ratio {
        let (rate, cpu) = (
            |round: &Round| round.rate,
            |round: &Round| micros(round.cpu),
        );
        Ratio {
            rate: self.median(rate) / reference.median(rate),
            cpu: reference.median(cpu) / self.median(cpu),
            goal,
        }
    }

    fn sorted(&self, of: impl Fn(&Round) -> f64) -> Vec<f64> {
        let mut numbers: Vec<f64> = self.0.iter().map(of).collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let numbers = self.sorted(of);
        numbers[(numbers.len() - 1) / 2]
    }

    fn min(&self, of: impl Fn(&Round) -> f64) -> f64 {
        self.sorted(of)[0]
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Prints medians, and the least of what varies with the load of the host.
impl fmt::Display for Rounds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:>8.0}/s (min {:>7.0})  p50 {:>7.3} ms  p99 {:>7.3} ms  cpu {:>6.1} us (min {:>6.1})",
            self.median(|round| round.rate),
            self.min(|round| round.rate),
            self.median(|round| micros(round.p50) / 1e3),
            self.median(|round| micros(round.p99) / 1e3),
            self.median(|round| micros(round.cpu)),
            self.min(|round| micros(round.cpu)),
        )
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "ratio of the medians {:.1}, cpu {:.1}",
            self.rate, self.cpu
        )?;
        let Some(goal) = self.goal else {
            return Ok(());
        };
        let passes = self.rate >= goal.rate && self.cpu >= goal.cpu;
        let verdict = if passes { "pass" } else { "FAIL" };
        write!(
            out,
            "  goal {:.1}, cpu {:.1}  {verdict}",
            goal.rate, goal.cpu
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(numbers: &[(u32, u64)]) -> Rounds {
        let round = |&(rate, cpu)| Round {
            rate: f64::from(rate),
            cpu: Duration::from_micros(cpu),
            p50: Duration::from_micros(640),
            p99: Duration::from_micros(1500),
        };
        Rounds::new(numbers.iter().map(round).collect())
    }

    #[test]
    fn medians_and_minima_are_printed() {
        assert_eq!(
            rounds(&[(100, 12), (90, 10), (110, 11)]).to_string(),
            "     100/s (min      90)  p50   0.640 ms  p99   1.500 ms  cpu   11.0 us (min   10.0)"
        );
    }

    #[test]
    fn the_ratio_passes_if_both_reach_the_goal() {
        let (ours, theirs) = (rounds(&[(100, 10)]), rounds(&[(10, 60)]));
        let ratio = |rate, cpu| ours.ratio_to(&theirs, Some(Goal { rate, cpu })).to_string();
        let text = "ratio of the medians 10.0, cpu 6.0  goal";
        assert_eq!(ratio(10.0, 6.0), format!("{text} 10.0, cpu 6.0  pass"));
        assert_eq!(ratio(10.0, 6.5), format!("{text} 10.0, cpu 6.5  FAIL"));
        assert_eq!(ratio(11.0, 6.0), format!("{text} 11.0, cpu 6.0  FAIL"));
    }
}
