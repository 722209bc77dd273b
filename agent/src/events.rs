//! What changes, for everybody who wants to know: the newest events in a ring of
//! bounded size, each with a number, so that a listener who was away can go on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::builds::{Build, Progress, Status};
use config::schedule::Schedule;
use config::{BuildId, ScheduleName};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How many events are kept for those who were away.
const KEPT_MAX: usize = 1024;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the life of this agent.
    pub number: u64,
    /// What kind of thing has changed.
    pub kind: Kind,
    /// The build, if it is one.
    pub build: Option<BuildId>,
    /// The thing as it is now, in JSON.
    pub data: String,
}

/// What kind of thing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A build was submitted or has changed.
    Build,
    /// A build has told how far it has come.
    Progress,
    /// The record of a build was deleted.
    Deleted,
    /// A schedule was added, or has run.
    Schedule,
    /// A schedule was removed.
    Unscheduled,
    /// What a machine can do has changed.
    Machine,
    /// What keeps the host from its work has changed.
    Notices,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Progress => "progress",
            Self::Deleted => "deleted",
            Self::Schedule => "schedule",
            Self::Unscheduled => "unscheduled",
            Self::Machine => "machine",
            Self::Notices => "notices",
        }
    }
}

/// The newest events.
#[derive(Debug)]
pub struct Events {
    /// What tells the numbers of this life of the agent from those of another.
    life: i64,
    ring: Mutex<VecDeque<Event>>,
    last: watch::Sender<u64>,
    finished: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            life: Timestamp::now().as_microsecond(),
            ring: Mutex::default(),
            last: watch::Sender::new(0),
            finished: AtomicU64::new(0),
        }
    }
}

impl Events {
    /// Tells that a build was submitted or has changed.
    pub fn build(&self, build: &Build) {
        if build.outcome.is_some() {
            self.finished.fetch_add(1, Ordering::Release);
        }
        let data = json!({
            "id": build.id,
            "machine": build.machine,
            "toolchain": build.toolchain,
            "state": build.state,
            "outcome": build.outcome,
            "message": build.message,
            "attempts": build.attempts,
        });
        self.tell(Kind::Build, Some(build.id), &data);
    }

    /// Tells how far a build has come by its own words.
    pub fn progress(&self, id: BuildId, progress: Progress) {
        let data = json!({ "id": id, "progress": progress });
        self.tell(Kind::Progress, Some(id), &data);
    }

    /// Tells that the record of a build was deleted.
    pub fn deleted(&self, id: BuildId) {
        self.finished.fetch_add(1, Ordering::Release);
        self.tell(Kind::Deleted, Some(id), &json!({ "id": id }));
    }

    /// Tells that a schedule was added, or has run.
    pub fn schedule(&self, schedule: &Schedule) {
        self.tell(Kind::Schedule, None, &json!(schedule));
    }

    /// Tells that a schedule was removed.
    pub fn unscheduled(&self, name: &ScheduleName) {
        self.tell(Kind::Unscheduled, None, &json!({ "name": name }));
    }

    /// Tells what is different in `now` from what was said `before`.
    pub fn status(&self, before: Option<&Status>, now: &Status) {
        let known = |it| before.is_some_and(|before| before.machines.contains(it));
        for machine in now.machines.iter().filter(|it| !known(it)) {
            self.tell(Kind::Machine, None, &json!(machine));
        }
        if before.is_none_or(|before| before.notices != now.notices) {
            self.tell(Kind::Notices, None, &json!(now.notices));
        }
    }

    /// A number that grows whenever a build gets an outcome or is deleted.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// The id of the event with a number.
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.life)
    }

    /// The number of the newest event.
    pub fn newest(&self) -> u64 {
        *self.last.borrow()
    }

    /// The number in an id, if it is of this life of the agent and what came after it
    /// is still known.
    pub fn resume(&self, id: &str) -> Option<u64> {
        let (life, number) = id.split_once('-')?;
        let number: u64 = number.parse().ok()?;
        let ring = self.ring();
        let oldest = ring.front().map_or(1, |event| event.number);
        let known = number + 1 >= oldest && number <= self.newest();
        (life.parse() == Ok(self.life) && known).then_some(number)
    }

    /// The events after the one with a number; `None` when some of them are forgotten.
    pub fn after(&self, number: u64) -> Option<Vec<Event>> {
        let ring = self.ring();
        let oldest = ring.front().map_or(1, |event| event.number);
        let new = ring.iter().filter(|event| event.number > number);
        (number + 1 >= oldest).then(|| new.cloned().collect())
    }

    /// The builds that have changed after the event with a number; `None` when some of
    /// them are forgotten.
    pub fn builds_after(&self, number: u64) -> Option<BTreeSet<BuildId>> {
        let events = self.after(number)?;
        Some(events.iter().filter_map(|event| event.build).collect())
    }

    /// Whoever waits for more waits here: the number of the newest event.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn tell(&self, kind: Kind, build: Option<BuildId>, data: &Value) {
        let mut ring = self.ring();
        let number = self.newest() + 1;
        if ring.len() == KEPT_MAX {
            ring.pop_front();
        }
        ring.push_back(Event {
            number,
            kind,
            build,
            data: data.to_string(),
        });
        // Under the lock, so that numbers are told in their order.
        self.last.send_replace(number);
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_goes_on_unless_it_was_too_long() {
        let events = Events::default();
        assert_eq!(events.resume(&events.id(0)), Some(0));
        for id in 1..=3 {
            events.deleted(BuildId(id));
        }
        let resumed = events.resume(&events.id(1)).unwrap();
        let numbers =
            |after: Vec<Event>| after.iter().map(|event| event.number).collect::<Vec<_>>();
        assert_eq!(events.after(resumed).map(numbers), Some(vec![2, 3]));
        assert_eq!(events.resume("7-1"), None, "another life");
        assert_eq!(events.resume(&events.id(4)), None, "not yet");
        for id in 0..KEPT_MAX as u64 {
            events.deleted(BuildId(id));
        }
        assert_eq!(events.resume(&events.id(2)), None, "forgotten");
        assert_eq!(events.after(2), None);
        assert_eq!(events.resume(&events.id(3)), Some(3));
    }

    #[test]
    fn only_what_is_different_in_a_status_is_told() {
        let events = Events::default();
        let mut status = Status {
            name: "host".into(),
            version: "1".into(),
            machines: Vec::new(),
            queued: 0,
            guests: 0,
            notices: Vec::new(),
        };
        events.status(None, &status);
        events.status(Some(&status), &status);
        let before = status.clone();
        status.notices.push("no toolchain".into());
        events.status(Some(&before), &status);
        let told = events.after(0).unwrap();
        let data: Vec<_> = told.iter().map(|event| event.data.as_str()).collect();
        assert_eq!(data, ["[]", r#"["no toolchain"]"#]);
    }
}
