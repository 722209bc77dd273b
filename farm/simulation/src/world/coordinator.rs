//! The coordinators.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::archive::Upload;
use farm_core::coordinator::{FarmView, Handling, Step};
use farm_core::copies::{Attendance, Copying};
use farm_core::messages::{Reply, Request};
use farm_core::operation::{Answer, HostRow, Operation, Unknown};
use farm_core::watch::Watch;
use farm_core::{HostId, Moment};
use fastrand::Rng;

use super::polls::Polls;
use super::sources::Shelf;
use super::{Call, Caller, Event, Origin, TERMS, World};
use crate::Bug;

/// The time between two looks of a watch.
const WATCH_MS: u64 = 300;
/// The time after which an operation without an answer is unknown.
const ANSWER_MS: u64 = 600;

/// A coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(super) process: u64,
    pub(super) up: bool,
    pub(super) paused_until: u64,
    pub(super) wall_offset: u64,
    rate_permille: u64,
    requests: u64,
    handlings: BTreeMap<u64, (Handling, Origin, u64)>,
    pub(super) view: FarmView,
    pub(super) shelf: Shelf,
    watch: Watch,
    /// The uploads that are under way.
    pub(super) uploads: BTreeSet<Upload>,
    /// The hosts that have not sent in time, each until when it is asked last.
    pub(super) late: BTreeMap<HostId, u64>,
    calls: u64,
    pub(super) polls: Polls,
}

impl Coordinator {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            process: 0,
            up: false,
            paused_until: 0,
            wall_offset: 1_000_000,
            rate_permille: rng.u64(900..=1100),
            requests: 0,
            handlings: BTreeMap::new(),
            view: FarmView::default(),
            shelf: Shelf::default(),
            watch: Watch::default(),
            uploads: BTreeSet::new(),
            late: BTreeMap::new(),
            calls: 0,
            polls: Polls::default(),
        }
    }
}

impl World {
    pub(super) fn coordinator_clock(&self, coordinator: usize) -> Moment {
        let it = &self.coordinators[coordinator];
        if self.has(Bug::WatchUsesWallClock) {
            return Moment(self.now + it.wall_offset);
        }
        Moment(self.now * it.rate_permille / 1000)
    }

    /// Puts an event off while a coordinator is paused. Returns true if it did.
    pub(super) fn coordinator_sleeps(&mut self, coordinator: usize, event: &Event) -> bool {
        let until = self.coordinators[coordinator].paused_until;
        if until > self.now {
            self.after(until - self.now, event.clone());
        }
        until > self.now
    }

    pub(super) fn coordinator_start(&mut self, coordinator: usize) {
        let it = &mut self.coordinators[coordinator];
        if it.up {
            return;
        }
        it.up = true;
        it.process += 1;
        let process = it.process;
        it.handlings.clear();
        it.view = FarmView::default();
        it.watch = Watch::default();
        it.shelf.attendance = Attendance::default();
        it.uploads.clear();
        it.late.clear();
        it.polls = Polls::new(self.rng.u64(..));
        self.say(|| format!("coordinator {coordinator} starts"));
        self.after(1, Event::Watch(coordinator, process));
        self.after(1, Event::Uploads(coordinator, process));
    }

    pub(super) fn coordinator_request(
        &mut self,
        coordinator: usize,
        from: Origin,
        request: Request,
    ) {
        if !self.coordinators[coordinator].up {
            return;
        }
        let event = Event::Request(coordinator, from, request);
        if self.coordinator_sleeps(coordinator, &event) {
            return;
        }
        let Event::Request(_, _, request) = event else {
            return;
        };
        let now = self.coordinator_clock(coordinator);
        let it = &mut self.coordinators[coordinator];
        it.requests += 1;
        let number = it.requests;
        let (handling, step) = Handling::begin(request, TERMS, now);
        let polling = handling.polling();
        it.handlings.insert(number, (handling, from, 0));
        if let Some(host) = polling {
            // An earlier poll of the host is answered, because nobody waits for it.
            self.call_host(coordinator, host);
        }
        self.coordinator_step(coordinator, number, step);
    }

    pub(super) fn coordinator_step(&mut self, coordinator: usize, request: u64, step: Step) {
        let now = self.coordinator_clock(coordinator);
        let it = &mut self.coordinators[coordinator];
        let process = it.process;
        let Some((_, from, operation)) = it.handlings.get_mut(&request) else {
            return;
        };
        let from = *from;
        *operation += 1;
        let call = Call {
            coordinator,
            process,
            request: Caller::Request(request),
            operation: *operation,
        };
        match step {
            Step::Ask(operation) => {
                let work = match &operation {
                    Operation::Submit(submission) => Some(&submission.requirements.work),
                    Operation::AddSchedule(schedule, _) => Some(&schedule.requirements.work),
                    _ => None,
                };
                if let Some(work) = work {
                    self.check_copies(coordinator, &work.digests());
                }
                self.coordinator_asks(call, request, operation);
            }
            Step::Copy(copying) => self.copy_source(call, copying),
            Step::Wait(until) => {
                if let Some(host) = it.handlings[&request].0.polling() {
                    it.polls.held.insert(host, request);
                }
                let wait = self.rng.u64(0..=until.since(now)) + 1;
                self.after(wait, Event::HoldOver(call));
            }
            Step::Reply(mut reply) => {
                if let (Reply::Leases(answer), true) = (&mut reply, self.has(Bug::NoSecondGrant)) {
                    let ghosts = &self.ghosts;
                    answer.leases.retain(|it| ghosts.was_granted_once(it.lease));
                }
                if let Reply::Leases(answer) = &reply {
                    for grant in &answer.leases {
                        self.ghosts.granted(grant.lease);
                    }
                }
                self.replied(&reply);
                self.coordinators[coordinator].handlings.remove(&request);
                self.send_reply(coordinator, from, reply);
            }
        }
    }

    /// Sends an operation to the store. The connection may break before or after its commit.
    pub(super) fn ask(&mut self, call: Call, operation: Operation) {
        self.after(ANSWER_MS, Event::NoAnswer(call));
        if let Some(delay) = self.transit() {
            self.after(delay, Event::Operation(call, operation));
        }
    }

    pub(super) fn coordinator_answer(&mut self, call: Call, answer: Option<Answer>) {
        let it = &self.coordinators[call.coordinator];
        if !it.up || it.process != call.process {
            return;
        }
        let event = answer.map_or(Event::NoAnswer(call), |it| Event::Answer(call, it));
        if self.coordinator_sleeps(call.coordinator, &event) {
            return;
        }
        let answer = match event {
            Event::Answer(_, answer) => Ok(answer),
            _ => Err(Unknown),
        };
        match call.request {
            Caller::Watch => self.watch_answer(call, answer),
            Caller::Uploads => self.uploads_answer(call, answer),
            Caller::Beats => self.beats_answer(call, answer),
            Caller::Schedules => self.schedules_answer(call, answer),
            Caller::Request(request) => {
                let handlings = &self.coordinators[call.coordinator].handlings;
                if handlings
                    .get(&request)
                    .is_some_and(|it| it.2 == call.operation)
                {
                    let answer = self.queue_answer(call.coordinator, request, answer);
                    self.request_answer(call, request, answer);
                }
            }
        }
    }

    /// Gives the answer of the store to a request that waits for it.
    pub(super) fn request_answer(
        &mut self,
        call: Call,
        request: u64,
        mut answer: Result<Answer, Unknown>,
    ) {
        if self.has(Bug::UnknownIsSuccess) && answer.is_err() {
            answer = Ok(Answer::Recorded);
        }
        let now = self.coordinator_clock(call.coordinator);
        let it = &mut self.coordinators[call.coordinator];
        let Some((handling, _, operation)) = it.handlings.get_mut(&request) else {
            return;
        };
        if *operation != call.operation {
            return;
        }
        let step = if self.bug == Some(Bug::SourceHasOneCopy) {
            let mut view = it.view.clone();
            let own = view.keepers.own.clone();
            view.keepers.alive.retain(|it| Some(it) == own.as_ref());
            handling.answered(now, &view, answer)
        } else {
            handling.answered(now, &it.view, answer)
        };
        self.coordinator_step(call.coordinator, request, step);
    }

    /// Tells a request that a copy was made, or the reason for which it was not.
    pub(super) fn coordinator_copied(
        &mut self,
        call: Call,
        copying: Copying,
        result: Result<(), String>,
    ) {
        let it = &mut self.coordinators[call.coordinator];
        let Caller::Request(request) = call.request else {
            return;
        };
        if !it.up || it.process != call.process {
            return;
        }
        let Some((handling, _, operation)) = it.handlings.get_mut(&request) else {
            return;
        };
        if *operation == call.operation {
            let step = handling.copied(copying, result);
            self.coordinator_step(call.coordinator, request, step);
        }
    }

    pub(super) fn coordinator_hold_over(&mut self, call: Call) {
        let it = &self.coordinators[call.coordinator];
        if !it.up || it.process != call.process {
            return;
        }
        if self.coordinator_sleeps(call.coordinator, &Event::HoldOver(call)) {
            return;
        }
        let Caller::Request(request) = call.request else {
            return;
        };
        let now = self.coordinator_clock(call.coordinator);
        let it = &mut self.coordinators[call.coordinator];
        let Some((handling, _, operation)) = it.handlings.get_mut(&request) else {
            return;
        };
        if *operation == call.operation {
            let step = handling.waited(now);
            self.coordinator_step(call.coordinator, request, step);
        }
    }

    /// Answers the poll of a host that is held.
    pub(super) fn call_host(&mut self, coordinator: usize, host: HostId) {
        let it = &mut self.coordinators[coordinator];
        let Some(request) = it.polls.held.remove(&host) else {
            return;
        };
        if let Some((handling, ..)) = it.handlings.get_mut(&request) {
            let step = handling.hurried();
            self.coordinator_step(coordinator, request, step);
        }
    }

    pub(super) fn coordinator_watch(&mut self, coordinator: usize, process: u64) {
        let it = &self.coordinators[coordinator];
        if !it.up || it.process != process {
            return;
        }
        if self.coordinator_sleeps(coordinator, &Event::Watch(coordinator, process)) {
            return;
        }
        self.after(WATCH_MS, Event::Watch(coordinator, process));
        let call = self.own_call(coordinator, Caller::Watch);
        self.ask(call, Operation::Hosts);
        let call = self.own_call(coordinator, Caller::Watch);
        self.ask(call, Operation::Trials);
        self.attend(coordinator);
        self.coordinator_looks_at_schedules(coordinator);
    }

    /// Returns a call that belongs to no request.
    pub(super) fn own_call(&mut self, coordinator: usize, request: Caller) -> Call {
        let it = &mut self.coordinators[coordinator];
        it.calls += 1;
        Call {
            coordinator,
            process: it.process,
            request,
            operation: it.calls,
        }
    }

    fn watch_answer(&mut self, call: Call, answer: Result<Answer, Unknown>) {
        let rows = match answer {
            Ok(Answer::Hosts(rows)) => rows,
            Ok(Answer::Trials(states)) => return self.trials_answer(call.coordinator, states),
            Ok(other) => return self.sources_answer(call.coordinator, other),
            Err(Unknown) => return,
        };
        let now = self.coordinator_clock(call.coordinator);
        let lost = self.watch_lost(call.coordinator, now, &rows);
        let it = &mut self.coordinators[call.coordinator];
        for host in it.watch.ordered(&rows) {
            self.call_host(call.coordinator, host);
        }
        let it = &mut self.coordinators[call.coordinator];
        let alive = |row: &HostRow| it.watch.is_alive(row.host, now, TERMS.lease_ms);
        let view = rows.into_iter().filter(alive).map(|row| (row.host, row));
        it.view.hosts = view.collect();
        for (host, beat) in lost {
            let call = self.own_call(call.coordinator, Caller::Watch);
            let rescue = Operation::Rescue {
                host,
                beat,
                attempts_max: TERMS.attempts_max,
            };
            self.ask(call, rescue);
        }
    }

    fn watch_lost(
        &mut self,
        coordinator: usize,
        now: Moment,
        rows: &[HostRow],
    ) -> Vec<(HostId, u64)> {
        let bug = self.bug;
        let watch = &mut self.coordinators[coordinator].watch;
        match bug {
            Some(Bug::WatchSleeps) => Vec::new(),
            Some(Bug::WatchIsImpatient) => watch.observe(now, rows, TERMS.lease_ms / 4),
            Some(Bug::WatchMissesBeats) => {
                let same: Vec<_> = rows
                    .iter()
                    .map(|row| HostRow {
                        beat: 0,
                        ..row.clone()
                    })
                    .collect();
                let lost = watch.observe(now, &same, TERMS.lease_ms);
                let beat = |host| {
                    rows.iter()
                        .find(|it| it.host == host)
                        .map_or(0, |it| it.beat)
                };
                lost.into_iter()
                    .map(|(host, _)| (host, beat(host)))
                    .collect()
            }
            _ => watch.observe(now, rows, TERMS.lease_ms),
        }
    }
}
