//! The world: its clock, its events and its actors.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use config::MachineName;
use config::task::Digest;
use farm_core::copies::Copying;
use farm_core::host::Input;
use farm_core::messages::{Reply, Request};
use farm_core::operation::{Answer, Operation};
use farm_core::{HostId, Lease, Terms};
use fastrand::Rng;

use crate::tables::Tables;
use crate::{Bug, Failure, Statistics};

mod client;
mod contents;
mod coordinator;
mod faults;
mod guests;
mod host;
mod host_disk;
mod invariants;
mod network;
mod polls;
mod schedules;
mod sources;
mod store;
mod transfers;
mod trials;
mod uploads;

pub(crate) use client::Client;
pub(crate) use coordinator::Coordinator;
pub(crate) use host::Host;
use invariants::Ghosts;

/// The limits of the simulated farm, in milliseconds.
pub(crate) const TERMS: Terms = Terms {
    lease_ms: 4_000,
    hold_ms: 400,
    request_ms: 500,
    poll_ms: 100,
    attempts_max: 4,
};
/// The number of hosts.
pub(crate) const HOSTS: usize = 3;
/// The number of coordinators.
const COORDINATORS: usize = 2;
/// The time in which faults happen.
const STORM_MS: u64 = 20_000;
/// The time after them in which every build must get its result.
const CALM_MS: u64 = 600_000;

/// The sender of a request, to which the reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The process of a host's agent.
    Host(usize, u64),
    /// A request of the client, by its number.
    Client(u64),
}

/// The part of a coordinator that calls the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// The watch over the hosts.
    Watch,
    /// The uploads.
    Uploads,
    /// The beats of many polls.
    Beats,
    /// The schedules.
    Schedules,
    /// A request, by its number.
    Request(u64),
}

/// A call of a coordinator that a request makes to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) coordinator: usize,
    pub(crate) process: u64,
    /// The request.
    pub(crate) request: Caller,
    /// The number of the operation within it.
    pub(crate) operation: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    HostTick(usize, u64),
    HostInput(usize, u64, Input),
    HostStart(usize, u64),
    HostThaw(usize),
    PowerCut(usize, u64),
    DiskDone(usize, u64),
    GuestEnds(usize, u64, Lease),
    GuestStops(usize, u64, Lease),
    /// A guest has waited too long in the queue of its host.
    WaitedTooLong(usize, Lease),
    Guard(usize, u64),
    /// The operator deletes a machine with other content than the published one.
    Mend(usize, MachineName),
    Upload(usize, Vec<Digest>),
    Copied(Call, Copying),
    /// A host asks for the sources of a lease; the number of attempts that are left.
    Sources(usize, u64, Lease, u32),
    FetchDone(transfers::Fetch),
    Uploads(usize, u64),
    UploadOrder(uploads::Attempt),
    UploadContent(uploads::Attempt, uploads::Sent),
    UploadPut(uploads::Attempt, uploads::Content),
    UploadOver(uploads::Attempt),
    Request(usize, Origin, Request),
    Reply(Origin, Reply),
    Operation(Call, Operation),
    Answer(Call, Answer),
    NoAnswer(Call),
    HoldOver(Call),
    Watch(usize, u64),
    Beats(usize, u64),
    CoordinatorStart(usize),
    Client,
    ClientRetry(u64),
    Fault,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) bug: Option<Bug>,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    events: u64,
    pub(crate) statistics: Statistics,
    pub(crate) tables: Tables,
    /// The difference of the store's clock to the true time.
    pub(crate) store_offset: u64,
    pub(crate) store_down_until: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) client: Client,
    pub(crate) network: network::Network,
    pub(crate) bucket: uploads::Bucket,
    pub(crate) ghosts: Ghosts,
    trace: Option<Vec<String>>,
    pub(crate) violation: Option<String>,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut tables = Tables::default();
        (0..HOSTS).for_each(|host| tables.enrol(HostId(host as u64)));
        (0..COORDINATORS).for_each(|it| tables.register(sources::name(it)));
        let client = Client::new(&mut rng);
        let mut world = Self {
            seed,
            bug,
            now: 0,
            queue: BinaryHeap::new(),
            events: 0,
            statistics: Statistics::default(),
            tables,
            store_offset: 1_000_000_000,
            store_down_until: 0,
            hosts: (0..HOSTS).map(|_| Host::new(&mut rng)).collect(),
            coordinators: (0..COORDINATORS)
                .map(|_| Coordinator::new(&mut rng))
                .collect(),
            client,
            network: network::Network::default(),
            bucket: uploads::Bucket::default(),
            ghosts: Ghosts::default(),
            trace: traced.then(Vec::new),
            violation: None,
            rng,
        };
        for host in 0..HOSTS {
            world.after(0, Event::HostStart(host, 0));
        }
        for coordinator in 0..COORDINATORS {
            world.after(0, Event::CoordinatorStart(coordinator));
        }
        world.after(1, Event::Client);
        world.after(100, Event::Fault);
        world
    }

    /// Runs until all builds have results.
    pub(crate) fn run(mut self) -> Result<Statistics, Failure> {
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.now = self.now.max(entry.at);
            self.statistics.steps += 1;
            self.handle(entry.event);
            self.check();
            if self.violation.is_some() || self.is_calm() && self.is_done() {
                break;
            }
            if self.now > STORM_MS + CALM_MS {
                let open = self.unfinished();
                self.violate(format!("no build, log or revision is lost: {open}"));
                break;
            }
        }
        match self.violation {
            None => Ok(self.statistics),
            Some(message) => Err(Failure {
                seed: self.seed,
                message,
                trace: self.trace.unwrap_or_default(),
            }),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::HostTick(host, process) => self.host_tick(host, process),
            Event::HostInput(host, process, input) => self.host_input(host, process, input),
            Event::HostStart(host, boot) => self.host_start(host, boot),
            Event::HostThaw(host) => self.host_thaw(host),
            Event::PowerCut(host, lasts) => self.power_cut(host, lasts),
            Event::DiskDone(host, write) => self.disk_done(host, write),
            Event::GuestEnds(host, guest, lease) => self.guest_ends(host, guest, lease),
            Event::GuestStops(host, guest, lease) => self.guest_stops(host, guest, lease),
            Event::WaitedTooLong(host, lease) => self.unused(host, lease),
            Event::Guard(host, boot) => self.guard(host, boot),
            Event::Mend(host, machine) => self.mend(host, machine),
            Event::Upload(coordinator, digests) => self.uploaded(coordinator, digests),
            Event::Copied(call, copying) => self.source_copied(call, copying),
            Event::Sources(host, process, lease, left) => {
                self.sources_arrive(host, process, lease, left);
            }
            Event::FetchDone(fetch) => self.fetch_done(&fetch),
            Event::Uploads(coordinator, process) => self.coordinator_uploads(coordinator, process),
            Event::UploadOrder(attempt) => self.upload_order(attempt),
            Event::UploadContent(attempt, sent) => self.upload_content(attempt, sent),
            Event::UploadPut(attempt, content) => self.upload_put(attempt, content),
            Event::UploadOver(attempt) => self.upload_over(attempt),
            Event::Request(coordinator, from, request) => {
                self.coordinator_request(coordinator, from, request);
            }
            Event::Reply(to, reply) => self.reply(to, reply),
            Event::Operation(call, operation) => self.store_operation(call, &operation),
            Event::Answer(call, answer) => self.coordinator_answer(call, Some(answer)),
            Event::NoAnswer(call) => self.coordinator_answer(call, None),
            Event::HoldOver(call) => self.coordinator_hold_over(call),
            Event::Watch(coordinator, process) => self.coordinator_watch(coordinator, process),
            Event::Beats(coordinator, process) => self.coordinator_beats(coordinator, process),
            Event::CoordinatorStart(coordinator) => self.coordinator_start(coordinator),
            Event::Client => self.client_acts(),
            Event::ClientRetry(number) => self.client_retries(number),
            Event::Fault => self.fault(),
        }
    }

    fn reply(&mut self, to: Origin, reply: Reply) {
        match to {
            Origin::Host(host, process) => self.host_reply(host, process, reply),
            Origin::Client(number) => self.client_reply(number, &reply),
        }
    }

    /// Adds an event after some milliseconds.
    pub(crate) fn after(&mut self, milliseconds: u64, event: Event) {
        self.events += 1;
        self.queue.push(Reverse(Entry {
            at: self.now + milliseconds,
            number: self.events,
            event,
        }));
    }

    /// Returns true once faults have ended.
    pub(crate) fn is_calm(&self) -> bool {
        self.now >= STORM_MS
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Returns the time of the store's clock.
    pub(crate) fn store_clock(&self) -> u64 {
        self.now + self.store_offset
    }

    /// Adds a line to the trace.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} {}", self.now, line()));
        }
    }

    pub(crate) fn violate(&mut self, message: String) {
        self.say(|| format!("VIOLATION {message}"));
        self.violation.get_or_insert(message);
    }
}
