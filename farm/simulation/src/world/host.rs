//! The hosts: an agent that can die, guests that outlive it, and guards that outlive it as well.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;
use config::task::Digest;
use farm_core::host::{Effect, HostAgent, Input, Recovered};
use farm_core::messages::{Poll, PollId, Reply, Request};
use farm_core::{
    Capacity, HostId, Lease, Moment, Offer, OfferedMachine, Published, Requirements, Revision,
};
use fastrand::Rng;

use super::guests::Guest;
use super::host_disk::{Disk, Tried, Write};
use super::{Event, Origin, TERMS, World};
use crate::Bug;

/// The processors of a host.
pub(crate) const CPUS: u64 = 4;

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(super) boot: u64,
    booted_at: u64,
    rate_permille: u64,
    pub(super) wall_offset: u64,
    pub(super) frozen_until: u64,
    pub(super) is_frozen: bool,
    pub(super) paused_until: u64,
    pub(super) process: u64,
    pub(super) agent: Option<HostAgent>,
    last_poll: Option<PollId>,
    pub(crate) guests: BTreeMap<Lease, Guest>,
    /// The leases on disk whose guests wait in the queue of the host, behind other ones.
    pub(super) queued: BTreeSet<Lease>,
    pub(super) disk: Disk,
    pub(crate) revisions: BTreeMap<MachineName, Revision>,
    /// The content of these revisions, as far as the host knows it.
    pub(super) contents: BTreeMap<MachineName, Digest>,
    /// The last revision on trial of each machine.
    pub(super) trials: BTreeMap<MachineName, Tried>,
    /// The revisions that were on trial, which stay on the disk.
    pub(super) shelf: Vec<(MachineName, Published)>,
    pub(crate) needs: BTreeMap<Lease, Requirements>,
    /// The leases on revisions that are on trial.
    pub(super) on_trial: BTreeMap<Lease, Revision>,
    /// The leases whose sources have arrived.
    pub(super) sources: BTreeSet<Lease>,
    next_tick: u64,
    /// True if it never comes back.
    pub(super) is_lost: bool,
}

impl Host {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            boot: 0,
            booted_at: 0,
            rate_permille: rng.u64(900..=1100),
            wall_offset: 100_000,
            frozen_until: 0,
            is_frozen: false,
            paused_until: 0,
            process: 0,
            agent: None,
            last_poll: None,
            guests: BTreeMap::new(),
            queued: BTreeSet::new(),
            disk: Disk::default(),
            revisions: BTreeMap::new(),
            contents: BTreeMap::new(),
            trials: BTreeMap::new(),
            shelf: Vec::new(),
            needs: BTreeMap::new(),
            on_trial: BTreeMap::new(),
            sources: BTreeSet::new(),
            next_tick: 0,
            is_lost: false,
        }
    }

    /// Returns true if guests run, which they do not while the whole computer is frozen.
    pub(crate) fn is_executing(&self) -> bool {
        !self.is_frozen
    }

    /// Returns the time until the computer continues, if it is frozen.
    pub(super) fn thaws_in(&self, now: u64) -> Option<u64> {
        self.is_frozen
            .then(|| self.frozen_until.saturating_sub(now))
    }
}

impl World {
    pub(super) fn host_clock(&self, host: usize) -> Moment {
        let it = &self.hosts[host];
        if self.has(Bug::HostUsesWallClock) {
            return Moment(self.now + it.wall_offset);
        }
        Moment((self.now - it.booted_at) * it.rate_permille / 1000)
    }

    /// Returns the true time until a moment of a host's clock.
    pub(super) fn until(&self, host: usize, moment: Moment) -> u64 {
        let left = moment.since(self.host_clock(host));
        left * 1000 / self.hosts[host].rate_permille + 1
    }

    pub(super) fn host_start(&mut self, host: usize, boot: u64) {
        let it = &self.hosts[host];
        if it.boot != boot || it.agent.is_some() || it.is_lost {
            return;
        }
        if let Some(wait) = it.thaws_in(self.now) {
            return self.after(wait, Event::HostStart(host, boot));
        }
        // Guests that wait do not start any more.
        let disk = it.disk.recover(&it.queued);
        let guests: BTreeMap<_, _> = it
            .guests
            .iter()
            .map(|(it, guest)| (*it, guest.guard))
            .collect();
        let revisions = it.revisions.clone();
        if let Some(lease) = guests.keys().find(|it| !disk.contains_key(it)) {
            self.violate(format!(
                "each guest has a lease on disk: host {host}, {lease}"
            ));
        }
        self.hosts[host].queued.clear();
        let recovered = Recovered {
            disk,
            guests: if self.has(Bug::RecoveryMissesGuests) {
                BTreeMap::new()
            } else {
                guests
            },
            revisions,
            trials: self.hosts[host].trials_of_farm(),
        };
        let mut terms = TERMS;
        if self.has(Bug::HostUsesWholeLease) {
            terms.lease_ms *= 3;
        }
        let incarnation = self.rng.u64(..);
        let now = self.host_clock(host);
        let (agent, effects) = HostAgent::new(terms, incarnation, now, recovered);
        let it = &mut self.hosts[host];
        it.process += 1;
        it.paused_until = 0;
        it.agent = Some(agent);
        let process = it.process;
        self.say(|| format!("host {host}: the agent starts"));
        self.effects(host, effects);
        self.after(0, Event::HostTick(host, process));
    }

    /// Returns true if an event of an agent has to wait, or has come too late for its process.
    fn host_sleeps(&mut self, host: usize, process: u64, event: &Event) -> bool {
        let it = &self.hosts[host];
        if it.process != process || it.agent.is_none() {
            return true;
        }
        let paused = it.paused_until.checked_sub(self.now).filter(|it| *it > 0);
        let wait = it.thaws_in(self.now).or(paused);
        if let Some(wait) = wait {
            self.after(wait, event.clone());
        }
        wait.is_some()
    }

    pub(super) fn host_tick(&mut self, host: usize, process: u64) {
        if self.host_sleeps(host, process, &Event::HostTick(host, process)) {
            return;
        }
        let now = self.host_clock(host);
        let due = self.hosts[host].agent.as_ref().map(HostAgent::wake);
        if due.is_some_and(|due| due <= now) {
            self.feed(host, Input::Tick);
        } else {
            self.schedule_tick(host);
        }
    }

    pub(super) fn host_input(&mut self, host: usize, process: u64, input: Input) {
        let event = Event::HostInput(host, process, input);
        if self.host_sleeps(host, process, &event) {
            return;
        }
        if let Event::HostInput(_, _, input) = event {
            self.feed(host, input);
        }
    }

    /// Gives an event to the agent, executes the effects, and asks for the next tick.
    fn feed(&mut self, host: usize, mut input: Input) {
        let now = self.host_clock(host);
        if let (Input::Answered(answer), true) = (&mut input, self.has(Bug::HostTakesAnyAnswer)) {
            answer.id = self.hosts[host].last_poll.unwrap_or(answer.id);
        }
        if input != Input::Tick {
            self.say(|| format!("host {host}: {input:?}"));
        }
        let Some(agent) = &mut self.hosts[host].agent else {
            return;
        };
        let effects = agent.step(now, input);
        self.effects(host, effects);
        self.schedule_tick(host);
    }

    fn schedule_tick(&mut self, host: usize) {
        let it = &self.hosts[host];
        let Some(wake) = it.agent.as_ref().map(HostAgent::wake) else {
            return;
        };
        let (process, wait) = (it.process, self.until(host, wake));
        let at = self.now + wait;
        // A later tick asks again by itself; only an earlier one is needed.
        if at < self.hosts[host].next_tick || self.hosts[host].next_tick <= self.now {
            self.hosts[host].next_tick = at;
            self.after(wait, Event::HostTick(host, process));
        }
    }

    fn effects(&mut self, host: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.say(|| format!("host {host}: -> {effect:?}"));
            self.effect(host, effect);
        }
    }

    fn effect(&mut self, host: usize, effect: Effect) {
        let process = self.hosts[host].process;
        let input = |input| Event::HostInput(host, process, input);
        match effect {
            Effect::Poll { id, held, hold_ms } => {
                self.hosts[host].last_poll = Some(id);
                let offer = self.offer(host);
                let poll = Poll {
                    id,
                    held,
                    hold_ms,
                    offer,
                };
                self.host_sends(host, &Request::Poll(HostId(host as u64), poll));
            }
            Effect::Record(lease, requirements, on_trial) => {
                self.ghosts.known(lease);
                let candidate = on_trial.map(|it| (lease, it));
                self.hosts[host].on_trial.extend(candidate);
                self.hosts[host].needs.insert(lease, requirements.clone());
                self.host_records(host, lease, &requirements);
                if self.has(Bug::GuestBeforeRecord) {
                    self.after(0, input(Input::Recorded(lease)));
                }
            }
            Effect::Start(lease, guard) => self.start_or_queue(host, lease, guard),
            Effect::Guard(lease, guard) => {
                if let Some(guest) = self.hosts[host].guests.get_mut(&lease) {
                    guest.guard = guest.guard.max(guard);
                    self.schedule_guard(host, guard);
                }
            }
            Effect::Stop(lease) => {
                if let Some(guest) = self.hosts[host].guests.get(&lease) {
                    let number = guest.number;
                    let delay = self.rng.u64(1..200);
                    self.after(delay, Event::GuestStops(host, number, lease));
                } else {
                    self.unused(host, lease);
                }
            }
            Effect::Store(report) => {
                self.write(host, Write::Result(report.lease, report.outcome));
                if self.has(Bug::ReportBeforeStore) {
                    self.after(0, input(Input::Stored(report.lease)));
                }
            }
            Effect::Report(report) => {
                let lease = report.lease;
                self.host_sends(host, &Request::Report(HostId(host as u64), report));
                if self.has(Bug::OutboxForgets) {
                    self.after(1, input(Input::Settled(lease)));
                }
            }
            Effect::Release(release) => {
                self.host_sends(host, &Request::Release(HostId(host as u64), release));
            }
            Effect::Forget(lease) => self.write(host, Write::Forget(lease)),
            Effect::Fetch(machine, wanted) => {
                if !self.promote_on(host, &machine, &wanted) {
                    self.fetch(host, machine, wanted, None);
                }
            }
            Effect::Try(machine, order) => self.try_revision(host, machine, order),
            Effect::EndTrial(machine, order) => self.end_trial_on(host, &machine, &order),
        }
    }

    fn host_sends(&mut self, host: usize, request: &Request) {
        let process = self.hosts[host].process;
        self.send(Origin::Host(host, process), request);
    }

    /// Returns what a host has and what its builds leave.
    fn offer(&self, host: usize) -> Offer {
        let it = &self.hosts[host];
        let total = Capacity {
            guests: CPUS,
            cpus: CPUS,
            memory_mib: 1_000,
            resources: BTreeMap::new(),
        };
        let mut free = total.clone();
        let busy = it.agent.iter().flat_map(HostAgent::busy);
        for lease in busy.filter(|_| !self.has(Bug::OfferIgnoresBuilds)) {
            let cpus = it.needs.get(&lease).map_or(0, |it| it.cpus);
            free.cpus = free.cpus.saturating_sub(cpus);
            free.guests = free.guests.saturating_sub(1);
        }
        let machines = self.client.machines().iter().map(|machine| {
            let offered = OfferedMachine {
                revision: it.revisions.get(machine).copied().unwrap_or_default(),
                content: it.contents.get(machine).cloned(),
                toolchains: BTreeSet::from([self.client.toolchain().clone()]),
                frozen: false,
                cached: host == 0,
                trial: it.offered_trial(machine, self),
            };
            (machine.clone(), offered)
        });
        Offer {
            machines: machines.collect(),
            total,
            free,
            ..Offer::default()
        }
    }

    pub(super) fn host_thaw(&mut self, host: usize) {
        if self.hosts[host].frozen_until > self.now {
            return;
        }
        self.hosts[host].is_frozen = false;
        let boot = self.hosts[host].boot;
        self.guard(host, boot);
    }

    pub(super) fn host_reply(&mut self, host: usize, process: u64, reply: Reply) {
        let input = match reply {
            Reply::Leases(answer) => Input::Answered(answer),
            Reply::Recorded(lease) | Reply::Released(lease) | Reply::Stale(lease) => {
                Input::Settled(lease)
            }
            Reply::Unavailable if self.has(Bug::UnavailableIsFinal) => {
                let disk = &self.hosts[host].disk;
                let Some(lease) = disk.results().next() else {
                    return;
                };
                Input::Settled(lease)
            }
            // It may be the answer to another request: then the host polls once more.
            Reply::Unavailable => match self.hosts[host].last_poll {
                Some(poll) => Input::Unanswered(poll),
                None => return,
            },
            _ => return,
        };
        self.host_input(host, process, input);
    }

    /// Kills the agent of a host. Guests and guards go on.
    pub(super) fn kill_agent(&mut self, host: usize) {
        self.statistics.crashes += 1;
        self.break_disk(host);
        let it = &mut self.hosts[host];
        it.agent = None;
        it.process += 1;
        it.next_tick = 0;
    }

    /// Cuts the power of a host.
    pub(super) fn cut_power(&mut self, host: usize) {
        self.kill_agent(host);
        let now = self.now;
        let it = &mut self.hosts[host];
        it.guests.clear();
        it.disk.lose_left_results();
        it.boot += 1;
        it.booted_at = now;
        (it.is_frozen, it.frozen_until, it.paused_until) = (false, 0, 0);
    }
}
