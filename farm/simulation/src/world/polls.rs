//! The parts of a coordinator that many polls share: their beats and the queue.

use std::collections::BTreeMap;

use farm_core::HostId;
use farm_core::Moment;
use farm_core::coordinator::beats::{Beats, split};
use farm_core::coordinator::queue::Queue;
use farm_core::operation::{Answer, Operation, Pick, Unknown};

use super::{Call, Caller, Event, World};

/// The time for which beats are collected.
const COLLECT_MS: u64 = 50;

/// The shared parts.
#[derive(Debug, Default)]
pub(super) struct Polls {
    beats: Beats<Call>,
    /// The polls whose beats are under way, by the number of the call.
    batches: BTreeMap<u64, Vec<Call>>,
    queue: Queue,
    /// The requests that read the queue.
    readers: BTreeMap<u64, (Moment, Operation)>,
    /// The requests that claim builds.
    claims: BTreeMap<u64, Vec<Pick>>,
    /// The last poll of each host that is held.
    pub(super) held: BTreeMap<HostId, u64>,
}

impl Polls {
    pub(super) fn new(coordinator: u64) -> Self {
        Self {
            queue: Queue::new(coordinator),
            ..Self::default()
        }
    }
}

impl World {
    /// Asks the store, together with others where that is possible.
    pub(super) fn coordinator_asks(&mut self, call: Call, request: u64, operation: Operation) {
        let now = self.coordinator_clock(call.coordinator);
        let process = call.process;
        let polls = &mut self.coordinators[call.coordinator].polls;
        match operation {
            Operation::Beat(host, offer) => {
                polls.beats.add(call, host, offer);
                let delay = self.rng.u64(0..=COLLECT_MS);
                self.after(delay, Event::Beats(call.coordinator, process));
            }
            Operation::Candidates { machines, most } => {
                if let Some(answer) = polls.queue.answer(now, &machines, most) {
                    return self.request_answer(call, request, Ok(answer));
                }
                let asked = (now, Operation::Candidates { machines, most });
                let (_, Operation::Candidates { machines, most }) = &asked else {
                    return;
                };
                let reading = polls.queue.reading(machines, *most);
                polls.readers.insert(request, asked);
                self.ask(call, reading);
            }
            Operation::Claim { host, beat, picks } => {
                polls.queue.claiming(now, &picks);
                polls.claims.insert(request, picks.clone());
                self.ask(call, Operation::Claim { host, beat, picks });
            }
            other => self.ask(call, other),
        }
    }

    /// Writes the beats that were collected.
    pub(super) fn coordinator_beats(&mut self, coordinator: usize, process: u64) {
        let it = &self.coordinators[coordinator];
        if !it.up || it.process != process {
            return;
        }
        if self.coordinator_sleeps(coordinator, &Event::Beats(coordinator, process)) {
            return;
        }
        let Some((polls, operation)) = self.coordinators[coordinator].polls.beats.take() else {
            return;
        };
        let call = self.own_call(coordinator, Caller::Beats);
        let it = &mut self.coordinators[coordinator].polls;
        it.batches.insert(call.operation, polls);
        self.ask(call, operation);
    }

    pub(super) fn beats_answer(&mut self, call: Call, answer: Result<Answer, Unknown>) {
        let it = &mut self.coordinators[call.coordinator].polls;
        let Some(polls) = it.batches.remove(&call.operation) else {
            return;
        };
        for (poll, answer) in split(polls, answer) {
            if let Caller::Request(request) = poll.request {
                self.request_answer(poll, request, answer);
            }
        }
    }

    /// Notes what an answer says about the queue, and returns the answer for the request.
    pub(super) fn queue_answer(
        &mut self,
        coordinator: usize,
        request: u64,
        answer: Result<Answer, Unknown>,
    ) -> Result<Answer, Unknown> {
        let now = self.coordinator_clock(coordinator);
        let polls = &mut self.coordinators[coordinator].polls;
        let picks = polls.claims.remove(&request);
        let reader = polls.readers.remove(&request);
        let answer = answer?;
        if let Some(picks) = picks {
            polls.queue.claimed(&picks, &answer);
        }
        let Some((asked, Operation::Candidates { machines, most })) = reader else {
            return Ok(answer);
        };
        let reading = polls.queue.reading(&machines, most);
        polls.queue.note(asked, &reading, &answer);
        let found = polls.queue.answer(now, &machines, most);
        Ok(found.unwrap_or(Answer::Candidates {
            builds: Vec::new(),
            used_ms: BTreeMap::new(),
            vacancies: BTreeMap::new(),
        }))
    }
}
