//! The statistics that `get-stats` returns.

use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// Number, total, maximum and standard deviation of durations, computed in one pass (Welford).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    number: u64,
    total: f64,
    max: f64,
    mean: f64,
    squares: f64,
}

impl Statistics {
    /// Adds a number of requests that took equally long.
    pub(crate) fn add(&mut self, number: u64, each: Duration) {
        if number == 0 {
            return;
        }
        let seconds = each.as_secs_f64();
        let (old, new) = (to_f64(self.number), to_f64(number));
        let distance = seconds - self.mean;
        self.number += number;
        self.mean += distance * new / to_f64(self.number);
        self.squares += distance * distance * old * new / to_f64(self.number);
        self.total += seconds * new;
        self.max = self.max.max(seconds);
    }

    fn deviation(&self) -> f64 {
        if self.number <= 1 {
            return 0.0;
        }
        (self.squares / to_f64(self.number - 1)).sqrt()
    }
}

impl Serialize for Statistics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_struct("Statistics", 5)?;
        members.serialize_field("num", &self.number)?;
        members.serialize_field("total_time", &self.total)?;
        members.serialize_field("max_time", &self.max)?;
        members.serialize_field("average", &self.mean)?;
        members.serialize_field("stdev", &self.deviation())?;
        members.end()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "statistics need no more than 52 bits"
)]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_requests_count_as_single_ones() {
        let (mut single, mut grouped) = (Statistics::default(), Statistics::default());
        for (number, millis) in [(3, 10), (1, 50), (4, 20)] {
            let each = Duration::from_millis(millis);
            grouped.add(number, each);
            for _ in 0..number {
                single.add(1, each);
            }
        }
        grouped.add(0, Duration::from_secs(9));
        assert_eq!(single.number, grouped.number);
        for (a, b) in [
            (single.mean, grouped.mean),
            (single.deviation(), grouped.deviation()),
            (grouped.mean, 0.020),
            (grouped.total, 0.160),
            (grouped.max, 0.050),
        ] {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
        assert!((grouped.deviation() - 0.013_093_073_414_159_54).abs() < 1e-12);
    }
}
