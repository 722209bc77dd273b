//! A rate limit: a bucket that fills with tokens at a constant rate.

use std::time::{Duration, Instant};

/// A token bucket. It starts full.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// Returns a full bucket that gains `per_second` tokens a second and holds as many as
    /// come in `burst`. The rate must be positive.
    pub fn new(per_second: u32, burst: Duration, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        let capacity = (per_second * burst.as_secs_f64()).max(1.0);
        Self {
            per_second,
            capacity,
            tokens: capacity,
            updated: now,
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The bucket is empty; the error is the time until the next token.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.tokens = self.tokens_at(now);
        self.updated = self.updated.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.tokens) / self.per_second;
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// Returns true if the bucket equals a new one.
    pub fn is_full(&self, now: Instant) -> bool {
        self.tokens_at(now) >= self.capacity
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        (self.tokens + elapsed * self.per_second).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_request_waits() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2, Duration::from_secs(10), start);
        assert!((0..20).all(|_| bucket.take(start).is_ok()));
        let wait = Duration::from_millis(500);
        assert_eq!(bucket.take(start), Err(wait));
        assert_eq!(bucket.take(start + wait), Ok(()));
        assert_eq!(bucket.take(start + wait), Err(wait));
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1, Duration::from_secs(1), start);
        bucket.take(start).unwrap();
        for _ in 0..100 {
            bucket.take(start).unwrap_err();
        }
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_bucket_never_holds_more_than_its_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, Duration::from_secs(1), start);
        let later = start + Duration::from_hours(1);
        assert!(bucket.is_full(later));
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
        assert!(!bucket.is_full(later));
        assert!(bucket.is_full(later + Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_backward_adds_no_tokens() {
        let before = Instant::now();
        let start = before + Duration::from_secs(5);
        let mut bucket = TokenBucket::new(1, Duration::from_secs(1), start);
        bucket.take(start).unwrap();
        bucket.take(before).unwrap_err();
        bucket.take(start).unwrap_err();
    }
}
