//! The states of the model, and those that stand for others.

use std::cmp::Reverse;

pub(crate) const HOSTS_MAX: usize = 3;
pub(crate) const BUILDS_MAX: usize = 2;
pub(crate) const COORDINATORS_MAX: usize = 2;

/// A build in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Build {
    /// Nobody has claimed it yet.
    #[default]
    New,
    /// It waits again. The result of the host that had it last still counts.
    Returned(u8),
    Leased(u8),
    Finished,
}

/// The mistakes that were made. The model stops at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mistake {
    #[default]
    None,
    /// A lease has started two guests.
    TwoGuests,
    /// A build has got two results.
    TwoResults,
    /// A result counts that does not belong to the newest lease.
    OldResult,
}

/// The lease of a build in an answer that is under way, as its host will take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Told {
    /// The host has no lease, or one that is over by now.
    #[default]
    No,
    /// The host has the lease.
    Lease,
    /// The host had the lease, which was taken since. It still starts its guest.
    Former,
}

/// The last poll of a host, after a coordinator has served it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Poll {
    #[default]
    None,
    /// The answer is under way. It confirms leases for some units, which are counted from the time at which
    /// the poll was sent.
    Answered(u8, [Told; BUILDS_MAX]),
}

/// A result on the disk of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kept {
    #[default]
    None,
    /// It belongs to the newest claim of the build.
    Newest,
    /// The build was claimed again.
    Old,
}

/// A build on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Work {
    /// The units until the guard ends the guest; 0 without one. It has the newest lease unless a property is
    /// broken.
    pub(crate) guest: u8,
    /// True if the newest lease of the build has started its guest here.
    pub(crate) started: bool,
    pub(crate) result: Kept,
}

/// A coordinator's knowledge of a host: `None` if it has not seen the present beat; otherwise the units
/// since it has.
pub(crate) type Seen = Option<u8>;

/// A host, with what the coordinators have seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host {
    pub(crate) poll: Poll,
    pub(crate) works: [Work; BUILDS_MAX],
    pub(crate) seen: [Seen; COORDINATORS_MAX],
}

/// A state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(crate) builds: [Build; BUILDS_MAX],
    pub(crate) hosts: [Host; HOSTS_MAX],
    pub(crate) mistake: Mistake,
}

impl State {
    /// Returns true if a host has the lease of a build.
    pub(crate) fn has_lease(&self, host: usize, build: usize) -> bool {
        self.builds[build] == Build::Leased(number(host))
    }

    pub(crate) fn has_leases(&self, host: usize) -> bool {
        (0..BUILDS_MAX).any(|build| self.has_lease(host, build))
    }

    /// Returns the state without what has no effect: the looks at hosts without leases, and answers that
    /// change nothing.
    pub(crate) fn reduced(mut self) -> Self {
        for host in 0..HOSTS_MAX {
            if !self.has_leases(host) {
                self.hosts[host].seen = [None; COORDINATORS_MAX];
            }
            let it = &mut self.hosts[host];
            if let Poll::Answered(units, told) = &mut it.poll {
                for (told, work) in told.iter_mut().zip(it.works) {
                    if work.guest == 0 && (work.started || work.result == Kept::Newest) {
                        *told = Told::No;
                    }
                }
                let changes = |(told, work): (&Told, Work)| match told {
                    Told::No => work.guest > 0,
                    Told::Lease | Told::Former => work.guest < *units,
                };
                if !told.iter().zip(it.works).any(changes) {
                    it.poll = Poll::None;
                }
            }
        }
        self
    }

    /// Notes in an answer that is under way that the lease of a build is over.
    pub(crate) fn take_back(&mut self, host: usize, build: usize) {
        let it = &mut self.hosts[host];
        if let Poll::Answered(_, told) = &mut it.poll
            && told[build] != Told::No
        {
            told[build] = if it.works[build].started {
                Told::No
            } else {
                Told::Former
            };
        }
    }

    /// Returns the least of all states that differ only in the numbers of hosts, builds and coordinators.
    pub(crate) fn canonical(&self, builds: usize, coordinators: usize) -> Self {
        let mut least: Option<Self> = None;
        for swap_builds in [false, true].into_iter().take(builds) {
            for swap_seen in [false, true].into_iter().take(coordinators) {
                let mut state = *self;
                if swap_builds {
                    state.swap_builds();
                }
                if swap_seen {
                    state.hosts.iter_mut().for_each(|it| it.seen.reverse());
                }
                let state = state.with_sorted_hosts();
                least = Some(least.map_or(state, |it| it.min(state)));
            }
        }
        least.unwrap_or(*self)
    }

    fn swap_builds(&mut self) {
        self.builds.reverse();
        for host in &mut self.hosts {
            host.works.reverse();
            if let Poll::Answered(_, told) = &mut host.poll {
                told.reverse();
            }
        }
    }

    /// Numbers the hosts by what they are. Equal hosts with different leases differ by those.
    fn with_sorted_hosts(&self) -> Self {
        let relation = |host: usize| {
            self.builds.map(|build| match build {
                Build::Leased(it) if it == number(host) => 2,
                Build::Returned(it) if it == number(host) => 1,
                _ => 0_u8,
            })
        };
        let mut order = [0, 1, 2];
        // Hosts that the model does not have are the least, and stay at the end.
        order.sort_unstable_by_key(|host| Reverse((relation(*host), self.hosts[*host])));
        let mut next = *self;
        for (place, host) in order.into_iter().enumerate() {
            next.hosts[place] = self.hosts[host];
            for (build, last) in next.builds.iter_mut().zip(self.builds) {
                match last {
                    Build::Leased(it) if it == number(host) => {
                        *build = Build::Leased(number(place));
                    }
                    Build::Returned(it) if it == number(host) => {
                        *build = Build::Returned(number(place));
                    }
                    _ => {}
                }
            }
        }
        next
    }
}

pub(crate) fn number(host: usize) -> u8 {
    u8::try_from(host).unwrap_or(u8::MAX)
}
