//! How long to wait for the other side before something is sent again.

use std::time::Duration;

/// A guest that shares a processor with others may be away for this long.
const FLOOR: Duration = Duration::from_millis(15);
/// Before anything is known of the way there and back.
const START: Duration = Duration::from_millis(250);

/// There are clients that pass over what they have had already, but start their own
/// wait anew with each such packet. The longest wait must be longer than theirs, which
/// is 5 s for many, or both sides repeat themselves for ever.
const CEILING: Duration = Duration::from_secs(12);

/// The retransmission timer of RFC 6298 with a floor that suits a cable inside one
/// machine, so that a lost packet costs milliseconds.
#[derive(Debug)]
pub(crate) struct Rto {
    smooth: Option<Duration>,
    deviation: Duration,
    wait: Duration,
}

impl Rto {
    pub(crate) fn new() -> Self {
        Self {
            smooth: None,
            deviation: Duration::ZERO,
            wait: START,
        }
    }

    /// The time to wait now.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// The time that an answer usually takes.
    pub(crate) fn usual(&self) -> Duration {
        self.smooth.unwrap_or(START)
    }

    /// An answer came, `time` after it was last asked for. When that was more than once,
    /// it may belong to an earlier asking: then the time is too short by less than a
    /// wait, which grows from it until there is one asking only. One that took far longer
    /// than others was lost, and its sender repeated it by itself.
    pub(crate) fn answered(&mut self, time: Duration) {
        let usual = self.smooth.unwrap_or(CEILING);
        let time = time.min((usual * 4).max(FLOOR));
        let smooth = match self.smooth {
            None => {
                self.deviation = time / 2;
                time
            }
            Some(smooth) => {
                self.deviation = (self.deviation * 3 + smooth.abs_diff(time)) / 4;
                (smooth * 7 + time) / 8
            }
        };
        self.smooth = Some(smooth);
        self.went_on();
    }

    /// Something new came, which tells nothing of the way there and back.
    pub(crate) fn went_on(&mut self) {
        self.wait = self.smooth.map_or(START, |smooth| {
            (smooth + self.deviation * 4).clamp(FLOOR, CEILING)
        });
    }

    /// Nothing came in time.
    pub(crate) fn missed(&mut self) {
        self.wait = (self.wait * 2).min(CEILING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_the_way_and_doubles_when_nothing_comes() {
        let mut rto = Rto::new();
        assert_eq!(rto.wait(), START);
        for _ in 0..20 {
            rto.answered(Duration::from_micros(200));
        }
        assert_eq!(rto.wait(), FLOOR);
        for doublings in 1..=9 {
            rto.missed();
            assert_eq!(rto.wait(), FLOOR * 2_u32.pow(doublings));
        }
        rto.missed();
        assert_eq!(rto.wait(), CEILING);
        rto.answered(Duration::from_secs(5));
        assert!(rto.wait() < FLOOR * 2, "one long time says little");
        for _ in 0..50 {
            rto.answered(Duration::from_millis(300));
        }
        assert!((300..500).contains(&rto.wait().as_millis()));
    }
}
