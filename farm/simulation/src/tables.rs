//! The store in memory: the specification of every operation, which the database must match.

use std::collections::BTreeMap;

use config::builds::Submitter;
use config::task::{Digest, Outcome};
use config::{BuildId, MachineName, ScheduleName};
use farm_core::archive::Archive;
use farm_core::copies::{CoordinatorName, Copies};
use farm_core::messages::{Grant, Submission};
use farm_core::operation::{Answer, BuildRow, HostRow, Operation};
use farm_core::trials::TrialNumber;
use farm_core::windows::{Window, WindowId, opens_in_ms};
use farm_core::{Epoch, HostId, Lease, Offer, Published, Revision};

mod archives;
mod claims;
mod reads;
mod schedules;
mod sources;
mod trials;
mod windows;

pub use schedules::ScheduleRecord;
pub(crate) use schedules::time;
pub use sources::CoordinatorRecord;

pub use archives::UploadRecord;
pub use trials::{RunRecord, TrialRecord};

/// The milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// The least pause before a build that lost its host is claimed again.
const RETRY_MS: u64 = 1_000;
/// The most doublings of that pause.
const DOUBLINGS_MAX: u64 = 6;

/// The state of a build in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits, and is not claimed before this time of the store.
    Queued(u64),
    /// A host has the lease since this time.
    Leased(u64),
    /// It has a result: of the lease with this epoch and of its host, or of the farm itself.
    Finished(Outcome, Option<(HostId, Epoch)>),
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// The request.
    pub submission: Submission,
    /// The time at which it was submitted.
    pub submitted_at: u64,
    /// The number of claims.
    pub epoch: Epoch,
    /// The time of the last claim.
    pub claimed_at: u64,
    /// The time of the result.
    pub finished_at: u64,
    /// The state.
    pub state: State,
    /// The host of the last claim.
    pub host: Option<HostId>,
    /// The number of hosts and guests that were lost with it.
    pub losses: u64,
    /// True if it was canceled.
    pub canceled: bool,
    /// The time that its submitter was charged for the last claim.
    pub charged_ms: u64,
    /// The revision of the last claim.
    pub revision: Revision,
    /// The trial on whose candidate it was claimed last.
    pub trial: Option<TrialNumber>,
    /// True if it was on trial.
    pub tried: bool,
}

/// A host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRecord {
    /// The number of signs of life.
    pub beat: u64,
    /// The number of drains, cancellations and changes of its key.
    pub orders: u64,
    /// True if no build is placed there.
    pub drained: bool,
    /// The last offer.
    pub offer: Offer,
    /// The windows.
    pub windows: BTreeMap<WindowId, Window>,
}

/// Returns true if a build in the queue may be claimed. A time that is further away than any pause comes
/// from a clock that was set back since, and counts as past.
pub(crate) fn is_due(not_before: u64, now: u64) -> bool {
    not_before <= now || not_before > now + (RETRY_MS << DOUBLINGS_MAX)
}

/// The tables of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// The hosts.
    pub hosts: BTreeMap<HostId, HostRecord>,
    /// The builds.
    pub builds: BTreeMap<BuildId, BuildRecord>,
    /// The revisions that the farm has published.
    pub published: BTreeMap<MachineName, Published>,
    /// The last trial of each machine.
    pub trials: BTreeMap<MachineName, TrialRecord>,
    /// The number of trials that were begun.
    pub trials_begun: u64,
    /// The runs of builds on candidates.
    pub runs: BTreeMap<BuildId, RunRecord>,
    /// The files of builds that wait for the object store.
    pub uploads: BTreeMap<BuildId, UploadRecord>,
    /// The files of builds in the object store; `None` for those that no host had any more.
    pub archives: BTreeMap<BuildId, (Epoch, Option<Archive>)>,
    /// The use of each submitter on each day, in milliseconds.
    pub used_ms: BTreeMap<(Submitter, u64), i64>,
    /// The number of windows that were added.
    pub windows: u64,
    /// The time at which each source was last needed, by the clock of the store.
    pub sources: BTreeMap<Digest, u64>,
    /// The coordinators that have a file of each source, also of those that were forgotten since.
    pub copies: Copies,
    /// The coordinators that keep sources.
    pub coordinators: BTreeMap<CoordinatorName, CoordinatorRecord>,
    /// The schedules.
    pub schedules: BTreeMap<ScheduleName, ScheduleRecord>,
}

impl Tables {
    /// Adds a host.
    pub fn enrol(&mut self, host: HostId) {
        self.hosts.entry(host).or_default();
    }

    /// Executes a transaction at a time of the store's clock.
    pub fn apply(&mut self, now: u64, operation: Operation) -> Answer {
        match operation {
            Operation::Submit(submission) => self.submit(now, submission),
            Operation::Copies { key, digests } => self.copies(now, &key, &digests),
            Operation::Keep(digest, coordinator) => self.keep(now, digest, coordinator),
            Operation::Lose(digest, coordinator) => self.lose(&digest, &coordinator),
            Operation::Expire(age_ms) => self.expire(now, age_ms),
            Operation::Discard(digest, coordinator) => self.discard(&digest, &coordinator),
            Operation::Attend(coordinator) => self.attend(now, &coordinator),
            Operation::Cancel(build) => self.cancel(build),
            Operation::Beat(host, offer) => self.beat(now, host, offer),
            Operation::Beats(beats) => {
                let answers = beats
                    .into_iter()
                    .map(|(host, offer)| self.beat(now, host, offer));
                Answer::Beats(answers.collect())
            }
            Operation::Candidates { machines, most } => self.candidates(now, &machines, most),
            Operation::Claim { host, beat, picks } => self.claim(now, host, beat, &picks),
            Operation::Finish(host, report) => self.finish(now, host, &report),
            Operation::Release {
                host,
                lease,
                is_unused,
                attempts_max,
            } => self.release(now, host, lease, is_unused, attempts_max),
            Operation::Hosts => self.all_hosts(now),
            Operation::Rescue {
                host,
                beat,
                attempts_max,
            } => self.rescue(now, host, beat, attempts_max),
            Operation::Publish(machine, wanted) => self.publish(machine, wanted),
            Operation::BeginTrial(machine, candidate, terms) => {
                self.begin_trial(now, machine, candidate, terms)
            }
            Operation::EndTrial {
                machine,
                number,
                verdict,
                reason,
            } => self.end_trial(now, machine, number, verdict, reason),
            Operation::Trials => Answer::Trials(self.open_trials()),
            Operation::Drain(host, drained) => match self.hosts.get_mut(&host) {
                Some(record) => {
                    record.drained = drained;
                    record.orders += 1;
                    Answer::Done
                }
                None => Answer::NotFound,
            },
            Operation::AddWindow(host, new) => self.add_window(host, new),
            Operation::RemoveWindow(host, id) => self.remove_window(host, id),
            Operation::MoveWindow { window, over, next } => self.move_window(window, over, next),
            Operation::Show(build) => self.show(build),
            Operation::Schedules => self.active_schedules(now),
            Operation::AddSchedule(schedule, replaces) => {
                self.add_schedule(now, *schedule, replaces)
            }
            Operation::RemoveSchedule(name) => self.remove_schedule(&name),
            Operation::PauseSchedule(name, paused) => self.pause_schedule(now, &name, paused),
            Operation::RunSchedule(name, occasion) => self.run_schedule(now, &name, &occasion),
            Operation::TakeUploads { most, taken_ms } => self.take_uploads(now, most, taken_ms),
            Operation::DeferUpload { upload, ms } => self.defer_upload(now, upload, ms),
            Operation::Archive(lease, archive) => self.archive(lease, archive),
        }
    }

    fn submit(&mut self, now: u64, submission: Submission) -> Answer {
        let same = |(_, it): &(&BuildId, &BuildRecord)| it.submission.key == submission.key;
        if let Some((build, _)) = self.builds.iter().find(same) {
            return Answer::Submitted(*build);
        }
        let unknown = self.need(now, &submission.requirements.work.digests());
        if !unknown.is_empty() {
            return Answer::Missing(unknown);
        }
        Answer::Submitted(self.add_build(now, submission))
    }

    /// Adds a build whose key is new.
    fn add_build(&mut self, now: u64, submission: Submission) -> BuildId {
        let last = self.builds.last_key_value().map_or(0, |(id, _)| id.0);
        let build = BuildId(last + 1);
        let record = BuildRecord {
            submission,
            submitted_at: now,
            epoch: Epoch(0),
            claimed_at: 0,
            finished_at: 0,
            state: State::Queued(0),
            host: None,
            losses: 0,
            canceled: false,
            charged_ms: 0,
            revision: Revision(0),
            trial: None,
            tried: false,
        };
        self.builds.insert(build, record);
        build
    }

    fn cancel(&mut self, build: BuildId) -> Answer {
        let Some(record) = self.builds.get_mut(&build) else {
            return Answer::NotFound;
        };
        match &record.state {
            State::Finished(Outcome::Abort, _) => Answer::Canceled,
            State::Finished(outcome, _) => Answer::Finished(*outcome),
            State::Queued(_) => {
                record.canceled = true;
                record.state = State::Finished(Outcome::Abort, None);
                Answer::Canceled
            }
            State::Leased(_) => {
                record.canceled = true;
                if let Some(host) = record.host.and_then(|it| self.hosts.get_mut(&it)) {
                    host.orders += 1;
                }
                Answer::Canceled
            }
        }
    }

    fn publish(&mut self, machine: MachineName, wanted: Published) -> Answer {
        let Some(current) = self.published.get_mut(&machine) else {
            let revision = wanted.revision;
            self.published.insert(machine, wanted);
            return Answer::Published(revision);
        };
        if wanted.revision > current.revision {
            *current = wanted;
        } else if wanted.revision == current.revision {
            match (&current.content, &wanted.content) {
                (Some(content), Some(other)) if content != other => {
                    return Answer::OtherContent(content.clone());
                }
                (None, Some(_)) => *current = wanted,
                _ => {}
            }
        }
        Answer::Published(current.revision)
    }

    fn beat(&mut self, now: u64, host: HostId, offer: Offer) -> Answer {
        let Some(record) = self.hosts.get_mut(&host) else {
            return Answer::NotFound;
        };
        record.beat += 1;
        record.offer = offer;
        let record = &self.hosts[&host];
        Answer::Beaten {
            beat: record.beat,
            leases: self.leases_of(host),
            published: self.published.clone(),
            trials: self.last_trials(),
            drained: record.takes_nothing(now),
            opens_in_ms: opens_in_ms(record.windows.values(), now),
        }
    }

    fn leases_of(&self, host: HostId) -> Vec<Grant> {
        self.builds
            .iter()
            .filter(|(_, it)| it.host == Some(host) && matches!(it.state, State::Leased(_)))
            .map(|(build, it)| grant(*build, it))
            .collect()
    }
}

fn grant(build: BuildId, record: &BuildRecord) -> Grant {
    Grant {
        lease: Lease {
            build,
            epoch: record.epoch,
        },
        requirements: record.submission.requirements.clone(),
        canceled: record.canceled,
        trial: record.trial.map(|_| record.revision),
    }
}

impl BuildRecord {
    /// Returns the row that a client reads.
    fn row(&self) -> BuildRow {
        BuildRow {
            requirements: self.submission.requirements.clone(),
            epoch: self.epoch,
            host: self.host.filter(|_| matches!(self.state, State::Leased(_))),
            outcome: match &self.state {
                State::Finished(outcome, _) => Some(*outcome),
                _ => None,
            },
        }
    }
}

impl HostRecord {
    /// Returns true if no build is placed there.
    pub(crate) fn takes_nothing(&self, now: u64) -> bool {
        self.drained || self.windows.values().any(|it| it.is_open(now))
    }

    fn row(&self, now: u64, host: HostId, leases: usize) -> HostRow {
        HostRow {
            host,
            beat: self.beat,
            leases: leases as u64,
            orders: self.orders,
            drained: self.takes_nothing(now),
            offer: self.offer.clone(),
        }
    }
}
