//! Places for connections: a number in all, and a share for each peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A peer, for the share of places that it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerKey {
    /// An IPv4 address or an IPv6 /64 network.
    Network(IpAddr),
    /// A user of this host.
    User(u32),
}

/// The places of one or more listeners. Clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<PeerKey, usize>>>,
    per_peer_max: usize,
}

/// A place, which is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// The part of a peer's share that one connection takes.
#[derive(Debug)]
struct Share {
    peer: PeerKey,
    taken: Arc<Mutex<HashMap<PeerKey, usize>>>,
}

impl PeerKey {
    /// Returns the peer of an address. An IPv6 client usually has a whole /64 network.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

impl Places {
    /// Creates so many places, and lets each peer take so many of them.
    pub fn new(max: usize, per_peer_max: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            taken: Arc::default(),
            per_peer_max,
        }
    }

    /// Takes a place. Waits while all are taken. Returns `None` if the peer has its share, including
    /// places that it waits for.
    pub async fn take(&self, peer: PeerKey) -> Option<Place> {
        let share = self.share(peer)?;
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(Place {
            _permit: permit,
            _share: share,
        })
    }

    fn share(&self, peer: PeerKey) -> Option<Share> {
        let mut taken = lock(&self.taken);
        let count = taken.entry(peer).or_default();
        if *count >= self.per_peer_max {
            return None;
        }
        *count += 1;
        Some(Share {
            peer,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

fn lock(taken: &Mutex<HashMap<PeerKey, usize>>) -> MutexGuard<'_, HashMap<PeerKey, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> PeerKey {
        PeerKey::of_address(address.parse().unwrap())
    }

    #[tokio::test]
    async fn a_peer_gets_its_share_and_another_one_a_free_place() {
        let places = Places::new(3, 2);
        let (one, other) = (peer("10.0.0.1"), peer("10.0.0.2"));
        let first = places.take(one).await.unwrap();
        let _second = places.take(one).await.unwrap();
        assert!(places.take(one).await.is_none());
        let _third = places.take(other).await.unwrap();
        drop(first);
        assert!(places.take(one).await.is_some());
    }

    #[tokio::test]
    async fn a_place_is_waited_for_while_all_are_taken_and_no_peer_is_remembered() {
        let places = Places::new(1, 1);
        let first = places.take(PeerKey::User(0)).await.unwrap();
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take(PeerKey::User(1)).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(lock(&places.taken).is_empty());
    }

    #[test]
    fn addresses_of_a_network_are_one_peer() {
        assert_eq!(peer("fd00::1"), peer("fd00::2:1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("fd00:0:0:1::1"), peer("fd00::1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }
}
