//! The operations of the store, each one transaction, and their answers.
//!
//! Every operation may be repeated: a commit whose answer got lost is simply tried again.

use std::collections::BTreeMap;

use config::builds::{Priority, Submitter};
use config::canary::{self, TrialVerdict};
use config::schedule::RunResult;
use config::task::{Digest, Outcome};
use config::{BuildId, MachineName, ScheduleName};
use jiff::Timestamp;

use crate::archive::{Archive, Attempt, Upload};
use crate::copies::{CoordinatorName, Copies};
use crate::messages::{Grant, Report, Submission};
use crate::schedules::{Added, Occasion, Schedule, ScheduleRow};
use crate::trials::{Trial, TrialNumber, TrialState};
use crate::windows::{NewWindow, Occurrence, WindowId};
use crate::{Epoch, HostId, Lease, Offer, Published, Requirements, Revision};

/// A build that is to be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The build.
    pub build: BuildId,
    /// Its epoch as it was read. The claim raises it.
    pub epoch: Epoch,
    /// The revision that the host would use.
    pub revision: Revision,
    /// The content of that revision, as the host offers it.
    pub content: Option<Digest>,
    /// The time that is charged to the submitter until the true one is known.
    pub charge_ms: u64,
    /// The trial whose candidate that revision is; `None` for the host's current revision.
    pub trial: Option<TrialNumber>,
}

/// A transaction on the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds a build, unless one has the same idempotency key, or the store does not know one of its sources.
    Submit(Submission),
    /// Reads the coordinators that have sources, and notes that the sources are needed; or reads the build
    /// of an idempotency key, if there is one.
    Copies {
        /// The idempotency key.
        key: String,
        /// The sources.
        digests: Vec<Digest>,
    },
    /// Notes that a coordinator has a source.
    Keep(Digest, CoordinatorName),
    /// Notes that a coordinator does not have a source.
    Lose(Digest, CoordinatorName),
    /// Forgets the sources that no unfinished build names and that were not needed for some milliseconds.
    Expire(u64),
    /// Notes that a coordinator does not have a source any more, if the source is forgotten.
    Discard(Digest, CoordinatorName),
    /// Raises the beat of a coordinator that keeps sources, and reads those of all.
    Attend(CoordinatorName),
    /// Marks a build as canceled. One that waits is finished.
    Cancel(BuildId),
    /// Raises the beat of a host, stores its offer and reads its leases.
    Beat(HostId, Offer),
    /// Executes [`Self::Beat`] of different hosts at once.
    Beats(Vec<(HostId, Offer)>),
    /// Reads builds in the queue, some of each submitter. Those whose sources are on no coordinator that
    /// was seen lately are left out.
    Candidates {
        /// The machines of the host.
        machines: Vec<MachineName>,
        /// The most builds of one submitter and machine.
        most: u64,
    },
    /// Claims builds for a host: those that are still as they were read, and none if the beat of the
    /// host has changed. Raises the beat, so that one poll claims once. A claim on trial succeeds only while
    /// the trial is open, and only for a build that was not lost and has not been on trial.
    Claim {
        /// The host.
        host: HostId,
        /// Its beat, as the poll raised it.
        beat: u64,
        /// The builds.
        picks: Vec<Pick>,
    },
    /// Records a result, if the lease is the newest one of its build and belongs to the host. A failure on
    /// trial is no result: the build returns to the queue, where all is as before but that it was on trial. A
    /// build that was canceled ends as `abort`.
    Finish(HostId, Report),
    /// Returns a build to the queue, under the same condition. One whose guest may have started has been
    /// lost, as by a host that is silent; on trial that is a failure of the host, and no loss.
    Release {
        /// The host.
        host: HostId,
        /// Its lease.
        lease: Lease,
        /// True if no guest has started.
        is_unused: bool,
        /// The number of losses after which the build is finished as `abnormal`.
        attempts_max: u64,
    },
    /// Reads all hosts.
    Hosts,
    /// Takes all leases from a host whose beat is still this one.
    Rescue {
        /// The host.
        host: HostId,
        /// Its beat.
        beat: u64,
        /// The number of losses after which a build is finished as `abnormal`.
        attempts_max: u64,
    },
    /// Makes a revision current, if it is newer. One whose content was unknown gets its content.
    Publish(MachineName, Published),
    /// Puts a revision on trial that is newer than the published one, and replaces the last trial of the
    /// machine. An open one of the same revision, content and terms goes on.
    BeginTrial(MachineName, Published, canary::Terms),
    /// Ends a trial that is open. A promotion publishes the revision, and has no effect if a newer one is
    /// published.
    EndTrial {
        /// The machine.
        machine: MachineName,
        /// The trial.
        number: TrialNumber,
        /// The verdict.
        verdict: TrialVerdict,
        /// The reason, for people.
        reason: String,
    },
    /// Reads the open trials with their builds.
    Trials,
    /// Sets or resets the drain of a host.
    Drain(HostId, bool),
    /// Adds a window to a host. The same occurrence is one window.
    AddWindow(HostId, NewWindow),
    /// Takes a window of a host away.
    RemoveWindow(HostId, WindowId),
    /// Replaces an occurrence that is over by the next one, or deletes the window if there is no next one.
    MoveWindow {
        /// The window.
        window: WindowId,
        /// The occurrence that is over.
        over: Occurrence,
        /// The next one.
        next: Option<Occurrence>,
    },
    /// Reads a build.
    Show(BuildId),
    /// Reads the schedules that are not paused.
    Schedules,
    /// Adds a schedule; if that is true, it may replace another one of its name. Its times count from now on.
    AddSchedule(Box<Schedule>, bool),
    /// Deletes a schedule. Its builds stay.
    RemoveSchedule(ScheduleName),
    /// Pauses a schedule, or ends its pause, whose times do not run later.
    PauseSchedule(ScheduleName, bool),
    /// Runs a schedule: submits a build, and raises the mark.
    RunSchedule(ScheduleName, Occasion),
    /// Takes uploads that are due, the longest due first, and those that are due so late that the clock was
    /// set back since. Each counts as an attempt.
    TakeUploads {
        /// The most of them.
        most: u64,
        /// The time after which others may take them.
        taken_ms: u64,
    },
    /// Makes an upload due after a time, if no later attempt has begun.
    DeferUpload {
        /// The upload.
        upload: Upload,
        /// The time.
        ms: u64,
    },
    /// Records the archive of a build, or that no host has its files any more, if it has an upload.
    Archive(Lease, Option<Archive>),
}

impl Operation {
    /// Returns the operation that records the end of an attempt.
    pub fn after(upload: Upload, attempt: Attempt) -> Self {
        match attempt {
            Attempt::Stored(archive) => Self::Archive(upload.lease, Some(archive)),
            Attempt::Gone => Self::Archive(upload.lease, None),
            Attempt::Failed => Self::DeferUpload {
                upload,
                ms: upload.pause_ms(),
            },
        }
    }
}

/// A build in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The build.
    pub build: BuildId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The submitter.
    pub submitter: Submitter,
    /// The priority.
    pub priority: Priority,
    /// The needs.
    pub requirements: Requirements,
    /// The time since it was submitted, by the clock of the store.
    pub waited_ms: u64,
    /// The time that such builds took lately. It is read while a window of a host begins within a day.
    pub usual_ms: Option<u64>,
    /// True if it was neither lost nor on trial.
    pub may_be_on_trial: bool,
}

/// A host, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// The host.
    pub host: HostId,
    /// The number of its signs of life.
    pub beat: u64,
    /// The number of its leases.
    pub leases: u64,
    /// The number of orders to the host: drains, cancellations, changes of its key.
    pub orders: u64,
    /// True if no build is placed there: it is drained, or in a window.
    pub drained: bool,
    /// The last offer.
    pub offer: Offer,
}

/// The state of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// The needs.
    pub requirements: Requirements,
    /// The epoch.
    pub epoch: Epoch,
    /// The host that has the lease.
    pub host: Option<HostId>,
    /// The outcome of a finished build.
    pub outcome: Option<Outcome>,
}

/// The answer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The build of the idempotency key.
    Submitted(BuildId),
    /// The store does not know these sources.
    Missing(Vec<Digest>),
    /// The coordinators that have the sources.
    Copies(Copies),
    /// The sources that were forgotten.
    Expired(Vec<Digest>),
    /// The beats of the coordinators.
    Attending(BTreeMap<CoordinatorName, u64>),
    /// The cancellation is recorded.
    Canceled,
    /// The build has this outcome already.
    Finished(Outcome),
    /// The state of the host.
    Beaten {
        /// The new beat.
        beat: u64,
        /// The leases of the host.
        leases: Vec<Grant>,
        /// The revisions that the farm has published.
        published: BTreeMap<MachineName, Published>,
        /// The last trial of each machine.
        trials: BTreeMap<MachineName, Trial>,
        /// True if no build is placed there: it is drained, or in a window.
        drained: bool,
        /// The time until its next window begins.
        opens_in_ms: Option<u64>,
    },
    /// The answers to the beats of several hosts, in their order.
    Beats(Vec<Answer>),
    /// The builds in the queue.
    Candidates {
        /// The builds.
        builds: Vec<Candidate>,
        /// The recent use of their submitters, in milliseconds.
        used_ms: BTreeMap<Submitter, u64>,
        /// The number of builds that may start on the candidate of each open trial.
        vacancies: BTreeMap<TrialNumber, usize>,
    },
    /// The builds that the host got.
    Claimed(Vec<Grant>),
    /// The host has polled again or is drained, so that nothing was claimed.
    Overtaken,
    /// The result is recorded, now or by an earlier repetition; or the lease is given back; or a trial was ended
    /// earlier with this verdict.
    Recorded,
    /// The lease is not the newest one, is not the host's, or the build is finished otherwise; or a schedule
    /// has changed since it was read; or a trial is over or cannot be ended so.
    Stale,
    /// The hosts.
    Hosts(Vec<HostRow>),
    /// The leases that were taken.
    Rescued(Vec<Lease>),
    /// The current revision.
    Published(Revision),
    /// The revision is published with this content already.
    OtherContent(Digest),
    /// The trial that goes on.
    TrialBegun(TrialNumber),
    /// The open trials.
    Trials(Vec<TrialState>),
    /// The window was added, now or before.
    Window(WindowId),
    /// The change is made.
    Done,
    /// The state of a build.
    Build(BuildRow),
    /// The schedules.
    Schedules {
        /// The time of the store.
        now: Timestamp,
        /// The schedules, by name.
        schedules: Vec<ScheduleRow>,
    },
    /// A schedule was added or not.
    ScheduleAdded(Added),
    /// A schedule has run: the build that it submitted now or by an earlier repetition, or the one that is
    /// unfinished.
    Ran(BuildId, RunResult),
    /// The uploads that were taken.
    Uploads(Vec<Upload>),
    /// There is no such host, build or upload.
    NotFound,
}

/// A transaction of which nobody knows if it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;
