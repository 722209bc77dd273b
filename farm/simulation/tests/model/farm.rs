//! The events of the model, and its properties.

use stateright::{Model, Property};

use super::state::{BUILDS_MAX, Build, Kept, Mistake, Poll, State, Told, number};

/// The units for which a host uses a lease, of four.
const HALF: u8 = 2;
/// The units after which a coordinator takes it: its clock may be faster by one quarter.
const PATIENCE: u8 = 3;

/// The names of the properties that hold in every state.
pub(crate) const PROPERTIES: [&str; 5] = [
    "no guest without a lease",
    "one guest per build",
    "one guest per lease",
    "one result per build",
    "a result has the newest lease",
];

/// A fault that is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A coordinator waits for less than a host.
    CoordinatorIsImpatient,
    /// A host loses its leases although it has polled since.
    RescueIgnoresBeat,
    /// Guests run on after their deadline.
    NoGuard,
    /// A host counts from the arrival of an answer.
    AnswersCountFromTheirArrival,
    /// A claim takes a build that another host has.
    ClaimIgnoresState,
    /// A result counts for whatever lease is the newest.
    FinishIgnoresEpoch,
    /// A repeated result counts again.
    FinishIsRepeated,
    /// A host starts a guest whenever it has none.
    LeaseStartsAgain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A unit of time passes.
    Time,
    /// A coordinator serves a poll and claims builds, one bit for each. The answer confirms leases for some
    /// units, because of the time since the poll was sent.
    Serve(usize, u8, u8),
    /// A poll that was given up reaches a coordinator, and its answer nobody.
    ServeLate(usize, u8),
    /// The answer reaches its host.
    Answer(usize),
    /// The answer is lost, comes too late, or finds that the agent has crashed.
    GiveUp(usize),
    /// A guest ends with a result.
    End(usize, usize),
    /// A guest ends without one.
    Lose(usize, usize),
    /// A report reaches a coordinator. If that is acknowledged, the host forgets the result.
    Report(usize, usize, bool),
    /// A host gives a lease back whose guest it has lost.
    Release(usize, usize),
    /// A coordinator sees the beat of a host.
    Look(usize, usize),
    /// A coordinator takes the leases of a host.
    Rescue(usize, usize),
}

/// A farm.
pub(crate) struct Farm {
    hosts: usize,
    builds: usize,
    coordinators: usize,
    fault: Option<Fault>,
}

impl Farm {
    pub(crate) fn new(
        hosts: usize,
        builds: usize,
        coordinators: usize,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            hosts,
            builds,
            coordinators,
            fault,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn patience(&self) -> u8 {
        if self.has(Fault::CoordinatorIsImpatient) {
            1
        } else {
            PATIENCE
        }
    }

    fn can_claim(&self, state: &State, host: usize, build: usize) -> bool {
        match state.builds[build] {
            Build::New | Build::Returned(_) => true,
            Build::Leased(it) => self.has(Fault::ClaimIgnoresState) && it != number(host),
            Build::Finished => false,
        }
    }

    /// Returns the sets of builds that a host can claim.
    fn claims(&self, state: &State, host: usize) -> impl Iterator<Item = u8> {
        let free: u8 = (0..self.builds)
            .filter(|build| self.can_claim(state, host, *build))
            .map(|build| 1 << build)
            .sum();
        (0..1 << self.builds).filter(move |set| set & !free == 0)
    }

    /// Raises the beat of a host, and claims builds.
    fn serve(&self, state: &mut State, host: usize, claimed: u8) {
        state.hosts[host].seen = state.hosts[host].seen.map(|_| None);
        for build in (0..self.builds).filter(|build| claimed >> build & 1 == 1) {
            self.claim(state, host, build);
        }
    }

    /// Raises the epoch of a build: what hosts have of it is old from now on.
    fn claim(&self, state: &mut State, host: usize, build: usize) {
        state.builds[build] = Build::Leased(number(host));
        for other in 0..self.hosts {
            state.take_back(other, build);
            let work = &mut state.hosts[other].works[build];
            work.started = false;
            if work.result == Kept::Newest {
                work.result = Kept::Old;
            }
        }
    }

    /// Takes the lease of a build.
    fn take(state: &mut State, host: usize, build: usize) {
        if state.has_lease(host, build) {
            state.builds[build] = Build::Returned(number(host));
            state.take_back(host, build);
        }
    }

    /// Handles an answer: guests start, continue or are ended.
    fn answered(&self, state: &mut State, host: usize, units: u8, told: [Told; BUILDS_MAX]) {
        for (build, told) in told.into_iter().enumerate().take(self.builds) {
            let work = &mut state.hosts[host].works[build];
            let may_start = !work.started || self.has(Fault::LeaseStartsAgain);
            match told {
                Told::No => work.guest = 0,
                _ if work.guest > 0 => work.guest = work.guest.max(units),
                // All that is left of a guest that has ended.
                _ if work.result == Kept::Newest => {}
                Told::Lease | Told::Former if may_start => {
                    if work.started {
                        state.mistake = Mistake::TwoGuests;
                    }
                    (work.guest, work.started) = (units, true);
                }
                Told::Lease | Told::Former => {}
            }
        }
    }

    fn report(&self, state: &mut State, host: usize, build: usize) {
        let is_old = state.hosts[host].works[build].result == Kept::Old;
        match state.builds[build] {
            Build::Finished if self.has(Fault::FinishIsRepeated) => {
                state.mistake = Mistake::TwoResults;
            }
            Build::Finished | Build::New => {}
            Build::Leased(_) | Build::Returned(_)
                if self.has(Fault::FinishIgnoresEpoch) && is_old =>
            {
                state.mistake = Mistake::OldResult;
            }
            Build::Leased(by) | Build::Returned(by) => {
                if by == number(host) && !is_old {
                    state.builds[build] = Build::Finished;
                }
            }
        }
    }

    fn pass(&self, state: &mut State) {
        for host in &mut state.hosts {
            let is_confirmed = self.has(Fault::AnswersCountFromTheirArrival);
            host.poll = match host.poll {
                Poll::Answered(units, told) if is_confirmed => Poll::Answered(units, told),
                Poll::Answered(units @ 2.., told) => Poll::Answered(units - 1, told),
                Poll::Answered(..) | Poll::None => Poll::None,
            };
            for work in &mut host.works {
                if !self.has(Fault::NoGuard) {
                    work.guest = work.guest.saturating_sub(1);
                }
            }
            for seen in &mut host.seen {
                *seen = seen.map(|units| (units + 1).min(PATIENCE));
            }
        }
    }
}

impl Model for Farm {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.mistake != Mistake::None {
            return;
        }
        actions.push(Action::Time);
        for host in 0..self.hosts {
            let it = &state.hosts[host];
            let claims = self.claims(state, host);
            actions.extend(claims.map(|claim| Action::ServeLate(host, claim)));
            match it.poll {
                Poll::None => {
                    for claim in self.claims(state, host) {
                        actions.extend((1..=HALF).map(|left| Action::Serve(host, claim, left)));
                    }
                }
                Poll::Answered(..) => {
                    actions.extend([Action::Answer(host), Action::GiveUp(host)]);
                }
            }
            for build in 0..self.builds {
                let work = it.works[build];
                if work.guest > 0 {
                    actions.extend([Action::End(host, build), Action::Lose(host, build)]);
                }
                if work.result != Kept::None {
                    let report = |is_answered| Action::Report(host, build, is_answered);
                    actions.extend([report(true), report(false)]);
                } else if work.started && work.guest == 0 && state.has_lease(host, build) {
                    actions.push(Action::Release(host, build));
                }
            }
            if !state.has_leases(host) {
                continue;
            }
            for coordinator in 0..self.coordinators {
                match it.seen[coordinator] {
                    Some(units) if units >= self.patience() => {
                        actions.push(Action::Rescue(coordinator, host));
                    }
                    Some(_) => {}
                    None => actions.push(Action::Look(coordinator, host)),
                }
                if self.has(Fault::RescueIgnoresBeat) {
                    actions.push(Action::Rescue(coordinator, host));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        match action {
            Action::Time => self.pass(&mut next),
            Action::Serve(host, claimed, units) => {
                self.serve(&mut next, host, claimed);
                let mut told = [Told::No; BUILDS_MAX];
                for (build, it) in told.iter_mut().enumerate() {
                    if next.has_lease(host, build) {
                        *it = Told::Lease;
                    }
                }
                next.hosts[host].poll = Poll::Answered(units, told);
            }
            Action::ServeLate(host, claimed) => self.serve(&mut next, host, claimed),
            Action::Answer(host) => {
                if let Poll::Answered(units, told) = next.hosts[host].poll {
                    self.answered(&mut next, host, units, told);
                }
                next.hosts[host].poll = Poll::None;
            }
            Action::GiveUp(host) => next.hosts[host].poll = Poll::None,
            Action::End(host, build) => {
                let work = &mut next.hosts[host].works[build];
                (work.guest, work.result) = (0, Kept::Newest);
            }
            Action::Lose(host, build) => next.hosts[host].works[build].guest = 0,
            Action::Report(host, build, is_answered) => {
                self.report(&mut next, host, build);
                if is_answered {
                    next.hosts[host].works[build].result = Kept::None;
                }
            }
            Action::Release(host, build) => Self::take(&mut next, host, build),
            Action::Look(coordinator, host) => next.hosts[host].seen[coordinator] = Some(0),
            Action::Rescue(_, host) => {
                next.hosts[host].seen = next.hosts[host].seen.map(|_| None);
                (0..self.builds).for_each(|build| Self::take(&mut next, host, build));
            }
        }
        if !self.has(Fault::LeaseStartsAgain) {
            next = next.reduced();
        }
        next = next.canonical(self.builds, self.coordinators);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let [no_lease, two, again, results, old] = PROPERTIES;
        vec![
            Property::always(no_lease, |_: &Farm, state: &State| {
                state.hosts.iter().enumerate().all(|(host, it)| {
                    let guests = it.works.iter().enumerate().filter(|(_, it)| it.guest > 0);
                    guests
                        .into_iter()
                        .all(|(build, _)| state.has_lease(host, build))
                })
            }),
            Property::always(two, |_: &Farm, state: &State| {
                (0..BUILDS_MAX).all(|build| {
                    let guests = state.hosts.iter().filter(|it| it.works[build].guest > 0);
                    guests.count() <= 1
                })
            }),
            Property::always(again, |_: &Farm, state: &State| {
                state.mistake != Mistake::TwoGuests
            }),
            Property::always(results, |_: &Farm, state: &State| {
                state.mistake != Mistake::TwoResults
            }),
            Property::always(old, |_: &Farm, state: &State| {
                state.mistake != Mistake::OldResult
            }),
            Property::sometimes("a lease is taken back", |_: &Farm, state: &State| {
                let is_back = |it: &Build| matches!(it, Build::Returned(_));
                state.builds.iter().any(is_back)
            }),
            Property::sometimes("all builds have results", |farm: &Farm, state: &State| {
                state.builds[..farm.builds]
                    .iter()
                    .all(|it| *it == Build::Finished)
            }),
        ]
    }
}
