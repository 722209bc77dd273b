//! The faults: crashes, pauses, partitions, clock steps, and a host that lies.

use config::BuildId;
use config::task::Outcome;
use farm_core::messages::{Report, Request};
use farm_core::{Epoch, HostId, Lease};

use super::{Event, HOSTS, Origin, TERMS, World};

/// The most milliseconds by which a clock is set.
const STEP_MS: u64 = 60_000;
/// A step of more than a day, after which a clock counts as wrong.
const FAR_MS: u64 = 25 * 3_600_000;

impl World {
    pub(super) fn fault(&mut self) {
        if self.is_calm() {
            return;
        }
        let pause = self.rng.u64(50..700);
        self.after(pause, Event::Fault);
        self.statistics.faults += 1;
        let host = self.rng.usize(0..HOSTS);
        let coordinator = self.rng.usize(0..self.coordinators.len());
        let lasts = self.rng.u64(10..2 * TERMS.lease_ms);
        match self.rng.u32(0..15) {
            0 | 1 => {
                self.say(|| format!("FAULT host {host}: the agent is killed for {lasts} ms"));
                self.kill_agent(host);
                let boot = self.hosts[host].boot;
                self.after(lasts, Event::HostStart(host, boot));
            }
            2 => {
                let is_last = host == 2 && self.rng.u32(0..4) == 0;
                self.hosts[host].is_lost |= is_last;
                self.power_cut(host, lasts);
            }
            3 => {
                self.say(|| format!("FAULT host {host}: the agent is paused for {lasts} ms"));
                self.hosts[host].paused_until = self.now + lasts;
            }
            4 => {
                self.say(|| format!("FAULT host {host}: frozen for {lasts} ms"));
                let it = &mut self.hosts[host];
                it.is_frozen = true;
                it.frozen_until = it.frozen_until.max(self.now + lasts);
                self.after(lasts, Event::HostThaw(host));
            }
            5 => self.kill_coordinator(coordinator, lasts),
            6 => {
                self.say(|| format!("FAULT coordinator {coordinator}: paused for {lasts} ms"));
                self.coordinators[coordinator].paused_until = self.now + lasts;
            }
            7 | 8 => {
                let both: &[usize] = if self.rng.bool() {
                    &[0, 1]
                } else {
                    &[coordinator]
                };
                self.say(|| format!("FAULT host {host}: cut off from {both:?} for {lasts} ms"));
                self.partition(host, both, lasts);
            }
            9 => {
                let down = lasts / 4;
                self.say(|| format!("FAULT store: down for {down} ms"));
                self.store_down_until = self.now + down;
            }
            10 => self.set_clocks(host, coordinator),
            11 => self.tamper(host),
            12 => {
                self.say(|| format!("FAULT object store: down for {lasts} ms"));
                self.bucket.down_until = self.now + lasts;
            }
            13 => {
                let deleted = self.hosts[host].disk.delete_log();
                self.say(|| format!("FAULT host {host}: deletes the log of {deleted:?}"));
            }
            _ => self.lie(host),
        }
    }

    fn kill_coordinator(&mut self, coordinator: usize, lasts: u64) {
        if self.rng.u32(0..8) == 0 {
            self.lose_disk(coordinator);
        }
        self.say(|| format!("FAULT coordinator {coordinator}: killed for {lasts} ms"));
        self.statistics.crashes += 1;
        self.coordinators[coordinator].up = false;
        self.coordinators[coordinator].process += 1;
        self.after(lasts, Event::CoordinatorStart(coordinator));
    }

    pub(super) fn power_cut(&mut self, host: usize, lasts: u64) {
        self.say(|| format!("FAULT host {host}: the power is cut for {lasts} ms"));
        self.cut_power(host);
        let boot = self.hosts[host].boot;
        self.after(lasts, Event::HostStart(host, boot));
    }

    fn set_clocks(&mut self, host: usize, coordinator: usize) {
        let step = |clock: u64, rng: &mut fastrand::Rng| {
            let milliseconds = rng.u64(0..STEP_MS);
            if rng.bool() {
                clock + milliseconds
            } else {
                clock.saturating_sub(milliseconds)
            }
        };
        let rng = &mut self.rng;
        self.store_offset = step(self.store_offset, rng);
        match rng.u32(0..6) {
            0 | 1 => self.store_offset += FAR_MS,
            2 | 3 => self.store_offset = self.store_offset.saturating_sub(FAR_MS),
            _ => {}
        }
        self.hosts[host].wall_offset = step(self.hosts[host].wall_offset, rng);
        let wall = &mut self.coordinators[coordinator].wall_offset;
        *wall = step(*wall, rng);
        self.say(|| "FAULT clocks are set".to_owned());
    }

    /// Reports a result that the host does not have.
    fn lie(&mut self, host: usize) {
        let last = self.tables.builds.len() as u64;
        let build = BuildId(self.rng.u64(0..=last));
        let Some(record) = self.tables.builds.get(&build) else {
            return;
        };
        let own = HostId(host as u64);
        if record.host == Some(own) {
            return;
        }
        let lease = Lease {
            build,
            epoch: Epoch(self.rng.u64(0..=record.epoch.0)),
        };
        self.say(|| format!("FAULT host {host}: lies about {lease}"));
        let report = Report {
            lease,
            outcome: Outcome::Success,
            message: None,
        };
        let process = self.hosts[host].process;
        self.send(Origin::Host(host, process), &Request::Report(own, report));
    }
}
