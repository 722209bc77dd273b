//! The watch of a coordinator over the hosts: leases end by observation, not by a clock that others
//! set.

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::HostRow;
use crate::{HostId, Moment};

/// The last change of each host's beat, on the clock of one coordinator.
///
/// A coordinator takes the leases of a host if it has itself seen the same beat for a whole lease. So
/// neither a clock that is set nor a fail-over of the database ends a lease early, and a coordinator
/// that was just started waits.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    seen: BTreeMap<HostId, (u64, Moment)>,
    orders: BTreeMap<HostId, u64>,
}

impl Watch {
    /// Notes what was read between `asked` and now, and returns the hosts that have lost their leases,
    /// each with its beat.
    ///
    /// A new beat counts from `answered`, because it may have been made just before it was read.
    pub fn observe(
        &mut self,
        answered: Moment,
        hosts: &[HostRow],
        lease_ms: u64,
    ) -> Vec<(HostId, u64)> {
        let known: BTreeSet<_> = hosts.iter().map(|it| it.host).collect();
        self.seen.retain(|host, _| known.contains(host));
        let mut lost = Vec::new();
        for row in hosts {
            let seen = self.seen.entry(row.host).or_insert((row.beat, answered));
            if seen.0 != row.beat {
                *seen = (row.beat, answered);
            }
            if row.leases > 0 && answered.since(seen.1) >= lease_ms {
                lost.push((row.host, row.beat));
            }
        }
        lost
    }

    /// Returns the hosts that have orders since the last look. Their held polls are answered, so that the
    /// next ones find the orders.
    pub fn ordered(&mut self, hosts: &[HostRow]) -> Vec<HostId> {
        let last = std::mem::take(&mut self.orders);
        self.orders = hosts.iter().map(|it| (it.host, it.orders)).collect();
        let known = |host: HostId| last.get(&host).copied().unwrap_or_default();
        let is_new = |row: &&HostRow| known(row.host) != row.orders;
        hosts.iter().filter(is_new).map(|it| it.host).collect()
    }

    /// Returns true if the beat of a host has changed lately, or if the host is new here.
    pub fn is_alive(&self, host: HostId, now: Moment, lease_ms: u64) -> bool {
        let seen = self.seen.get(&host);
        seen.is_none_or(|(_, since)| now.since(*since) < lease_ms / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offer;

    fn row(beat: u64, leases: u64) -> HostRow {
        HostRow {
            host: HostId(1),
            beat,
            leases,
            orders: 0,
            drained: false,
            offer: Offer::default(),
        }
    }

    #[test]
    fn a_host_is_lost_after_a_lease_without_a_beat() {
        let mut watch = Watch::default();
        let mut at = |time, row| watch.observe(Moment(time), &[row], 100);
        assert_eq!(at(1000, row(7, 1)), []);
        assert_eq!(at(1099, row(7, 1)), []);
        assert_eq!(at(1100, row(7, 1)), [(HostId(1), 7)]);
        assert_eq!(at(1101, row(8, 1)), []);
        assert_eq!(at(1200, row(8, 1)), []);
        assert_eq!(at(1201, row(8, 0)), []);
        assert_eq!(at(1202, row(8, 1)), [(HostId(1), 8)]);
    }

    #[test]
    fn a_new_coordinator_waits_for_a_lease() {
        let mut watch = Watch::default();
        assert_eq!(watch.observe(Moment(1_000_000), &[row(1, 9)], 100), []);
        assert!(watch.is_alive(HostId(1), Moment(1_000_049), 100));
        assert!(!watch.is_alive(HostId(1), Moment(1_000_050), 100));
    }

    #[test]
    fn an_order_is_noticed_once() {
        let mut watch = Watch::default();
        let ordered = |orders| HostRow {
            orders,
            ..row(1, 0)
        };
        assert_eq!(watch.ordered(&[ordered(0)]), []);
        assert_eq!(watch.ordered(&[ordered(4)]), [HostId(1)]);
        assert_eq!(watch.ordered(&[ordered(4)]), []);
        // The first order may come before the first look at a new host.
        assert_eq!(Watch::default().ordered(&[ordered(1)]), [HostId(1)]);
    }
}
