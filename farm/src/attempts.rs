//! The attempts with unknown secrets, which are bounded before the database is asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sys::token_bucket::TokenBucket;

/// The attempts per second, and the time in which those accumulate that may be made at once.
const PER_SECOND: u32 = 20;
const BURST: Duration = Duration::from_secs(30);
/// The time for which a good secret is remembered, and the most of them.
const GOOD: Duration = Duration::from_mins(10);
const GOOD_MAX: usize = 20_000;

/// A bound for attempts. Secrets that were good lately do not count, so that a flood of bad ones keeps
/// nobody out who works with the farm.
#[derive(Debug)]
pub struct Attempts(Mutex<State>);

#[derive(Debug)]
struct State {
    bucket: TokenBucket,
    good: BTreeMap<[u8; 32], Instant>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Attempts {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            bucket: TokenBucket::new(PER_SECOND, BURST, now),
            good: BTreeMap::new(),
        }))
    }

    /// Counts an attempt with the hash of a secret.
    ///
    /// # Errors
    /// There were too many; the error is the time until the next one.
    pub fn admit(&self, secret: &[u8; 32], now: Instant) -> Result<(), Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.good.get(secret);
        if known.is_some_and(|since| now.saturating_duration_since(*since) < GOOD) {
            return Ok(());
        }
        state.bucket.take(now)
    }

    /// Remembers a good secret.
    pub fn succeeded(&self, secret: [u8; 32], now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.good.len() >= GOOD_MAX {
            let is_young = |since: &Instant| now.saturating_duration_since(*since) < GOOD;
            state.good.retain(|_, since| is_young(since));
            if state.good.len() >= GOOD_MAX {
                state.good.clear();
            }
        }
        state.good.insert(secret, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_bad_secrets_is_refused_and_good_ones_are_not() {
        let now = Instant::now();
        let attempts = Attempts::new(now);
        attempts.succeeded([7; 32], now);
        let admitted = (0..1_000).filter(|_| attempts.admit(&[1; 32], now).is_ok());
        assert_eq!(admitted.count(), 600);
        assert_eq!(attempts.admit(&[7; 32], now), Ok(()));
        assert_eq!(
            attempts.admit(&[1; 32], now),
            Err(Duration::from_millis(50))
        );
        assert!(attempts.admit(&[7; 32], now + GOOD).is_ok());
    }

    #[test]
    fn good_secrets_are_bounded() {
        let now = Instant::now();
        let attempts = Attempts::new(now);
        for number in 0..2 * GOOD_MAX {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&number.to_le_bytes());
            attempts.succeeded(secret, now);
        }
        let state = attempts.0.lock().unwrap();
        assert!(state.good.len() <= GOOD_MAX);
    }
}
