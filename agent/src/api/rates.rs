//! How many requests a client may make: a bucket of tokens for each address, which
//! fills at the rate of the settings and holds ten seconds' worth.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many seconds' worth of requests may come at once.
const BURST_SECONDS: f64 = 10.0;
/// How many clients are known; beyond them, those that have been quiet are forgotten.
const CLIENTS_MAX: usize = 10_000;

/// The buckets of all clients.
#[derive(Debug)]
pub(super) struct Rates {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// No limit at all if 0.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: per_second.into(),
            buckets: Mutex::default(),
        }
    }

    /// Takes a token; when there is none, how long it takes until there is one.
    pub(super) fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let full = self.per_second * BURST_SECONDS;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CLIENTS_MAX {
            // A full bucket is as good as none.
            buckets.retain(|_, bucket| self.filled(*bucket, now) < full);
            if buckets.len() >= CLIENTS_MAX {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(network(client)).or_insert(Bucket {
            tokens: full,
            at: now,
        });
        let tokens = self.filled(*bucket, now);
        let left = tokens - 1.0;
        *bucket = Bucket {
            tokens: if left < 0.0 { tokens } else { left },
            at: now,
        };
        if left < 0.0 {
            return Err(Duration::from_secs_f64(-left / self.per_second));
        }
        Ok(())
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let waited = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.tokens + waited * self.per_second).min(self.per_second * BURST_SECONDS)
    }
}

/// Who has one address of IPv6 has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asks_too_often_is_told_when_to_come_again() {
        let rates = Rates::new(2);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(rates.take(one, start), Ok(()));
        }
        assert_eq!(rates.take(one, start), Err(Duration::from_millis(500)));
        assert_eq!(rates.take(other, start), Ok(()));
        let later = start + Duration::from_millis(500);
        assert_eq!(rates.take(one, later), Ok(()));
        assert!(rates.take(one, later).is_err());
        let none = Rates::new(0);
        assert!((0..1000).all(|_| none.take(one, start).is_ok()));
    }

    #[test]
    fn the_addresses_of_a_network_share_a_bucket_and_all_buckets_are_bounded() {
        let rates = Rates::new(1);
        let start = Instant::now();
        for agent in 0..10 {
            let address = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, agent);
            assert_eq!(rates.take(address.into(), start), Ok(()));
        }
        assert!(rates.take("fd00::ffff".parse().unwrap(), start).is_err());
        for agent in 0..=CLIENTS_MAX {
            let address = std::net::Ipv4Addr::from(u32::try_from(agent).unwrap());
            let _ = rates.take(address.into(), start);
        }
        assert!(rates.buckets.lock().unwrap().len() <= CLIENTS_MAX);
    }
}
