//! The coordinator: each request of a host or client is a small state machine that asks the store.
//!
//! Coordinators have no leader and keep nothing that must survive. Any number of them may serve one
//! farm, because the store alone decides.

use std::collections::BTreeMap;

use crate::copies::{Copying, Keepers};
use crate::messages::{Reply, Request};
use crate::operation::{Answer, HostRow, Operation, Unknown};
use crate::{HostId, Moment, Terms};

pub mod beats;
mod polls;
pub mod queue;
mod requests;
mod submissions;

use polls::PollHandling;
use requests::PlainHandling;
use submissions::SubmissionHandling;

/// The next step of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the store.
    Ask(Operation),
    /// Continue at this time, or earlier if the queue has changed.
    Wait(Moment),
    /// Copy a source from one coordinator to another one, then give the result to [`Handling::copied`].
    Copy(Copying),
    /// Answer.
    Reply(Reply),
}

/// The view of a coordinator that all its requests share. Each placement works without it.
#[derive(Debug, Clone, Default)]
pub struct FarmView {
    /// The hosts that are alive, as they were read last.
    pub hosts: BTreeMap<HostId, HostRow>,
    /// The coordinators that keep sources.
    pub keepers: Keepers,
}

/// A request that is being handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handling {
    /// A poll.
    Poll(Box<PollHandling>),
    /// A build or a schedule with sources.
    Submission(Box<SubmissionHandling>),
    /// Any other request.
    Plain(Box<PlainHandling>),
}

impl Handling {
    /// Begins to handle a request, and returns its first step.
    pub fn begin(request: Request, terms: Terms, now: Moment) -> (Self, Step) {
        match request {
            Request::Poll(host, poll) => {
                let (handling, step) = PollHandling::begin(host, poll, terms, now);
                (Self::Poll(Box::new(handling)), step)
            }
            Request::Submit(submission) if !submission.requirements.work.sources.is_empty() => {
                let (handling, step) = SubmissionHandling::of_build(submission);
                (Self::Submission(Box::new(handling)), step)
            }
            Request::AddSchedule(schedule, replaces)
                if !schedule.requirements.work.sources.is_empty() =>
            {
                let (handling, step) = SubmissionHandling::of_schedule(schedule, replaces);
                (Self::Submission(Box::new(handling)), step)
            }
            other => {
                let (handling, step) = PlainHandling::begin(other, terms);
                (Self::Plain(Box::new(handling)), step)
            }
        }
    }

    /// Continues with the answer of the store.
    pub fn answered(
        &mut self,
        now: Moment,
        view: &FarmView,
        answer: Result<Answer, Unknown>,
    ) -> Step {
        match self {
            Self::Poll(handling) => handling.answered(now, view, answer),
            Self::Submission(handling) => handling.answered(view, answer),
            Self::Plain(handling) => handling.answered(answer),
        }
    }

    /// Continues after [`Step::Copy`], with the reason for which the copy could not be made.
    pub fn copied(&mut self, copying: Copying, result: Result<(), String>) -> Step {
        match self {
            Self::Submission(handling) => handling.copied(copying, result),
            Self::Poll(_) | Self::Plain(_) => Step::Reply(Reply::Unavailable),
        }
    }

    /// Continues at once after [`Step::Wait`], because there are orders for the host, it has polled again,
    /// or the coordinator ends. The next poll finds the orders.
    pub fn hurried(&mut self) -> Step {
        match self {
            Self::Poll(handling) => handling.hurried(),
            Self::Submission(_) | Self::Plain(_) => Step::Reply(Reply::Unavailable),
        }
    }

    /// Continues after [`Step::Wait`].
    pub fn waited(&mut self, now: Moment) -> Step {
        match self {
            Self::Poll(handling) => handling.waited(now),
            Self::Submission(_) | Self::Plain(_) => Step::Reply(Reply::Unavailable),
        }
    }

    /// Returns the host whose poll this is.
    pub fn polling(&self) -> Option<HostId> {
        match self {
            Self::Poll(handling) => Some(handling.host()),
            Self::Submission(_) | Self::Plain(_) => None,
        }
    }
}
