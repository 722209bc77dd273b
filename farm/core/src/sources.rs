//! The choice of the host that sends an image.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;

use crate::operation::HostRow;
use crate::{HostId, OfferedMachine, Published};

/// Chooses the host that sends a revision: one that is alive, has it with this content as its current one or
/// on trial, and is not the receiver. Any content is right if none is given. Those with fewer transfers come
/// first, and those that have just failed come last.
pub fn choose_source(
    receiver: HostId,
    machine: &MachineName,
    wanted: &Published,
    alive: &BTreeMap<HostId, HostRow>,
    sending: &BTreeMap<HostId, usize>,
    failed: &BTreeSet<HostId>,
) -> Option<HostId> {
    let has_it = |row: &&HostRow| {
        let offered = row.offer.machines.get(machine);
        let is_wanted = |it: &OfferedMachine| {
            it.revisions().any(|(revision, content)| {
                let is_same = wanted.content.is_none() || content == wanted.content.as_ref();
                revision == wanted.revision && is_same
            })
        };
        row.host != receiver && offered.is_some_and(is_wanted)
    };
    let order = |row: &&HostRow| {
        let transfers = sending.get(&row.host).copied().unwrap_or_default();
        (failed.contains(&row.host), transfers, row.host)
    };
    let chosen = alive.values().filter(has_it).min_by_key(order);
    chosen.map(|row| row.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Offer, Revision};

    fn row(host: u64, revision: u64) -> (HostId, HostRow) {
        let machine = OfferedMachine {
            revision: Revision(revision),
            ..OfferedMachine::default()
        };
        let host = HostId(host);
        let row = HostRow {
            host,
            beat: 1,
            leases: 0,
            orders: 0,
            drained: false,
            offer: Offer {
                machines: [("linux".parse().unwrap(), machine)].into(),
                ..Offer::default()
            },
        };
        (host, row)
    }

    fn wanted(content: Option<&str>) -> Published {
        Published {
            revision: Revision(3),
            content: content.map(|it| it.repeat(64).parse().unwrap()),
        }
    }

    #[test]
    fn a_host_sends_the_revision_that_it_has_on_trial() {
        let (one, mut two) = (row(1, 2), row(2, 2));
        let content: Option<config::task::Digest> = "a".repeat(64).parse().ok();
        for machine in two.1.offer.machines.values_mut() {
            machine.trial = Some(crate::OfferedTrial {
                revision: Revision(3),
                content: content.clone(),
                ..crate::OfferedTrial::default()
            });
        }
        let alive = [one, two].into();
        let chosen = |content| {
            choose_source(
                HostId(1),
                &"linux".parse().unwrap(),
                &wanted(content),
                &alive,
                &BTreeMap::new(),
                &BTreeSet::new(),
            )
        };
        assert_eq!(chosen(Some("a")), Some(HostId(2)));
        assert_eq!(chosen(Some("b")), None);
    }

    #[test]
    fn a_host_with_other_content_sends_nothing() {
        let mut rows = [row(2, 3), row(3, 3), row(4, 3)];
        for (row, content) in rows.iter_mut().zip(["a", "b"]) {
            let content = wanted(Some(content)).content;
            for machine in row.1.offer.machines.values_mut() {
                machine.content.clone_from(&content);
            }
        }
        let (machine, alive) = ("linux".parse().unwrap(), rows.into());
        let choose = |content| {
            let (sending, failed) = (BTreeMap::new(), BTreeSet::new());
            let wanted = wanted(Some(content));
            choose_source(HostId(1), &machine, &wanted, &alive, &sending, &failed)
        };
        assert_eq!(choose("b"), Some(HostId(3)));
        assert_eq!(choose("c"), None);
    }

    #[test]
    fn several_hosts_share_the_load_and_one_that_failed_comes_last() {
        let machine = "linux".parse().unwrap();
        let alive = [row(1, 2), row(2, 3), row(3, 3), row(4, 3)].into();
        let choose = |receiver, sending: &[(u64, usize)], failed: &[u64]| {
            let sending = sending.iter().map(|(host, count)| (HostId(*host), *count));
            let failed = failed.iter().map(|it| HostId(*it)).collect();
            choose_source(
                HostId(receiver),
                &machine,
                &wanted(None),
                &alive,
                &sending.collect(),
                &failed,
            )
        };
        assert_eq!(choose(1, &[], &[]), Some(HostId(2)));
        assert_eq!(choose(1, &[(2, 1)], &[]), Some(HostId(3)));
        assert_eq!(choose(2, &[(3, 2), (4, 1)], &[]), Some(HostId(4)));
        assert_eq!(choose(2, &[(3, 2)], &[4]), Some(HostId(3)));
        assert_eq!(choose(2, &[], &[3, 4]), Some(HostId(3)));
    }

    #[test]
    fn a_revision_that_only_the_receiver_has_comes_from_nowhere() {
        let alive = [row(1, 3), row(2, 2)].into();
        let machine = "linux".parse().unwrap();
        let (sending, failed) = (BTreeMap::new(), BTreeSet::new());
        let chosen = choose_source(
            HostId(1),
            &machine,
            &wanted(None),
            &alive,
            &sending,
            &failed,
        );
        assert_eq!(chosen, None);
    }
}
