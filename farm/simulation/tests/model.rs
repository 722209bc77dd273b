//! A model of leases: all states that three hosts, two builds and two coordinators can reach in ten steps,
//! and two hosts with one build in thirteen. The long run goes further.
//!
//! One unit of time is one half of a lease. Polls and answers get lost or come late, agents crash while
//! their guests go on, and coordinators look and rescue whenever they like.

use stateright::{Checker, Model, Property};

const HOSTS: usize = 3;
const BUILDS: usize = 2;
const COORDINATORS: usize = 2;
/// The units of a lease, which a coordinator waits for.
const LEASE: u8 = 2;
/// The bounds that make the model finite.
const BEATS_MAX: u8 = 2;
const EPOCHS_MAX: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Build {
    Queued,
    Leased(usize),
    Finished,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Poll {
    /// The units since it was sent.
    age: u8,
    /// The epochs of the host's leases, once a coordinator has answered.
    answer: Option<[Option<u8>; BUILDS]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Host {
    poll: Option<Poll>,
    /// True if a poll that the host has given up is still under way.
    late: bool,
    /// The guests: the epoch, and the units until the guard ends it.
    guests: [Option<(u8, u8)>; BUILDS],
    results: [Option<u8>; BUILDS],
    started: [u8; BUILDS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    builds: [(Build, u8); BUILDS],
    beats: [u8; HOSTS],
    hosts: [Host; HOSTS],
    /// The beats that each coordinator has seen, and for how many units.
    seen: [[(u8, u8); HOSTS]; COORDINATORS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Time,
    Poll(usize),
    /// A coordinator serves a poll, and perhaps claims a build.
    Serve(usize, Option<usize>),
    ServeLate(usize, Option<usize>),
    Answer(usize),
    GiveUp(usize),
    Crash(usize),
    End(usize, usize),
    /// A report arrives; its answer may get lost.
    Report(usize, usize, bool),
    Look(usize, usize),
    Rescue(usize, usize),
}

/// The farm: its size, and the units that coordinators wait for.
struct Farm {
    hosts: usize,
    builds: usize,
    coordinators: usize,
    patience: u8,
}

impl State {
    fn leases(&self, host: usize) -> [Option<u8>; BUILDS] {
        self.builds
            .map(|(build, epoch)| (build == Build::Leased(host)).then_some(epoch))
    }

    fn serve(&mut self, host: usize, claimed: Option<usize>) -> [Option<u8>; BUILDS] {
        self.beats[host] += 1;
        if let Some(build) = claimed {
            self.builds[build] = (Build::Leased(host), self.builds[build].1 + 1);
        }
        self.leases(host)
    }

    fn answer(&mut self, host: usize, age: u8, leases: [Option<u8>; BUILDS]) {
        let it = &mut self.hosts[host];
        let left = 1_u8.saturating_sub(age);
        for (build, lease) in leases.into_iter().enumerate() {
            let guest = &mut it.guests[build];
            match (lease, *guest) {
                (Some(epoch), Some((own, until))) if own == epoch => {
                    *guest = Some((own, until.max(left)));
                }
                (Some(epoch), _) if it.started[build] < epoch && left > 0 => {
                    it.started[build] = epoch;
                    *guest = Some((epoch, left));
                }
                _ => *guest = None,
            }
        }
    }

    /// Returns the least of all states that differ only in the numbers of hosts and coordinators.
    fn canonical(&self, hosts: usize) -> Self {
        let orders: &[[usize; HOSTS]] = match hosts {
            3 => &[
                [0, 1, 2],
                [0, 2, 1],
                [1, 0, 2],
                [1, 2, 0],
                [2, 0, 1],
                [2, 1, 0],
            ],
            2 => &[[0, 1, 2], [1, 0, 2]],
            _ => &[[0, 1, 2]],
        };
        let renumbered = orders.iter().map(|order| self.renumbered(order));
        renumbered.min().unwrap_or(*self)
    }

    /// Returns the state in which host `number` has the place of host `order[number]`.
    fn renumbered(&self, order: &[usize; HOSTS]) -> Self {
        let mut next = *self;
        for (number, place) in order.iter().enumerate() {
            next.beats[*place] = self.beats[number];
            next.hosts[*place] = self.hosts[number];
            for (seen, last) in next.seen.iter_mut().zip(self.seen) {
                seen[*place] = last[number];
            }
        }
        for (build, _) in &mut next.builds {
            if let Build::Leased(host) = build {
                *host = order[*host];
            }
        }
        next.seen.sort_unstable();
        next
    }

    fn pass(&mut self) {
        for host in &mut self.hosts {
            if let Some(poll) = &mut host.poll {
                poll.age = (poll.age + 1).min(LEASE);
            }
            for guest in &mut host.guests {
                *guest = guest.and_then(|(epoch, left)| Some((epoch, left.checked_sub(1)?)));
                *guest = guest.filter(|(_, left)| *left > 0);
            }
        }
        for seen in self.seen.as_flattened_mut() {
            seen.1 = (seen.1 + 1).min(LEASE);
        }
    }
}

impl Model for Farm {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            builds: [(Build::Queued, 0); BUILDS],
            beats: [0; HOSTS],
            hosts: [Host::default(); HOSTS],
            seen: [[(0, 0); HOSTS]; COORDINATORS],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Time);
        for host in 0..self.hosts {
            let it = &state.hosts[host];
            let claims = (0..self.builds)
                .filter(|build| state.builds[*build].0 == Build::Queued)
                .filter(|build| state.builds[*build].1 < EPOCHS_MAX)
                .map(Some)
                .chain([None]);
            let is_open = it.poll.is_some_and(|poll| poll.answer.is_none());
            for claim in claims.filter(|_| state.beats[host] < BEATS_MAX) {
                if is_open {
                    actions.push(Action::Serve(host, claim));
                }
                if it.late {
                    actions.push(Action::ServeLate(host, claim));
                }
            }
            match it.poll {
                None if state.beats[host] < BEATS_MAX => actions.push(Action::Poll(host)),
                None => {}
                Some(poll) => {
                    actions.extend([Action::GiveUp(host), Action::Crash(host)]);
                    if poll.answer.is_some() {
                        actions.push(Action::Answer(host));
                    }
                }
            }
            for build in 0..self.builds {
                if it.guests[build].is_some() {
                    actions.push(Action::End(host, build));
                }
                if it.results[build].is_some() {
                    actions.push(Action::Report(host, build, true));
                    actions.push(Action::Report(host, build, false));
                }
            }
            for coordinator in 0..self.coordinators {
                let (beat, age) = state.seen[coordinator][host];
                if beat != state.beats[host] {
                    actions.push(Action::Look(coordinator, host));
                } else if age >= self.patience && state.leases(host).iter().any(Option::is_some) {
                    actions.push(Action::Rescue(coordinator, host));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        match action {
            Action::Time => next.pass(),
            Action::Poll(host) => next.hosts[host].poll = Some(Poll::default()),
            Action::Serve(host, claim) => {
                let answer = next.serve(host, claim);
                if let Some(poll) = &mut next.hosts[host].poll {
                    poll.answer = Some(answer);
                }
            }
            Action::ServeLate(host, claim) => {
                next.hosts[host].late = false;
                next.serve(host, claim);
            }
            Action::Answer(host) => {
                let poll = next.hosts[host].poll.take()?;
                next.answer(host, poll.age, poll.answer?);
            }
            // A crash forgets the poll as well; guests and guards go on.
            Action::GiveUp(host) | Action::Crash(host) => {
                let poll = next.hosts[host].poll.take()?;
                next.hosts[host].late |= poll.answer.is_none();
            }
            Action::End(host, build) => {
                let (epoch, _) = next.hosts[host].guests[build].take()?;
                next.hosts[host].results[build] = Some(epoch);
            }
            Action::Report(host, build, is_answered) => {
                let epoch = next.hosts[host].results[build]?;
                if next.builds[build] == (Build::Leased(host), epoch) {
                    next.builds[build].0 = Build::Finished;
                }
                if is_answered {
                    next.hosts[host].results[build] = None;
                }
            }
            Action::Look(coordinator, host) => {
                next.seen[coordinator][host] = (next.beats[host], 0);
            }
            Action::Rescue(_, host) => {
                // The beat rises; the bound of polls does not count it.
                for (build, _) in &mut next.builds {
                    if *build == Build::Leased(host) {
                        *build = Build::Queued;
                    }
                }
            }
        }
        let next = next.canonical(self.hosts);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no guest without a lease", |_: &Farm, state: &State| {
                state.hosts.iter().enumerate().all(|(number, host)| {
                    let lease = state.leases(number);
                    let has = |(build, guest): (usize, &Option<(u8, u8)>)| {
                        guest.is_none_or(|(epoch, _)| lease[build] == Some(epoch))
                    };
                    host.guests.iter().enumerate().all(has)
                })
            }),
            Property::always("one guest per build", |_: &Farm, state: &State| {
                (0..BUILDS).all(|build| {
                    let guests = state.hosts.iter().filter(|it| it.guests[build].is_some());
                    guests.count() <= 1
                })
            }),
            Property::sometimes("a build is claimed again", |_: &Farm, state: &State| {
                state.builds.iter().any(|(_, epoch)| *epoch == 2)
            }),
        ]
    }
}

fn check(farm: Farm, depth: usize) -> usize {
    let checker = farm.checker().target_max_depth(depth).spawn_bfs().join();
    assert_eq!(checker.discovery("no guest without a lease"), None);
    assert_eq!(checker.discovery("one guest per build"), None);
    checker.assert_any_discovery("a build is claimed again");
    checker.unique_state_count()
}

/// Returns the steps from the start that are tried.
fn depth(sample: usize, long: usize) -> usize {
    if std::env::var_os("BUILDHOST_LONG").is_some() {
        long
    } else {
        sample
    }
}

#[test]
fn no_order_of_events_breaks_a_lease_of_two_hosts() {
    let farm = Farm {
        hosts: 2,
        builds: 1,
        coordinators: COORDINATORS,
        patience: LEASE,
    };
    let depth = depth(13, 18);
    println!("{} states in {depth} steps", check(farm, depth));
}

#[test]
fn no_order_of_events_breaks_a_lease_of_three_hosts() {
    let farm = Farm {
        hosts: HOSTS,
        builds: BUILDS,
        coordinators: COORDINATORS,
        patience: LEASE,
    };
    let depth = depth(10, 12);
    println!("{} states in {depth} steps", check(farm, depth));
}

#[test]
fn no_order_of_events_at_all_breaks_a_lease_of_two_hosts() {
    let farm = Farm {
        hosts: 2,
        builds: 1,
        coordinators: 1,
        patience: LEASE,
    };
    println!("{} states, which are all", check(farm, usize::MAX));
}

#[test]
fn a_coordinator_that_waits_too_little_is_found() {
    let farm = Farm {
        hosts: 2,
        builds: 1,
        coordinators: COORDINATORS,
        patience: 0,
    };
    let checker = farm.checker().spawn_bfs().join();
    assert!(checker.discovery("no guest without a lease").is_some());
}
