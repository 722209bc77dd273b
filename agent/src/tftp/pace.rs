//! How long to wait for the other side before something is sent again.

use std::time::Duration;

/// A guest that shares a processor with others may be away for this long.
const FLOOR: Duration = Duration::from_millis(15);
/// Before anything is known of the way there and back.
const START: Duration = Duration::from_millis(250);

/// There are clients that pass over what they have had already, but start their
/// own wait anew with each such packet. A pause must be longer than their wait,
/// which is 5 s for many, or both sides repeat themselves for ever.
const PAUSE: Duration = Duration::from_secs(6);
const CEILING: Duration = Duration::from_secs(12);

/// The retransmission timer of RFC 6298 with a floor that suits a cable inside one
/// machine, so that a lost packet costs milliseconds.
#[derive(Debug)]
pub(super) struct Pace {
    smooth: Option<Duration>,
    deviation: Duration,
    wait: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            smooth: None,
            deviation: Duration::ZERO,
            wait: START,
        }
    }

    /// The time to wait now.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// The time that an answer usually takes.
    pub(super) fn usual(&self) -> Duration {
        self.smooth.unwrap_or(START)
    }

    /// An answer came after `time` to something that was sent once.
    pub(super) fn answered(&mut self, time: Duration) {
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
        self.wait = (smooth + self.deviation * 4).clamp(FLOOR, CEILING);
    }

    /// Now it is the other side's turn to repeat.
    pub(super) fn pause(&mut self) {
        self.wait = self.wait.max(PAUSE);
    }

    /// Nothing came in time.
    pub(super) fn missed(&mut self) {
        self.wait = (self.wait * 2).min(CEILING);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_the_way_and_doubles_when_nothing_comes() {
        let mut pace = Pace::new();
        assert_eq!(pace.wait(), START);
        for _ in 0..20 {
            pace.answered(Duration::from_micros(200));
        }
        assert_eq!(pace.wait(), FLOOR);
        for doublings in 1..=9 {
            pace.missed();
            assert_eq!(pace.wait(), FLOOR * 2_u32.pow(doublings));
        }
        pace.missed();
        assert_eq!(pace.wait(), CEILING);
        pace.answered(Duration::from_millis(300));
        assert!(pace.wait() > Duration::from_millis(100));
    }
}
