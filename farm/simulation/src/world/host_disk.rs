//! The disk of a host: writes become durable one after the other, and a crash loses the last ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use config::task::Outcome;
use farm_core::host::{Input, OnDisk};
use farm_core::trials::TrialNumber;
use farm_core::{Lease, Published};

use super::{Event, World};

/// A write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    /// A lease.
    Lease(Lease),
    /// A result.
    Result(Lease, Outcome),
    /// The deletion of both.
    Forget(Lease),
}

/// A revision on trial on the disk of a host.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    /// The trial of the farm; 0 for one that a person has begun on this host only.
    pub(super) number: TrialNumber,
    pub(super) candidate: Published,
    pub(super) is_open: bool,
    /// The time at which its image is made, if that succeeds.
    pub(super) ready_at: Option<u64>,
}

/// The disk of a host.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    durable: BTreeMap<Lease, OnDisk>,
    /// The results that guests have left in their directories.
    left: BTreeMap<Lease, Outcome>,
    /// The logs of builds that have ended.
    logs: BTreeSet<Lease>,
    writes: VecDeque<(u64, Write)>,
    last_done: u64,
    numbers: u64,
}

impl Disk {
    /// Returns what an agent finds when it starts.
    pub(super) fn recover(&self, queued: &BTreeSet<Lease>) -> BTreeMap<Lease, OnDisk> {
        let found = self.durable.iter().map(|(lease, on_disk)| {
            let left = self.left.get(lease).map(|it| OnDisk::Left(*it));
            let unused = queued.contains(lease).then_some(OnDisk::Unused);
            let open = left.or(unused).filter(|_| *on_disk == OnDisk::Lease);
            (*lease, open.unwrap_or(*on_disk))
        });
        found.collect()
    }

    /// Returns the leases with a result.
    pub(super) fn results(&self) -> impl Iterator<Item = Lease> {
        self.durable
            .iter()
            .filter(|(_, it)| matches!(it, OnDisk::Result(_)))
            .map(|(lease, _)| *lease)
    }

    /// Returns true if the log of a build that has ended is there.
    pub(super) fn has_log(&self, lease: Lease) -> bool {
        self.logs.contains(&lease)
    }

    /// Deletes the oldest log.
    pub(super) fn delete_log(&mut self) -> Option<Lease> {
        self.logs.pop_first()
    }

    pub(super) fn leave_result(&mut self, lease: Lease, outcome: Outcome) {
        self.left.insert(lease, outcome);
    }

    pub(super) fn lose_left_results(&mut self) {
        self.left.clear();
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Lease(lease) => {
                self.durable.insert(lease, OnDisk::Lease);
            }
            Write::Result(lease, outcome) => {
                self.durable.insert(lease, OnDisk::Result(outcome));
                self.logs.insert(lease);
            }
            Write::Forget(lease) => {
                self.durable.remove(&lease);
                self.left.remove(&lease);
            }
        }
    }
}

impl World {
    /// Begins a write.
    pub(super) fn write(&mut self, host: usize, write: Write) {
        let delay = self.rng.u64(1..30);
        let disk = &mut self.hosts[host].disk;
        disk.numbers += 1;
        disk.writes.push_back((disk.numbers, write));
        disk.last_done = disk.last_done.max(self.now) + delay;
        let (number, wait) = (disk.numbers, disk.last_done - self.now);
        self.after(wait, Event::DiskDone(host, number));
    }

    pub(super) fn disk_done(&mut self, host: usize, number: u64) {
        let it = &mut self.hosts[host];
        if let Some(wait) = it.thaws_in(self.now) {
            return self.after(wait, Event::DiskDone(host, number));
        }
        let process = it.process;
        let Some((_, write)) = it.disk.writes.pop_front_if(|(it, _)| *it == number) else {
            return;
        };
        it.disk.apply(write);
        let input = match write {
            Write::Lease(lease) => Input::Recorded(lease),
            Write::Result(lease, _) => {
                self.ghosts.result_stored(host, lease);
                Input::Stored(lease)
            }
            Write::Forget(_) => return,
        };
        self.host_input(host, process, input);
    }

    /// Loses the last writes, or none.
    pub(super) fn break_disk(&mut self, host: usize) {
        let writes = self.hosts[host].disk.writes.len();
        let kept = self.rng.usize(0..=writes);
        let disk = &mut self.hosts[host].disk;
        let done: Vec<_> = disk.writes.drain(..).take(kept).collect();
        for (_, write) in done {
            disk.apply(write);
            if let Write::Result(lease, _) = write {
                self.ghosts.result_stored(host, lease);
            }
        }
    }
}
