//! The network: delays, losses, repetitions and partitions.

use farm_core::messages::{Reply, Request};

use super::{Event, HOSTS, Origin, World};

/// The connections that are cut, each until a time.
#[derive(Debug, Default)]
pub(crate) struct Network {
    hosts: [[u64; 2]; HOSTS],
}

impl World {
    /// Cuts a host off from one coordinator or both.
    pub(super) fn partition(&mut self, host: usize, coordinators: &[usize], milliseconds: u64) {
        for coordinator in coordinators {
            self.network.hosts[host][*coordinator] = self.now + milliseconds;
        }
    }

    /// Returns the delay of a message, or `None` if it is lost.
    pub(super) fn transit(&mut self) -> Option<u64> {
        if self.is_calm() {
            return Some(self.rng.u64(1..10));
        }
        match self.rng.u32(0..100) {
            0..4 => {
                self.statistics.faults += 1;
                None
            }
            // A message that waited in a queue for longer than anybody for it.
            4..8 => {
                self.statistics.faults += 1;
                Some(self.rng.u64(500..9_000))
            }
            _ => Some(self.rng.u64(1..20)),
        }
    }

    /// Returns true while a host is cut off from a coordinator.
    pub(super) fn is_host_cut(&self, host: usize, coordinator: usize) -> bool {
        self.network.hosts[host][coordinator] > self.now
    }

    fn is_cut(&self, origin: Origin, coordinator: usize) -> bool {
        match origin {
            Origin::Host(host, _) => self.is_host_cut(host, coordinator),
            Origin::Client(_) => false,
        }
    }

    /// Sends a request to a coordinator, perhaps twice.
    pub(super) fn send(&mut self, from: Origin, request: &Request) {
        let coordinator = self.rng.usize(0..self.coordinators.len());
        let copies = if !self.is_calm() && self.rng.u32(0..100) < 4 {
            self.statistics.faults += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.is_cut(from, coordinator) {
                continue;
            }
            if let Some(delay) = self.transit() {
                self.after(delay, Event::Request(coordinator, from, request.clone()));
            }
        }
    }

    /// Sends a reply.
    pub(super) fn send_reply(&mut self, coordinator: usize, to: Origin, reply: Reply) {
        if self.is_cut(to, coordinator) {
            return;
        }
        if let Some(delay) = self.transit() {
            self.after(delay, Event::Reply(to, reply));
        }
    }
}
