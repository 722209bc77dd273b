//! Latencies in buckets that are 1/64 of their size wide.

use std::time::Duration;

const STEPS: u32 = 64;

/// Counts by latency.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; 64 * STEPS as usize],
        }
    }
}

impl Latencies {
    /// Counts requests that took so long.
    pub(crate) fn note(&mut self, time: Duration, requests: usize) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.buckets[bucket(nanos)] += requests as u64;
    }

    /// Takes others in.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The latency that this part of all did not exceed.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a part of a count is a count"
        )]
        let mut left = (self.count() as f64 * part) as u64;
        for (index, count) in self.buckets.iter().enumerate() {
            if *count > left {
                return Duration::from_nanos(lower_bound(index));
            }
            left -= count;
        }
        Duration::MAX
    }
}

fn bucket(nanos: u64) -> usize {
    let power = nanos.ilog2();
    let within = if power < 6 {
        0
    } else {
        (nanos >> (power - 6)) & u64::from(STEPS - 1)
    };
    (power * STEPS) as usize + usize::try_from(within).unwrap_or(0)
}

fn lower_bound(bucket: usize) -> u64 {
    let (power, within) = (bucket / STEPS as usize, bucket as u64 % u64::from(STEPS));
    let base = 1_u64 << power;
    if power < 6 {
        base
    } else {
        base + (within << (power - 6))
    }
}
