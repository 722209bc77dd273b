//! The guests of hosts, and the guards that end them.

use farm_core::host::Input;
use farm_core::{Lease, Moment};

use super::{Event, TERMS, World};
use crate::Bug;

/// A guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// The number of this guest among all.
    pub(super) number: u64,
    /// The time on the host's clock at which the guard ends it.
    pub(super) guard: Moment,
}

impl World {
    /// Starts a guest, unless builds that are not the farm's have taken its place meanwhile.
    pub(super) fn start_or_queue(&mut self, host: usize, lease: Lease, guard: Moment) {
        if self.lacks_candidate(host, lease) {
            self.hosts[host].queued.insert(lease);
            return self.after(1, Event::WaitedTooLong(host, lease));
        }
        if self.is_calm() || self.rng.u32(0..8) > 0 {
            return self.start_guest(host, lease, guard);
        }
        self.hosts[host].queued.insert(lease);
        let patience = self.rng.u64(50..3_000);
        self.after(patience, Event::WaitedTooLong(host, lease));
    }

    /// Takes a guest that waits out of the queue of its host.
    pub(super) fn unused(&mut self, host: usize, lease: Lease) {
        let it = &mut self.hosts[host];
        if it.queued.remove(&lease) {
            let process = it.process;
            self.after(1, Event::HostInput(host, process, Input::Unused(lease)));
        }
    }

    fn start_guest(&mut self, host: usize, lease: Lease, guard: Moment) {
        self.check_start(host, lease);
        self.check_trial_start(host, lease);
        let number = self.ghosts.next_guest();
        let it = &mut self.hosts[host];
        it.guests.insert(lease, Guest { number, guard });
        if self.client.is_poisonous(lease.build) && !self.is_calm() {
            self.after(20, Event::PowerCut(host, TERMS.lease_ms / 2));
        }
        let lasts = match self.rng.u32(0..10) {
            0 => self.rng.u64(3_000..9_000),
            _ => self.rng.u64(50..2_500),
        };
        self.after(lasts, Event::GuestEnds(host, number, lease));
        self.schedule_guard(host, guard);
    }

    pub(super) fn schedule_guard(&mut self, host: usize, guard: Moment) {
        let (boot, wait) = (self.hosts[host].boot, self.until(host, guard));
        self.after(wait, Event::Guard(host, boot));
    }

    /// Ends the guests whose guards are due, also while the agent is dead or paused.
    pub(super) fn guard(&mut self, host: usize, boot: u64) {
        let it = &self.hosts[host];
        if it.boot != boot || it.is_frozen || self.has(Bug::NoGuard) {
            return;
        }
        let now = self.host_clock(host);
        let due: Vec<_> = it
            .guests
            .iter()
            .filter(|(_, guest)| guest.guard <= now)
            .map(|(it, _)| *it)
            .collect();
        for lease in due {
            self.say(|| format!("host {host}: the guard ends the guest of {lease}"));
            self.remove_guest(host, lease);
        }
    }

    fn remove_guest(&mut self, host: usize, lease: Lease) {
        let it = &mut self.hosts[host];
        it.guests.remove(&lease);
        let process = it.process;
        self.after(1, Event::HostInput(host, process, Input::Gone(lease)));
    }

    fn has_guest(&self, host: usize, number: u64, lease: Lease) -> bool {
        let guest = self.hosts[host].guests.get(&lease);
        guest.is_some_and(|it| it.number == number)
    }

    pub(super) fn guest_stops(&mut self, host: usize, number: u64, lease: Lease) {
        if self.has_guest(host, number, lease) {
            self.remove_guest(host, lease);
        }
    }

    pub(super) fn guest_ends(&mut self, host: usize, number: u64, lease: Lease) {
        if !self.has_guest(host, number, lease) {
            return;
        }
        let it = &self.hosts[host];
        if let Some(wait) = it.thaws_in(self.now) {
            return self.after(wait, Event::GuestEnds(host, number, lease));
        }
        let Some(outcome) = self.guest_outcome(host, lease) else {
            return self.remove_guest(host, lease);
        };
        let it = &mut self.hosts[host];
        it.guests.remove(&lease);
        it.disk.leave_result(lease, outcome);
        let process = it.process;
        self.after(
            1,
            Event::HostInput(host, process, Input::Ended(lease, outcome)),
        );
    }
}
