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
    /// The load generator's own time on processors per request.
    pub(crate) generator_cpu: Duration,
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
    pub(crate) cpu: Option<f64>,
}

/// The medians of the ratios of a server to a reference in the same rounds.
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

    /// Returns the ratios to the rounds of a reference. Two rounds in turn see the same load of the
    /// host, which may differ from that of the next two.
    pub(crate) fn ratio_to(&self, reference: &Self, goal: Option<Goal>) -> Ratio {
        let ratios = |of: fn(&Round, &Round) -> f64| {
            let turns = self.0.iter().zip(&reference.0);
            sorted(turns.map(|(own, reference)| of(own, reference)))
        };
        Ratio {
            rate: median(&ratios(|own, reference| own.rate / reference.rate)),
            cpu: median(&ratios(|own, reference| {
                micros(reference.cpu) / micros(own.cpu)
            })),
            goal,
        }
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(&sorted(self.0.iter().map(of)))
    }

    fn min(&self, of: impl Fn(&Round) -> f64) -> f64 {
        sorted(self.0.iter().map(of))[0]
    }
}

fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn median(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2]
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Prints medians, and the least of what varies with the load of the host.
impl fmt::Display for Rounds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:>8.0}/s (min {:>7.0})  p50 {:>7.3} ms  p99 {:>7.3} ms  cpu {:>6.1} us \
             (min {:>6.1}, generator {:>5.1})",
            self.median(|round| round.rate),
            self.min(|round| round.rate),
            self.median(|round| micros(round.p50) / 1e3),
            self.median(|round| micros(round.p99) / 1e3),
            self.median(|round| micros(round.cpu)),
            self.min(|round| micros(round.cpu)),
            self.median(|round| micros(round.generator_cpu)),
        )
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "median ratio {:.1}, cpu {:.1}", self.rate, self.cpu)?;
        let Some(goal) = self.goal else {
            return Ok(());
        };
        write!(out, "  goal {:.1}", goal.rate)?;
        if let Some(cpu) = goal.cpu {
            write!(out, ", cpu {cpu:.1}")?;
        }
        let passes = self.rate >= goal.rate && goal.cpu.is_none_or(|cpu| self.cpu >= cpu);
        out.write_str(if passes { "  pass" } else { "  FAIL" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(numbers: &[(u32, u64)]) -> Rounds {
        let round = |&(rate, cpu)| Round {
            rate: f64::from(rate),
            cpu: Duration::from_micros(cpu),
            generator_cpu: Duration::from_micros(5),
            p50: Duration::from_micros(640),
            p99: Duration::from_micros(1500),
        };
        Rounds::new(numbers.iter().map(round).collect())
    }

    #[test]
    fn medians_and_minima_are_printed() {
        assert_eq!(
            rounds(&[(100, 12), (90, 10), (110, 11)]).to_string(),
            "     100/s (min      90)  p50   0.640 ms  p99   1.500 ms  cpu   11.0 us \
             (min   10.0, generator   5.0)"
        );
    }

    #[test]
    fn the_ratio_passes_if_all_reach_their_goals() {
        let (ours, theirs) = (rounds(&[(100, 10)]), rounds(&[(10, 60)]));
        let ratio = |rate, cpu| ours.ratio_to(&theirs, Some(Goal { rate, cpu })).to_string();
        let text = "median ratio 10.0, cpu 6.0  goal";
        for (rate, cpu, expected) in [
            (10.0, Some(6.0), "10.0, cpu 6.0  pass"),
            (10.0, Some(6.5), "10.0, cpu 6.5  FAIL"),
            (11.0, Some(6.0), "11.0, cpu 6.0  FAIL"),
            (10.0, None, "10.0  pass"),
        ] {
            assert_eq!(ratio(rate, cpu), format!("{text} {expected}"));
        }
    }

    #[test]
    fn a_ratio_is_one_of_rounds_in_turn() {
        let ours = rounds(&[(100, 10), (20, 50), (120, 10)]);
        let theirs = rounds(&[(10, 60), (2, 300), (12, 60)]);
        let ratio = ours.ratio_to(&theirs, None).to_string();
        assert_eq!(ratio, "median ratio 10.0, cpu 6.0");
    }
}
