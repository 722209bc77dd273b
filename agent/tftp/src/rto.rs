//! The retransmission timer (RFC 6298).

use std::time::Duration;

/// The shortest timeout. RFC 6298 prescribes one second, but this network is inside one machine,
/// where a retransmission after milliseconds is cheap. It is long enough for a guest that waits
/// for a shared processor.
const MIN: Duration = Duration::from_millis(15);
/// The timeout before the first measurement.
const INITIAL: Duration = Duration::from_millis(250);
/// The largest measurement, as a multiple of the smoothed round-trip time. A longer time includes
/// a retransmission by the peer.
const MEASURED_FACTOR_MAX: u32 = 4;

/// A retransmission timeout that follows the measured round-trip times.
#[derive(Debug)]
pub(crate) struct Rto {
    max: Duration,
    /// The smoothed round-trip time (`SRTT`).
    smoothed: Option<Duration>,
    /// Its variation (`RTTVAR`).
    variation: Duration,
    timeout: Duration,
}

impl Rto {
    /// Creates a timer whose timeout never exceeds `max`.
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            max,
            smoothed: None,
            variation: Duration::ZERO,
            timeout: INITIAL,
        }
    }

    /// Returns the time to wait before a retransmission.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the smoothed round-trip time.
    #[cfg(feature = "server")]
    pub(crate) fn round_trip(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL)
    }

    /// Adds a measurement and ends the backoff.
    pub(crate) fn add_measurement(&mut self, time: Duration) {
        let usual = self.smoothed.unwrap_or(self.max);
        let time = time.min((usual * MEASURED_FACTOR_MAX).max(MIN));
        match self.smoothed {
            None => {
                self.variation = time / 2;
                self.smoothed = Some(time);
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(time)) / 4;
                self.smoothed = Some((smoothed * 7 + time) / 8);
            }
        }
        self.reset();
    }

    /// Ends the backoff after progress that does not measure a round trip.
    pub(crate) fn reset(&mut self) {
        self.timeout = self.smoothed.map_or(INITIAL, |smoothed| {
            (smoothed + self.variation * 4).clamp(MIN, self.max)
        });
    }

    /// Doubles the timeout after it has expired.
    pub(crate) fn back_off(&mut self) {
        self.timeout = (self.timeout * 2).min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(12);

    #[test]
    fn the_timeout_follows_measurements_and_doubles_on_loss() {
        let mut rto = Rto::new(MAX);
        assert_eq!(rto.timeout(), INITIAL);
        for _ in 0..20 {
            rto.add_measurement(Duration::from_micros(200));
        }
        assert_eq!(rto.timeout(), MIN);
        for doublings in 1..=9 {
            rto.back_off();
            assert_eq!(rto.timeout(), MIN * 2_u32.pow(doublings));
        }
        rto.back_off();
        assert_eq!(rto.timeout(), MAX);
        rto.add_measurement(Duration::from_secs(5));
        assert!(rto.timeout() < MIN * 2, "one outlier changes little");
        for _ in 0..50 {
            rto.add_measurement(Duration::from_millis(300));
        }
        assert!((300..500).contains(&rto.timeout().as_millis()));
    }

    #[test]
    fn progress_without_a_measurement_ends_the_backoff() {
        let mut rto = Rto::new(Duration::from_secs(2));
        for _ in 0..50 {
            rto.add_measurement(Duration::from_millis(100));
        }
        assert!((100..150).contains(&rto.timeout().as_millis()));
        for _ in 0..50 {
            rto.back_off();
        }
        assert_eq!(rto.timeout(), Duration::from_secs(2));
        rto.reset();
        assert!((100..150).contains(&rto.timeout().as_millis()));
    }
}
