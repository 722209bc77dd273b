//! The expected durations of builds, from those of earlier builds.

use std::time::Duration;

/// The durations of earlier builds that a build is compared with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// The durations in seconds, in ascending order.
    seconds: Vec<f64>,
    /// `true` if all were builds of the same package.
    same_package: bool,
}

/// The expected duration of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedDuration {
    /// The time from the start of its guest to its end.
    pub duration: Duration,
    /// The number of earlier builds that it comes from.
    pub builds: usize,
    /// `true` if all were builds of the same package.
    pub same_package: bool,
}

/// A quantile, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantile(usize);

impl Quantile {
    /// The median.
    pub const MEDIAN: Self = Self(50);
    /// The duration that only one build in ten exceeds.
    pub const HIGH: Self = Self(90);
}

impl Samples {
    /// Returns the samples of these durations, in seconds.
    pub fn new(mut seconds: Vec<f64>, same_package: bool) -> Self {
        seconds.retain(|it| it.is_finite() && *it >= 0.0);
        seconds.sort_by(f64::total_cmp);
        Self {
            seconds,
            same_package,
        }
    }

    /// Returns the expected duration of a build that has run for `elapsed`: a quantile of the
    /// durations that are longer. `None` if there is no such duration.
    pub fn expected(&self, quantile: Quantile, elapsed: Duration) -> Option<ExpectedDuration> {
        // A new build may be as short as the shortest one.
        let has_passed = |it: &f64| !elapsed.is_zero() && *it <= elapsed.as_secs_f64();
        let longer = &self.seconds[self.seconds.partition_point(has_passed)..];
        let rank = (longer.len() * quantile.0).div_ceil(100).max(1);
        let seconds = longer.get(rank - 1)?;
        Some(ExpectedDuration {
            duration: Duration::try_from_secs_f64(*seconds).ok()?,
            builds: longer.len(),
            same_package: self.same_package,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_expected_duration_is_a_quantile_of_the_longer_ones() {
        let samples = Samples::new(vec![50.0, 10.0, f64::NAN, 20.0, 40.0, 30.0], true);
        let expected = |quantile, elapsed| {
            let expected = samples.expected(quantile, Duration::from_secs(elapsed))?;
            Some((expected.duration.as_secs(), expected.builds))
        };
        assert_eq!(expected(Quantile::MEDIAN, 0), Some((30, 5)));
        assert_eq!(expected(Quantile::HIGH, 0), Some((50, 5)));
        assert_eq!(expected(Quantile::MEDIAN, 20), Some((40, 3)));
        assert_eq!(expected(Quantile::MEDIAN, 50), None, "longer than all");
        let none = Samples::new(Vec::new(), true);
        assert_eq!(none.expected(Quantile::MEDIAN, Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn a_build_is_expected_to_run_on_and_the_high_quantile_is_higher(
            seconds in prop::collection::vec(0.0..1e9f64, 0..40),
            elapsed in 1..1_000_000_000u64,
        ) {
            let samples = Samples::new(seconds, false);
            let elapsed = Duration::from_secs(elapsed);
            let median = samples.expected(Quantile::MEDIAN, elapsed);
            let high = samples.expected(Quantile::HIGH, elapsed);
            prop_assert_eq!(median.is_some(), high.is_some());
            if let Some((median, high)) = median.zip(high) {
                prop_assert!(elapsed < median.duration && median.duration <= high.duration);
            }
        }
    }
}
