//! The rate limit for clients on the network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sys::token_bucket::TokenBucket;

use super::auth::Peer;
use super::error::ApiError;

/// The burst that a client may send at once, as the time in which it accumulates.
const BURST: Duration = Duration::from_secs(10);
/// The maximum number of buckets. Full ones are dropped first, because they equal new ones.
const BUCKETS_MAX: usize = 10_000;

/// A token bucket for each client. A client is an IPv4 address or an IPv6 /64 network.
#[derive(Debug)]
pub(super) struct RateLimiter {
    per_second: u32,
    buckets: Mutex<HashMap<IpAddr, TokenBucket>>,
}

impl RateLimiter {
    /// Returns a limiter to so many requests a second; 0 means no limit.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            buckets: Mutex::default(),
        }
    }

    /// Takes a token from the client's bucket.
    ///
    /// # Errors
    /// The bucket is empty; the error is the time until the next token.
    pub(super) fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock();
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| !bucket.is_full(now));
            if buckets.len() >= BUCKETS_MAX {
                buckets.clear();
            }
        }
        buckets
            .entry(network(client))
            .or_insert_with(|| TokenBucket::new(self.per_second, BURST, now))
            .take(now)
    }
}

/// Returns the address of a client's bucket. An IPv6 client usually has a whole /64 network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Refuses requests of a client on the network that exceeds its rate.
pub(super) async fn rate_limit(
    State(limiter): State<Arc<RateLimiter>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    // apt asks for each package by itself and does not wait; a file costs less than its connection.
    let is_file = request.uri().path().starts_with("/feed/");
    if let Peer::Remote(address) = peer
        && !is_file
        && let Err(wait) = limiter.take(address, Instant::now())
    {
        return ApiError::too_many_requests(wait).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_client_that_exceeds_its_rate_gets_the_time_to_wait() {
        let limiter = RateLimiter::new(2);
        let (one, other) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(limiter.take(one, start), Ok(()));
        }
        assert_eq!(limiter.take(one, start), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(other, start), Ok(()));
        let later = start + Duration::from_millis(500);
        assert_eq!(limiter.take(one, later), Ok(()));
        assert!(limiter.take(one, later).is_err());
        let unlimited = RateLimiter::new(0);
        assert!((0..1000).all(|_| unlimited.take(one, start).is_ok()));
    }

    #[test]
    fn addresses_of_a_network_share_a_bucket_and_the_number_of_buckets_is_bounded() {
        let limiter = RateLimiter::new(1);
        let start = Instant::now();
        for host in 0..10 {
            let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host);
            assert_eq!(limiter.take(address.into(), start), Ok(()));
        }
        assert!(limiter.take("fd00::ffff".parse().unwrap(), start).is_err());
        for host in 0..=BUCKETS_MAX {
            let address = Ipv4Addr::from(u32::try_from(host).unwrap());
            let _ = limiter.take(address.into(), start);
        }
        assert!(limiter.buckets.lock().len() <= BUCKETS_MAX);
    }
}
