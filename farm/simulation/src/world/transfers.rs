//! Revisions that travel from one host through a coordinator to another one.
//!
//! The coordinator chooses the source as the program does. Each of the three may die meanwhile, and what
//! arrives may be cut or differ: the receiver verifies it before it becomes current.

use std::collections::BTreeMap;

use config::MachineName;
use config::task::Digest;
use farm_core::host::Input;
use farm_core::sources::choose_source;
use farm_core::trials::TrialNumber;
use farm_core::{HostId, Published};

use super::contents::content;
use super::{Event, Host, World};
use crate::Bug;

/// The time for which a host that has not sent is asked last.
const LATE_MS: u64 = 5_000;
/// A process of the world, which has died if its number is another one.
type Process = (usize, u64);

/// A revision on its way.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    receiver: Process,
    boot: u64,
    coordinator: Process,
    source: Process,
    machine: MachineName,
    wanted: Published,
    /// The trial that the revision is for; `None` for the published one.
    trial: Option<TrialNumber>,
}

/// Returns the content of a revision that was cut.
fn cut() -> Digest {
    Digest::from([0xcc; 32])
}

/// Returns the content of one that has other files.
fn damaged() -> Digest {
    Digest::from([0xdd; 32])
}

/// Returns true for content that a transfer has spoilt.
pub(super) fn is_faulty(content: &Digest) -> bool {
    *content == cut() || *content == damaged()
}

impl World {
    /// Puts a revision that was just published on a host, from which the others fetch it. A host that may be
    /// lost for ever gets none.
    pub(super) fn push_revision(&mut self, machine: &MachineName, published: &Published) {
        let (host, revision) = (self.rng.usize(0..2), published.revision);
        let pushed = published.content.clone();
        let pushed = pushed.unwrap_or_else(|| content(revision.0, false));
        self.publish_on(host, machine, published, pushed);
        let (process, machine) = (self.hosts[host].process, machine.clone());
        self.say(|| format!("host {host}: {machine} {revision:?} is pushed"));
        let input = Input::Fetched(machine, revision);
        self.after(0, Event::HostInput(host, process, input));
    }

    /// Makes a revision current on a host, unless a newer one is.
    pub(super) fn publish_on(
        &mut self,
        host: usize,
        machine: &MachineName,
        published: &Published,
        content: Digest,
    ) {
        let revision = published.revision;
        let lowers = self.has(Bug::FetchLowers);
        let it = &mut self.hosts[host];
        let current = it.revisions.entry(machine.clone()).or_default();
        if revision > *current || lowers {
            *current = revision;
            it.contents.insert(machine.clone(), content);
        }
    }

    /// Begins to fetch a revision.
    pub(super) fn fetch(
        &mut self,
        host: usize,
        machine: MachineName,
        wanted: Published,
        trial: Option<TrialNumber>,
    ) {
        let receiver = (host, self.hosts[host].process);
        let not_fetched = Event::HostInput(host, receiver.1, Input::NotFetched(machine.clone()));
        let coordinator = self.rng.usize(0..self.coordinators.len());
        let delay = self.rng.u64(50..2_000);
        let source = self.source(coordinator, host, &machine, &wanted);
        let Some(source) = source.filter(|_| !self.is_host_cut(host, coordinator)) else {
            if !self.has(Bug::FetchIsNotRepeated) {
                self.after(delay, not_fetched);
            }
            return;
        };
        let revision = wanted.revision;
        self.say(|| format!("host {host}: {machine} {revision:?} comes from host {source}"));
        let fetch = Fetch {
            receiver,
            boot: self.hosts[host].boot,
            coordinator: (coordinator, self.coordinators[coordinator].process),
            source: (source, self.hosts[source].process),
            machine,
            wanted,
            trial,
        };
        self.after(delay, Event::FetchDone(fetch));
    }

    fn source(
        &mut self,
        coordinator: usize,
        host: usize,
        machine: &MachineName,
        wanted: &Published,
    ) -> Option<usize> {
        let now = self.now;
        let it = &mut self.coordinators[coordinator];
        if !it.up || it.paused_until > now {
            return None;
        }
        it.late.retain(|_, until| *until > now);
        let late = it.late.keys().copied().collect();
        let receiver = HostId(host as u64);
        let (alive, sending) = (&it.view.hosts, BTreeMap::new());
        let source = choose_source(receiver, machine, wanted, alive, &sending, &late);
        source.and_then(|it| usize::try_from(it.0).ok())
    }

    /// Ends a transfer: it has arrived, or one of its ends is gone.
    pub(super) fn fetch_done(&mut self, fetch: &Fetch) {
        let (host, process) = fetch.receiver;
        let it = &self.hosts[host];
        if it.boot != fetch.boot || it.process != process {
            return;
        }
        let input = match self.arrived(fetch) {
            Some(content) if self.is_verified(&content, &fetch.wanted) => {
                if let Some(number) = fetch.trial {
                    let input = self.tried(host, &fetch.machine, &fetch.wanted, number);
                    return self.after(0, Event::HostInput(host, process, input));
                }
                self.publish_on(host, &fetch.machine, &fetch.wanted, content);
                Input::Fetched(fetch.machine.clone(), fetch.wanted.revision)
            }
            _ if self.has(Bug::FetchIsNotRepeated) => return,
            _ => Input::NotFetched(fetch.machine.clone()),
        };
        self.after(0, Event::HostInput(host, process, input));
    }

    /// Returns the content that has arrived, if the transfer has begun.
    fn arrived(&mut self, fetch: &Fetch) -> Option<Digest> {
        let (coordinator, process) = fetch.coordinator;
        let (source, sender) = fetch.source;
        let is_through = self.coordinators[coordinator].process == process
            && !self.is_host_cut(source, coordinator)
            && !self.is_host_cut(fetch.receiver.0, coordinator);
        let it = &self.hosts[source];
        if it.is_frozen || it.paused_until > self.now || it.is_lost {
            let until = self.now + LATE_MS;
            let late = &mut self.coordinators[coordinator].late;
            late.insert(HostId(source as u64), until);
            return None;
        }
        if !is_through || it.process != sender {
            self.statistics.faults += 1;
            return Some(cut());
        }
        // The source may have a newer one by now.
        let is_there = it.revisions.get(&fetch.machine) == Some(&fetch.wanted.revision);
        let content = it.contents.get(&fetch.machine).filter(|_| is_there);
        let tried = it.trials.get(&fetch.machine).map(|it| &it.candidate);
        let tried = tried.filter(|it| it.revision == fetch.wanted.revision);
        let tried = tried.and_then(|it| it.content.as_ref());
        let content = content.or(tried)?.clone();
        if !self.is_calm() && self.rng.u32(0..6) == 0 {
            self.statistics.faults += 1;
            return Some(damaged());
        }
        Some(content)
    }

    /// Returns true if all hosts that are not lost have the published revisions, or newer ones.
    pub(super) fn are_revisions_everywhere(&self) -> bool {
        let mut hosts = self.hosts.iter().filter(|it| !it.is_lost);
        let has_all = |it: &Host| {
            let mut published = self.tables.published.iter();
            published.all(|(machine, row)| it.revisions.get(machine) >= Some(&row.revision))
        };
        hosts.all(has_all)
    }

    fn is_verified(&self, content: &Digest, wanted: &Published) -> bool {
        match content {
            _ if *content == damaged() => self.has(Bug::FetchIsNotVerified),
            _ if *content == cut() => self.has(Bug::FetchTakesCut),
            _ => wanted.content.is_none() || wanted.content.as_ref() == Some(content),
        }
    }
}
