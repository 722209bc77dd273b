//! Events of state changes. The newest are kept, with numbers, so that a subscriber can resume
//! after a disconnection. Only the latest event per subject is kept, so that changes of wait
//! reasons in a long queue cannot evict other events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use config::builds::{Build, Progress, State, Status};
use config::canary::TrialVerdict;
use config::schedule::Schedule;
use config::{BuildId, MachineName, Revision, ScheduleName, ToolchainName};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The number of events that are kept for resuming subscribers.
const KEPT_MAX: usize = 4096;

/// An event of a state change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number since the start of this agent.
    pub number: u64,
    /// Its kind.
    pub kind: Kind,
    /// The build, if it is about one.
    pub build: Option<BuildId>,
    /// The new state of its subject, in JSON.
    pub data: String,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A build was submitted or changed.
    Build,
    /// A build reported its progress.
    Progress,
    /// The record of a build was deleted.
    Deleted,
    /// A schedule was added, or ran.
    Schedule,
    /// A schedule was removed.
    Unscheduled,
    /// The status of a machine changed.
    Machine,
    /// The trial of a revision began, changed or ended.
    Trial,
    /// The notices of the host changed.
    Notices,
}

impl Kind {
    /// Returns its name, as subscribers see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Progress => "progress",
            Self::Deleted => "deleted",
            Self::Schedule => "schedule",
            Self::Unscheduled => "unscheduled",
            Self::Machine => "machine",
            Self::Trial => "trial",
            Self::Notices => "notices",
        }
    }
}

/// A reason why a subscriber cannot resume after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The events after it are no longer kept.
    #[error("too much has changed since that event")]
    Expired,
    /// An earlier agent published it.
    #[error("the agent was restarted since that event")]
    Restarted,
    /// There was no such event.
    #[error("there was no such event")]
    Unknown,
}

/// The subject of an event. A later event of the same subject replaces it. The states of a
/// build are different subjects, but its wait reasons are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Build(BuildId, State, u32),
    Progress(BuildId),
    Deleted(BuildId),
    Schedule(ScheduleName),
    Unscheduled(ScheduleName),
    Machine(MachineName, ToolchainName),
    Trial(MachineName),
    Notices,
}

impl Subject {
    fn kind(&self) -> Kind {
        match self {
            Self::Build(..) => Kind::Build,
            Self::Progress(_) => Kind::Progress,
            Self::Deleted(_) => Kind::Deleted,
            Self::Schedule(_) => Kind::Schedule,
            Self::Unscheduled(_) => Kind::Unscheduled,
            Self::Machine(..) => Kind::Machine,
            Self::Trial(_) => Kind::Trial,
            Self::Notices => Kind::Notices,
        }
    }

    fn build(&self) -> Option<BuildId> {
        match self {
            Self::Build(id, ..) | Self::Progress(id) | Self::Deleted(id) => Some(*id),
            Self::Schedule(_)
            | Self::Unscheduled(_)
            | Self::Machine(..)
            | Self::Trial(_)
            | Self::Notices => None,
        }
    }
}

/// The events of one agent.
#[derive(Debug)]
pub struct Events {
    /// The start of this agent, which distinguishes its numbers from those of another.
    epoch: i64,
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
    finished: AtomicU64,
}

/// The events that are kept.
#[derive(Debug, Default)]
struct Kept {
    events: BTreeMap<u64, (Subject, Event)>,
    /// The event of each subject.
    by_subject: HashMap<Subject, u64>,
    /// The newest event that was evicted; replaced events do not count.
    evicted: u64,
}

impl Kept {
    fn add(&mut self, subject: Subject, event: Event) {
        let number = event.number;
        if let Some(earlier) = self.by_subject.insert(subject.clone(), number) {
            self.events.remove(&earlier);
        }
        self.events.insert(number, (subject, event));
        if self.events.len() > KEPT_MAX
            && let Some((number, (subject, _))) = self.events.pop_first()
        {
            self.by_subject.remove(&subject);
            self.evicted = number;
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            epoch: Timestamp::now().as_microsecond(),
            kept: Mutex::default(),
            last: watch::Sender::new(0),
            finished: AtomicU64::new(0),
        }
    }
}

impl Events {
    /// Publishes a new or changed build.
    pub fn build(&self, build: &Build) {
        if build.outcome.is_some() {
            self.finished.fetch_add(1, Ordering::Release);
        }
        let data = json!({
            "id": build.id,
            "target": build.target,
            "submitter": build.submitter,
            "machine": build.machine,
            "toolchain": build.toolchain,
            "revision": build.revision,
            "state": build.state,
            "outcome": build.outcome,
            "message": build.message,
            "attempts": build.attempts,
            "packages": build.packages,
            "held": build.interactive.held,
        });
        let subject = Subject::Build(build.id, build.state, build.attempts);
        self.publish(subject, &data);
    }

    /// Publishes the progress of a build.
    pub fn progress(&self, id: BuildId, progress: Progress) {
        let data = json!({ "id": id, "progress": progress });
        self.publish(Subject::Progress(id), &data);
    }

    /// Publishes the deletion of a build.
    pub fn deleted(&self, id: BuildId) {
        self.finished.fetch_add(1, Ordering::Release);
        self.publish(Subject::Deleted(id), &json!({ "id": id }));
    }

    /// Publishes a new schedule or its run.
    pub fn schedule(&self, schedule: &Schedule) {
        let subject = Subject::Schedule(schedule.name.clone());
        self.publish(subject, &json!(schedule));
    }

    /// Publishes the deletion of a schedule.
    pub fn unscheduled(&self, name: &ScheduleName) {
        let subject = Subject::Unscheduled(name.clone());
        self.publish(subject, &json!({ "name": name }));
    }

    /// Publishes the differences between two statuses.
    pub fn status(&self, before: Option<&Status>, now: &Status) {
        let known = |it| before.is_some_and(|before| before.machines.contains(it));
        for machine in now.machines.iter().filter(|it| !known(it)) {
            let subject = Subject::Machine(machine.machine.clone(), machine.toolchain.clone());
            self.publish(subject, &json!(machine));
        }
        let known = |it| before.is_some_and(|before| before.trials.contains(it));
        for trial in now.trials.iter().filter(|it| !known(it)) {
            self.publish(Subject::Trial(trial.machine.clone()), &json!(trial));
        }
        if before.is_none_or(|before| before.notices != now.notices) {
            self.publish(Subject::Notices, &json!(now.notices));
        }
    }

    /// Publishes the end of the trial of a revision.
    pub fn trial_ended(
        &self,
        machine: &MachineName,
        revision: Revision,
        verdict: TrialVerdict,
        reason: &str,
    ) {
        let end = json!({
            "machine": machine, "revision": revision, "verdict": verdict, "reason": reason,
        });
        self.publish(Subject::Trial(machine.clone()), &end);
    }

    /// Returns a number that grows whenever a build gets an outcome or is deleted.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// Returns the ID of the event with a number.
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// Returns the number of the newest event.
    pub fn newest(&self) -> u64 {
        *self.last.borrow()
    }

    /// Returns the number of the event with an ID, if all later events are still kept.
    ///
    /// # Errors
    /// The subscriber cannot resume after the event.
    pub fn resume(&self, id: &str) -> Result<u64, ResumeError> {
        let (epoch, number) = id.split_once('-').ok_or(ResumeError::Unknown)?;
        let (Ok(epoch), Ok(number)) = (epoch.parse::<i64>(), number.parse()) else {
            return Err(ResumeError::Unknown);
        };
        if epoch != self.epoch {
            return Err(ResumeError::Restarted);
        }
        let kept = self.kept();
        if number > self.newest() {
            return Err(ResumeError::Unknown);
        }
        if number < kept.evicted {
            return Err(ResumeError::Expired);
        }
        Ok(number)
    }

    /// Returns the events after a number, in order; `None` if one of them was evicted.
    pub fn after(&self, number: u64) -> Option<Vec<Event>> {
        let kept = self.kept();
        let new = kept.events.range(number.saturating_add(1)..);
        (number >= kept.evicted).then(|| new.map(|(_, (_, event))| event.clone()).collect())
    }

    /// Returns the builds with events after a number; `None` if one of them was evicted.
    pub fn builds_after(&self, number: u64) -> Option<BTreeSet<BuildId>> {
        let events = self.after(number)?;
        Some(events.iter().filter_map(|event| event.build).collect())
    }

    /// Returns a receiver of the number of the newest event.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn publish(&self, subject: Subject, data: &Value) {
        let mut kept = self.kept();
        let number = self.newest() + 1;
        let event = Event {
            number,
            kind: subject.kind(),
            build: subject.build(),
            data: data.to_string(),
        };
        kept.add(subject, event);
        // Under the lock, so that numbers are published in order.
        self.last.send_replace(number);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }
}

#[cfg(test)]
mod tests {
    use config::builds::TrialStatus;

    use super::*;

    fn numbers(after: Option<Vec<Event>>) -> Option<Vec<u64>> {
        after.map(|events| events.iter().map(|event| event.number).collect())
    }

    #[test]
    fn a_subscriber_resumes_until_its_event_has_expired() {
        let events = Events::default();
        assert_eq!(events.resume(&events.id(0)), Ok(0));
        for id in 1..=3 {
            events.deleted(BuildId(id));
        }
        let resumed = events.resume(&events.id(1)).unwrap();
        assert_eq!(numbers(events.after(resumed)), Some(vec![2, 3]));
        assert_eq!(events.resume("7-1"), Err(ResumeError::Restarted));
        for strange in [events.id(4).as_str(), "", "7", "x-1", "7-x", "7--1"] {
            assert_eq!(
                events.resume(strange),
                Err(ResumeError::Unknown),
                "{strange}"
            );
        }
        for id in 0..KEPT_MAX as u64 {
            events.deleted(BuildId(id + 10));
        }
        assert_eq!(events.resume(&events.id(2)), Err(ResumeError::Expired));
        assert_eq!(events.after(2), None);
        assert_eq!(events.resume(&events.id(3)), Ok(3));
        assert_eq!(events.after(3).unwrap().len(), KEPT_MAX);
        assert_eq!(events.after(u64::MAX), Some(Vec::new()));
    }

    #[test]
    fn changes_of_wait_reasons_evict_no_other_event() {
        let events = Events::default();
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let mut build = Build::new(
            BuildId(0),
            request,
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            config::builds::Submitter::root(),
            Timestamp::UNIX_EPOCH,
        );
        let mut publish = |id, state, message: String| {
            build.id = BuildId(id);
            build.state = state;
            build.message = message;
            events.build(&build);
        };
        publish(7777, State::Starting, String::new());
        publish(7777, State::Running, String::new());
        let queue = 1000;
        for round in 0..10 {
            for id in 0..queue {
                publish(id, State::Queued, format!("for round {round}"));
            }
        }
        let told = events.after(0).unwrap();
        assert_eq!(told.len() as u64, queue + 2, "every build once");
        assert_eq!(numbers(Some(told[..2].to_vec())), Some(vec![1, 2]));
        assert!(
            told[2..]
                .iter()
                .all(|event| event.data.contains("for round 9"))
        );
        assert!(told.is_sorted_by_key(|event| event.number));
        publish(3, State::Starting, String::new());
        let told = events.after(0).unwrap();
        assert_eq!(
            told.len() as u64,
            queue + 3,
            "what is new is kept beside it"
        );
    }

    #[test]
    fn only_differences_between_statuses_are_published() {
        let events = Events::default();
        let mut status = Status {
            name: "host".into(),
            version: "1".into(),
            machines: Vec::new(),
            queued: 0,
            guests: 0,
            notices: Vec::new(),
            trials: Vec::new(),
            volumes: Vec::new(),
            resources: std::collections::BTreeMap::new(),
            pressure: Vec::new(),
        };
        let told = |events: &Events| {
            let told = events.after(0).unwrap();
            let data = told.into_iter().map(|event| (event.number, event.data));
            data.collect::<Vec<_>>()
        };
        events.status(None, &status);
        events.status(Some(&status), &status);
        assert_eq!(told(&events), [(1, "[]".to_owned())]);
        let before = status.clone();
        status.notices.push("no toolchain".into());
        events.status(Some(&before), &status);
        assert_eq!(told(&events), [(2, r#"["no toolchain"]"#.to_owned())]);
        let before = status.clone();
        let machine: MachineName = "linux".parse().unwrap();
        status.trials.push(TrialStatus {
            machine: machine.clone(),
            revision: Revision(2),
            terms: "3 of 10".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            succeeded: 1,
            needed: 3,
            strikes: 0,
            running: 1,
            repeating: 0,
            farm: None,
        });
        events.status(Some(&before), &status);
        events.status(Some(&status), &status);
        let data = told(&events).pop().unwrap();
        assert!(
            data.0 == 3 && data.1.contains(r#""succeeded":1"#),
            "{data:?}"
        );
        // The end replaces the progress.
        events.trial_ended(&machine, Revision(2), TrialVerdict::RolledBack, "2 strikes");
        let data = told(&events).pop().unwrap();
        let expected =
            r#"{"machine":"linux","reason":"2 strikes","revision":2,"verdict":"rolled_back"}"#;
        assert_eq!(data, (4, expected.to_owned()));
    }
}
