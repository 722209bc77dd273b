//! The pauses between requests, with jitter, so that many hosts do not ask at the same instant; pure.

use std::time::Duration;

/// The pause after the first failed report; doubled after each further one.
const REPORT_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between reports.
const REPORT_PAUSE_MAX: Duration = Duration::from_mins(5);
/// The longest pause between requests to a controller that fails, in multiples of the usual one.
const FAILED_POLLS_MAX: u32 = 10;

/// Returns the pause before a report is sent again after so many failures. `draw` is a random number.
pub fn report(failures: u32, draw: u64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    jittered(
        REPORT_PAUSE.saturating_mul(doubled).min(REPORT_PAUSE_MAX),
        draw,
    )
}

/// Returns the pause before a controller is asked again: after an answer without a task, or after so
/// many failures in a row.
pub fn poll(usual: Duration, failures: u32, draw: u64) -> Duration {
    let factor = 2_u32.saturating_pow(failures.min(16)).min(FAILED_POLLS_MAX);
    jittered(usual.saturating_mul(factor), draw)
}

/// Returns a duration that varies by up to a fifth.
fn jittered(duration: Duration, draw: u64) -> Duration {
    let thousandths = 800 + u32::try_from(draw % 401).unwrap_or_default();
    duration / 1000 * thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_vary_by_a_fifth() {
        let exact = 200;
        let seconds = |failures| report(failures, exact).as_secs();
        assert_eq!([1, 2, 3, 8, 9, 99].map(seconds), [2, 4, 8, 256, 300, 300]);
        let usual = Duration::from_mins(1);
        let minutes = |failures| poll(usual, failures, exact).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 4, 99].map(minutes), [1, 2, 4, 8, 10, 10]);
        for draw in [0, 1, 400, 401, u64::MAX] {
            let pause = poll(usual, 0, draw).as_secs();
            assert!((48..=72).contains(&pause), "{pause}");
        }
        assert_ne!(poll(usual, 0, 0), poll(usual, 0, 400));
    }
}
