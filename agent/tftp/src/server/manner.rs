//! How a client that puts a file behaves when a packet was lost.
//!
//! Some send a block again at once when they hear an old acknowledgement, and otherwise
//! wait for 5 s (curl). Others pass over it, but start their wait of 5 s anew with each
//! (tftp-hpa). And there are some that repeat themselves after 100 ms already and are
//! better not disturbed (busybox). What they do shows who they are.

use std::time::Duration;

/// So often an acknowledgement is repeated soon; if none of these helps, the client has
/// it, and what it sent was lost.
const REPEATS_MAX: u32 = 3;
/// For a client that has shown that it passes over them.
const REPEATS_DEAF: u32 = 2;
/// Longer than the wait that a repetition makes patient clients start anew.
const PAUSE: Duration = Duration::from_secs(6);
/// Who repeats itself soon has done so four times until now: it is another kind.
const HESITATION: Duration = Duration::from_secs(1);
/// The same for a client of whom nothing is known, where a mistake costs nothing.
const DOUBT: Duration = Duration::from_millis(250);
/// What comes so long after a repetition comes without regard to it.
const SLOW: Duration = Duration::from_secs(3);

/// What a client has shown so far.
#[derive(Debug)]
pub(super) struct Manner {
    /// It knows windows, so it does what RFC 7440 says: what we wish.
    windowed: bool,
    /// It has repeated itself soon.
    restless: bool,
    /// How often what was missing came soon after a repetition of ours, because it
    /// was heard or because our first acknowledgement had been lost.
    soon: u32,
    /// How often it came late.
    late: u32,
}

impl Manner {
    pub(super) fn new(window: u64) -> Self {
        Self {
            windowed: window > 1,
            restless: false,
            soon: 0,
            late: 0,
        }
    }

    /// How long to wait before an acknowledgement is repeated that was repeated
    /// `repeats` times, where `wait` would do for the line.
    ///
    /// `delicate` is the moment at the beginning, and the one at the end, when only the
    /// last block is missing. busybox (1.35, and all others that we have read) takes an
    /// old acknowledgement that comes while it waits for the last one to be its own kind
    /// of packet: when its wait is over it sends the last block once more, does not wait
    /// for the answer, and ends with status 0. If that packet is lost, the file never
    /// comes, and busybox has called it a success.
    pub(super) fn patience(&self, wait: Duration, repeats: u32, delicate: bool) -> Duration {
        let is_unknown = self.soon + self.late == 0;
        if self.windowed || self.is_keen() {
            wait.min(HESITATION)
        } else if repeats > REPEATS_MAX || (self.is_deaf() && repeats >= REPEATS_DEAF) {
            wait.max(PAUSE)
        } else if self.restless || repeats == REPEATS_MAX || delicate {
            wait.max(HESITATION)
        } else if is_unknown {
            wait.max(DOUBT)
        } else {
            wait
        }
    }

    /// Whether it hears our repetitions, beyond doubt.
    fn is_keen(&self) -> bool {
        self.soon >= 8 && !self.restless && !self.is_deaf()
    }

    /// Whether it passes over our repetitions. Then what it sent is lost as often as our
    /// acknowledgements are, of which a repetition makes up for the latter only.
    fn is_deaf(&self) -> bool {
        self.late * 4 > self.soon
    }

    /// What was missing came `time` after an acknowledgement was repeated.
    pub(super) fn went_on(&mut self, time: Duration) {
        if time < SLOW {
            self.soon += 1;
        } else {
            self.late += 1;
        }
    }

    /// It repeated what it had sent, `time` after our acknowledgement.
    pub(super) fn repeated_itself(&mut self, time: Duration) {
        self.restless |= time < HESITATION;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(15);

    /// The waits before the first five repetitions of one acknowledgement.
    fn waits(manner: &Manner) -> [Duration; 5] {
        [0, 1, 2, 3, 4].map(|repeats| manner.patience(WAIT, repeats, false))
    }

    #[test]
    fn who_hears_us_is_told_again_soon_and_who_does_not_is_left_alone() {
        let mut curl = Manner::new(1);
        assert_eq!(waits(&curl), [DOUBT, DOUBT, DOUBT, HESITATION, PAUSE]);
        assert_eq!(curl.patience(WAIT, 0, true), HESITATION);
        curl.went_on(WAIT);
        assert_eq!(waits(&curl), [WAIT, WAIT, WAIT, HESITATION, PAUSE]);
        (0..7).for_each(|_| curl.went_on(WAIT));
        assert_eq!(waits(&curl), [WAIT; 5]);
        assert_eq!(curl.patience(WAIT, 0, true), WAIT);

        let mut hpa = Manner::new(1);
        hpa.went_on(Duration::from_secs(5));
        (0..3).for_each(|_| hpa.went_on(WAIT));
        assert_eq!(waits(&hpa), [WAIT, WAIT, PAUSE, PAUSE, PAUSE]);
    }

    #[test]
    fn who_repeats_itself_is_not_disturbed() {
        let mut busybox = Manner::new(1);
        busybox.repeated_itself(Duration::from_millis(100));
        (0..20).for_each(|_| busybox.went_on(WAIT));
        let [first, .., last] = waits(&busybox);
        assert_eq!((first, last), (HESITATION, PAUSE));
        let mut curl = Manner::new(1);
        curl.repeated_itself(Duration::from_secs(5));
        assert_eq!(waits(&curl)[0], DOUBT);
        assert_eq!(waits(&Manner::new(16)), [WAIT; 5]);
    }
}
