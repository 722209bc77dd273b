//! Sources: clients upload them, coordinators copy them, and hosts fetch them.

use std::collections::BTreeSet;

use config::task::Digest;
use farm_core::copies::{Attendance, CoordinatorName, Copying};
use farm_core::host::Input;
use farm_core::operation::{Answer, Operation};
use farm_core::{Lease, Requirements};

use super::host_disk::Write;
use super::{Call, Caller, Event, World};
use crate::Bug;
use crate::tables::{BuildRecord, State};

/// The number of different sources.
pub(super) const SOURCES: u64 = 4;
/// The time without a beat after which a coordinator counts as dead.
const PATIENCE_MS: u64 = 1_500;
/// The time after which a source that no unfinished build names is forgotten.
const AGE_MS: u64 = 3_000;
/// The attempts of a host to fetch a source.
const ATTEMPTS: u32 = 5;

/// The sources of a coordinator, and its view of the others.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The files, which a crash does not lose.
    pub(super) files: BTreeSet<Digest>,
    pub(super) attendance: Attendance,
}

/// Returns the name of a coordinator.
pub(super) fn name(coordinator: usize) -> CoordinatorName {
    CoordinatorName(format!("http://c{coordinator}"))
}

/// Returns the hash of a source.
#[expect(clippy::expect_used, reason = "64 digits are a hash")]
pub(super) fn digest(number: u64) -> Digest {
    format!("{number:064x}").parse().expect("a hash")
}

fn number(name: &CoordinatorName) -> usize {
    usize::from(*name == self::name(1))
}

impl World {
    /// Uploads sources to any coordinator.
    pub(super) fn upload(&mut self, digests: Vec<Digest>) {
        let coordinator = self.rng.usize(0..self.coordinators.len());
        if let Some(delay) = self.transit() {
            self.after(delay, Event::Upload(coordinator, digests));
        }
    }

    pub(super) fn uploaded(&mut self, coordinator: usize, digests: Vec<Digest>) {
        for digest in digests {
            self.store_source(coordinator, digest);
        }
    }

    /// Puts a source on the disk of a coordinator, and tells the store.
    fn store_source(&mut self, coordinator: usize, digest: Digest) {
        if !self.coordinators[coordinator].up {
            return;
        }
        self.coordinators[coordinator]
            .shelf
            .files
            .insert(digest.clone());
        self.tell_store(coordinator, Operation::Keep(digest, name(coordinator)));
    }

    fn tell_store(&mut self, coordinator: usize, operation: Operation) {
        let call = self.own_call(coordinator, Caller::Watch);
        self.ask(call, operation);
    }

    /// Copies a source from one coordinator to another one, or fails.
    pub(super) fn copy_source(&mut self, call: Call, copying: Copying) {
        let delay = self.transit().unwrap_or(2_000);
        self.after(delay, Event::Copied(call, copying));
    }

    pub(super) fn source_copied(&mut self, call: Call, copying: Copying) {
        let (from, to) = (number(&copying.from), number(&copying.to));
        let is_there = self.coordinators[from].up && self.has_file(from, &copying.digest);
        let is_up = self.coordinators[to].up;
        let result = if is_there && is_up && self.rng.u32(0..8) > 0 {
            self.store_source(to, copying.digest.clone());
            Ok(())
        } else {
            Err("the connection was cut".to_owned())
        };
        self.coordinator_copied(call, copying, result);
    }

    /// Fetches the sources of a build on a host through any coordinator, then writes its lease.
    pub(super) fn host_records(&mut self, host: usize, lease: Lease, needs: &Requirements) {
        let missing = needs.work.digests();
        if missing.is_empty() {
            return self.write(host, Write::Lease(lease));
        }
        let process = self.hosts[host].process;
        self.fetch_sources(host, process, lease, ATTEMPTS);
    }

    fn fetch_sources(&mut self, host: usize, process: u64, lease: Lease, left: u32) {
        let delay = self.transit().unwrap_or(500);
        self.after(delay, Event::Sources(host, process, lease, left));
    }

    pub(super) fn sources_arrive(&mut self, host: usize, process: u64, lease: Lease, left: u32) {
        let it = &self.hosts[host];
        if it.process != process || it.agent.is_none() {
            return;
        }
        if let Some(wait) = it.thaws_in(self.now) {
            return self.after(wait, Event::Sources(host, process, lease, left));
        }
        let needed = it.needs.get(&lease).map(|it| it.work.digests());
        let asked = self.rng.usize(0..self.coordinators.len());
        let missing = needed
            .into_iter()
            .flatten()
            .find(|it| !self.passes_on(asked, it));
        let Some(missing) = missing else {
            self.hosts[host].sources.insert(lease);
            return self.write(host, Write::Lease(lease));
        };
        self.say(|| format!("host {host}: source {missing} of {lease} does not arrive"));
        if self.has(Bug::GuestWithoutSource) {
            self.write(host, Write::Lease(lease));
        } else if left > 0 {
            self.fetch_sources(host, process, lease, left - 1);
        } else {
            self.host_input(host, process, Input::NotRecorded(lease));
        }
    }

    /// Returns true if a coordinator that was asked has a source. If not, it says so to the store, which may
    /// have got a message late from before the loss of the disk.
    fn has_file(&mut self, coordinator: usize, digest: &Digest) -> bool {
        let has_it = self.coordinators[coordinator].shelf.files.contains(digest);
        if !has_it {
            let lose = Operation::Lose(digest.clone(), name(coordinator));
            self.tell_store(coordinator, lose);
        }
        has_it
    }

    /// Returns true if a coordinator has a source, or gets it from another one.
    fn passes_on(&mut self, coordinator: usize, digest: &Digest) -> bool {
        if !self.coordinators[coordinator].up {
            return false;
        }
        if self.has_file(coordinator, digest) {
            return true;
        }
        let mut others = self.coordinators.iter();
        let found = others.any(|it| it.up && it.shelf.files.contains(digest));
        if found {
            self.store_source(coordinator, digest.clone());
        }
        found
    }

    /// Notes the beats of the coordinators, and forgets old sources now and then.
    pub(super) fn attend(&mut self, coordinator: usize) {
        self.tell_store(coordinator, Operation::Attend(name(coordinator)));
        if self.rng.u32(0..4) == 0 {
            self.tell_store(coordinator, Operation::Expire(AGE_MS));
        }
    }

    /// Handles the answers of the store about sources.
    pub(super) fn sources_answer(&mut self, coordinator: usize, answer: Answer) {
        let now = self.coordinator_clock(coordinator);
        match answer {
            Answer::Attending(beats) => {
                let it = &mut self.coordinators[coordinator];
                it.shelf.attendance.observe(now, &beats);
                it.view.keepers.own = Some(name(coordinator));
                it.view.keepers.alive = it.shelf.attendance.alive(now, PATIENCE_MS);
            }
            Answer::Expired(digests) => {
                self.ghosts.has_forgotten |= !digests.is_empty();
                for digest in digests {
                    for keeper in 0..self.coordinators.len() {
                        let discard = Operation::Discard(digest.clone(), name(keeper));
                        self.tell_store(keeper, discard);
                    }
                }
            }
            _ => {}
        }
    }

    /// Deletes the file of a source that was discarded.
    pub(super) fn discarded(&mut self, operation: &Operation, answer: &Answer) {
        if let (Operation::Discard(digest, keeper), Answer::Done) = (operation, answer) {
            self.coordinators[number(keeper)].shelf.files.remove(digest);
        }
    }

    /// Loses the disk of a coordinator, which starts again without its sources.
    pub(super) fn lose_disk(&mut self, coordinator: usize) {
        self.say(|| format!("FAULT coordinator {coordinator}: its disk is lost"));
        let files = std::mem::take(&mut self.coordinators[coordinator].shelf.files);
        // A coordinator compares its files with the store before it serves.
        for digest in files {
            let lost = Operation::Lose(digest, name(coordinator));
            self.tables.apply(self.now + self.store_offset, lost);
        }
        self.ghosts.is_disk_lost = true;
    }

    /// Checks that all coordinators that one sees have the sources of a build which it adds.
    pub(super) fn check_copies(&mut self, coordinator: usize, digests: &[Digest]) {
        let alive = &self.coordinators[coordinator].view.keepers.alive;
        let lacks = |digest: &&Digest| {
            let files = |it: &CoordinatorName| &self.coordinators[number(it)].shelf.files;
            alive.iter().any(|it| !files(it).contains(*digest))
        };
        let lacking = digests.iter().find(lacks);
        // The store may not know yet that a disk is lost, or that a source was forgotten.
        let is_certain = !self.ghosts.is_disk_lost && !self.ghosts.has_forgotten;
        if let Some(digest) = lacking.filter(|_| is_certain) {
            self.violate(format!(
                "the source of a build has two copies: {digest}, seen by coordinator {coordinator}"
            ));
        }
    }

    /// Checks that the store knows the sources of all builds without a result, and of all schedules.
    pub(super) fn check_needed(&mut self) {
        let builds = self.tables.builds.iter();
        let unfinished = builds.filter(|(_, it)| !matches!(it.state, State::Finished(..)));
        let of_builds = unfinished.map(|(id, it)| (format!("unfinished build {id}"), it.digests()));
        let schedules = self.tables.schedules.iter();
        let of_schedules = schedules.map(|(name, it)| (format!("schedule {name}"), it.digests()));
        let knows = |digest: &Digest| self.tables.sources.contains_key(digest);
        let forgotten = of_builds
            .chain(of_schedules)
            .find(|(_, digests)| !digests.iter().all(knows));
        if let Some((whose, _)) = forgotten {
            self.violate(format!("no source is forgotten: one of {whose}"));
        }
    }

    /// Checks that a guest has its sources.
    pub(super) fn check_sources(&mut self, host: usize, lease: Lease) {
        let it = &self.hosts[host];
        let needs_some = it
            .needs
            .get(&lease)
            .is_some_and(|it| !it.work.sources.is_empty());
        if needs_some && !it.sources.contains(&lease) {
            self.violate(format!(
                "a guest starts with its sources: host {host}, {lease}"
            ));
        }
    }

    /// Uploads the sources again that unfinished builds lack, as their clients do who see why they wait.
    pub(super) fn upload_again(&mut self) {
        let builds = self.tables.builds.values();
        let waiting = builds.filter(|it| !matches!(it.state, State::Finished(..)));
        let lost: Vec<_> = waiting
            .flat_map(BuildRecord::digests)
            .filter(|it| !self.tables.copies.contains_key(it))
            .collect();
        if !lost.is_empty() {
            self.upload(lost);
        }
    }
}
