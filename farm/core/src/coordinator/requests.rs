//! The requests that are one operation of the store. If its commit is unknown, it is repeated.

use super::Step;
use crate::messages::{Reply, Request};
use crate::operation::{Answer, Operation, Unknown};
use crate::schedules::Occasion;
use crate::{Published, Terms};

/// The most attempts of one operation.
const ATTEMPTS_MAX: u32 = 3;

/// A request that is one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainHandling {
    request: Request,
    attempts_max: u64,
    attempts: u32,
}

impl PlainHandling {
    pub(super) fn begin(request: Request, terms: Terms) -> (Self, Step) {
        let handling = Self {
            request,
            attempts_max: terms.attempts_max,
            attempts: 1,
        };
        let step = handling.ask();
        (handling, step)
    }

    pub(super) fn answered(&mut self, answer: Result<Answer, Unknown>) -> Step {
        match answer {
            Ok(answer) => Step::Reply(reply(&self.request, answer)),
            Err(Unknown) if self.attempts < ATTEMPTS_MAX => {
                self.attempts += 1;
                self.ask()
            }
            Err(Unknown) => Step::Reply(Reply::Unavailable),
        }
    }

    fn ask(&self) -> Step {
        match self.request.clone() {
            // It has a state machine of its own.
            Request::Poll(..) => Step::Reply(Reply::Unavailable),
            Request::Report(host, report) => Step::Ask(Operation::Finish(host, report)),
            Request::Release(host, release) => Step::Ask(Operation::Release {
                host,
                lease: release.lease,
                is_unused: release.is_unused,
                attempts_max: self.attempts_max,
            }),
            Request::Submit(submission) => Step::Ask(Operation::Submit(submission)),
            Request::Cancel(build) => Step::Ask(Operation::Cancel(build)),
            Request::Publish(machine, wanted) => Step::Ask(Operation::Publish(machine, wanted)),
            Request::BeginTrial(machine, candidate, terms) => {
                Step::Ask(Operation::BeginTrial(machine, candidate, terms))
            }
            Request::EndTrial(machine, number, verdict, reason) => Step::Ask(Operation::EndTrial {
                machine,
                number,
                verdict,
                reason,
            }),
            Request::Drain(host, drained) => Step::Ask(Operation::Drain(host, drained)),
            Request::AddWindow(host, new) => Step::Ask(Operation::AddWindow(host, new)),
            Request::RemoveWindow(host, id) => Step::Ask(Operation::RemoveWindow(host, id)),
            Request::AddSchedule(schedule, replaces) => {
                Step::Ask(Operation::AddSchedule(schedule, replaces))
            }
            Request::RemoveSchedule(name) => Step::Ask(Operation::RemoveSchedule(name)),
            Request::PauseSchedule(name, paused) => {
                Step::Ask(Operation::PauseSchedule(name, paused))
            }
            Request::RunSchedule(name, key) => {
                Step::Ask(Operation::RunSchedule(name, Occasion::Now(key)))
            }
        }
    }
}

/// Returns the reply to a request for the answer of the store.
fn reply(request: &Request, answer: Answer) -> Reply {
    match (request, answer) {
        (Request::Report(_, report), Answer::Recorded) => Reply::Recorded(report.lease),
        (Request::Report(_, report), Answer::Stale) => Reply::Stale(report.lease),
        (Request::Release(_, release), Answer::Recorded) => Reply::Released(release.lease),
        (Request::Release(_, release), Answer::Stale) => Reply::Stale(release.lease),
        (Request::Submit(_), Answer::Submitted(build)) => Reply::Submitted(build),
        (Request::Submit(_) | Request::AddSchedule(..), Answer::Missing(digests)) => {
            Reply::NoSource(digests)
        }
        (Request::Cancel(build), Answer::Canceled) => Reply::Canceled(*build),
        (Request::Cancel(build), Answer::Finished(outcome)) => Reply::Finished(*build, outcome),
        (
            Request::Publish(machine, _) | Request::BeginTrial(machine, ..),
            Answer::Published(revision),
        ) => Reply::Published(machine.clone(), revision),
        (Request::Publish(machine, wanted), Answer::OtherContent(content)) => {
            let content = Some(content);
            let revision = wanted.revision;
            Reply::OtherContent(machine.clone(), Published { revision, content })
        }
        (Request::BeginTrial(..), Answer::TrialBegun(number)) => Reply::TrialBegun(number),
        (Request::BeginTrial(machine, ..), Answer::NotFound) => Reply::NotFound(format!(
            "the farm has published no revision of {machine} that a candidate could be compared with; publish \
             one first"
        )),
        (Request::EndTrial(machine, ..), Answer::Stale) => Reply::TrialOver(machine.clone()),
        (Request::AddWindow(..), Answer::Window(id)) => Reply::Window(id),
        (
            Request::EndTrial(..)
            | Request::Drain(..)
            | Request::RemoveWindow(..)
            | Request::RemoveSchedule(_)
            | Request::PauseSchedule(..),
            Answer::Done,
        )
        | (Request::EndTrial(..), Answer::Recorded) => Reply::Done,
        (Request::AddSchedule(..), Answer::ScheduleAdded(added)) => Reply::ScheduleAdded(added),
        (Request::RunSchedule(..), Answer::Ran(build, result)) => Reply::Ran(build, result),
        (Request::PauseSchedule(name, _) | Request::RunSchedule(name, _), Answer::NotFound) => {
            Reply::NotFound(format!(
                "there is no schedule {name}; `buildhost schedule list` lists all schedules"
            ))
        }
        (Request::Cancel(build), Answer::NotFound) => {
            Reply::NotFound(format!("build {build} does not exist in the farm"))
        }
        (
            Request::Drain(host, _) | Request::AddWindow(host, _) | Request::RemoveWindow(host, _),
            Answer::NotFound,
        ) => Reply::NotFound(format!("host {} does not exist in the farm", host.0)),
        _ => Reply::Unavailable,
    }
}
