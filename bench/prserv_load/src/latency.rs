//! A histogram of latencies. The width of a bucket is at most 1/64 of its lower bound.

use std::time::Duration;

const BUCKETS_PER_OCTAVE: u32 = 64;

/// A histogram of latencies.
#[derive(Debug, Clone)]
pub(crate) struct LatencyHistogram {
    buckets: Vec<u64>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; 64 * BUCKETS_PER_OCTAVE as usize],
        }
    }
}

impl LatencyHistogram {
    /// Records requests with the same latency.
    pub(crate) fn record(&mut self, latency: Duration, requests: usize) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.buckets[bucket(nanos)] += requests as u64;
    }

    /// Adds the counts of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, other_count) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += other_count;
        }
    }

    /// Returns the number of recorded requests.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the latency that a fraction of all requests did not exceed.
    pub(crate) fn quantile(&self, fraction: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a fraction of a count is a count"
        )]
        let mut remaining = (self.count() as f64 * fraction) as u64;
        for (index, count) in self.buckets.iter().enumerate() {
            if *count > remaining {
                return Duration::from_nanos(lower_bound(index));
            }
            remaining -= count;
        }
        Duration::MAX
    }
}

fn bucket(nanos: u64) -> usize {
    let power = nanos.ilog2();
    let within = if power < 6 {
        0
    } else {
        (nanos >> (power - 6)) & u64::from(BUCKETS_PER_OCTAVE - 1)
    };
    (power * BUCKETS_PER_OCTAVE) as usize + usize::try_from(within).unwrap_or(0)
}

fn lower_bound(bucket: usize) -> u64 {
    let (power, within) = (
        bucket / BUCKETS_PER_OCTAVE as usize,
        bucket as u64 % u64::from(BUCKETS_PER_OCTAVE),
    );
    let base = 1_u64 << power;
    if power < 6 {
        base
    } else {
        base + (within << (power - 6))
    }
}
