//! What changes, for everybody who wants to know: the newest events, each with a
//! number, so that a listener who was away can go on. Of two that say the same of the
//! same thing only the later one is kept, so that a long queue, in which every build
//! waits for something else whenever one starts, drives nothing else out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::builds::{Build, Progress, State, Status};
use config::schedule::Schedule;
use config::{BuildId, MachineName, ScheduleName, ToolchainName};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How many events are kept for those who were away.
const KEPT_MAX: usize = 4096;

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

/// Why a listener cannot go on after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Too much has happened since.
    #[error("too much has changed since that event")]
    Forgotten,
    /// It is of another life of the agent.
    #[error("the agent was restarted since that event")]
    Restarted,
    /// It is none of ours.
    #[error("there was no such event")]
    Unknown,
}

/// What an event speaks of: a later one of the same takes its place. What a build
/// waits for is the same while it waits; that it starts is something else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum About {
    Build(BuildId, State, u32),
    Progress(BuildId),
    Deleted(BuildId),
    Schedule(ScheduleName),
    Unscheduled(ScheduleName),
    Machine(MachineName, ToolchainName),
    Notices,
}

impl About {
    fn kind(&self) -> Kind {
        match self {
            Self::Build(..) => Kind::Build,
            Self::Progress(_) => Kind::Progress,
            Self::Deleted(_) => Kind::Deleted,
            Self::Schedule(_) => Kind::Schedule,
            Self::Unscheduled(_) => Kind::Unscheduled,
            Self::Machine(..) => Kind::Machine,
            Self::Notices => Kind::Notices,
        }
    }

    fn build(&self) -> Option<BuildId> {
        match self {
            Self::Build(id, ..) | Self::Progress(id) | Self::Deleted(id) => Some(*id),
            Self::Schedule(_) | Self::Unscheduled(_) | Self::Machine(..) | Self::Notices => None,
        }
    }
}

/// The newest events.
#[derive(Debug)]
pub struct Events {
    /// What tells the numbers of this life of the agent from those of another.
    life: i64,
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
    finished: AtomicU64,
}

/// The events that are known.
#[derive(Debug, Default)]
struct Kept {
    events: BTreeMap<u64, (About, Event)>,
    /// The event about each thing.
    about: HashMap<About, u64>,
    /// The newest event that is known no more, and in whose place no other one is.
    forgotten: u64,
}

impl Kept {
    fn add(&mut self, about: About, event: Event) {
        let number = event.number;
        if let Some(earlier) = self.about.insert(about.clone(), number) {
            self.events.remove(&earlier);
        }
        self.events.insert(number, (about, event));
        if self.events.len() > KEPT_MAX
            && let Some((number, (about, _))) = self.events.pop_first()
        {
            self.about.remove(&about);
            self.forgotten = number;
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            life: Timestamp::now().as_microsecond(),
            kept: Mutex::default(),
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
        let about = About::Build(build.id, build.state, build.attempts);
        self.tell(about, &data);
    }

    /// Tells how far a build has come by its own words.
    pub fn progress(&self, id: BuildId, progress: Progress) {
        let data = json!({ "id": id, "progress": progress });
        self.tell(About::Progress(id), &data);
    }

    /// Tells that the record of a build was deleted.
    pub fn deleted(&self, id: BuildId) {
        self.finished.fetch_add(1, Ordering::Release);
        self.tell(About::Deleted(id), &json!({ "id": id }));
    }

    /// Tells that a schedule was added, or has run.
    pub fn schedule(&self, schedule: &Schedule) {
        let about = About::Schedule(schedule.name.clone());
        self.tell(about, &json!(schedule));
    }

    /// Tells that a schedule was removed.
    pub fn unscheduled(&self, name: &ScheduleName) {
        let about = About::Unscheduled(name.clone());
        self.tell(about, &json!({ "name": name }));
    }

    /// Tells what is different in `now` from what was said `before`.
    pub fn status(&self, before: Option<&Status>, now: &Status) {
        let known = |it| before.is_some_and(|before| before.machines.contains(it));
        for machine in now.machines.iter().filter(|it| !known(it)) {
            let about = About::Machine(machine.machine.clone(), machine.toolchain.clone());
            self.tell(about, &json!(machine));
        }
        if before.is_none_or(|before| before.notices != now.notices) {
            self.tell(About::Notices, &json!(now.notices));
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

    /// The number in an id, when what came after it is still known.
    ///
    /// # Errors
    /// Why it is not.
    pub fn resume(&self, id: &str) -> Result<u64, Lost> {
        let (life, number) = id.split_once('-').ok_or(Lost::Unknown)?;
        let (Ok(life), Ok(number)) = (life.parse::<i64>(), number.parse()) else {
            return Err(Lost::Unknown);
        };
        if life != self.life {
            return Err(Lost::Restarted);
        }
        let kept = self.kept();
        if number > self.newest() {
            return Err(Lost::Unknown);
        }
        if number < kept.forgotten {
            return Err(Lost::Forgotten);
        }
        Ok(number)
    }

    /// What is known after the event with a number, the earliest first; `None` when
    /// something is forgotten.
    pub fn after(&self, number: u64) -> Option<Vec<Event>> {
        let kept = self.kept();
        let new = kept.events.range(number.saturating_add(1)..);
        (number >= kept.forgotten).then(|| new.map(|(_, (_, event))| event.clone()).collect())
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

    fn tell(&self, about: About, data: &Value) {
        let mut kept = self.kept();
        let number = self.newest() + 1;
        let event = Event {
            number,
            kind: about.kind(),
            build: about.build(),
            data: data.to_string(),
        };
        kept.add(about, event);
        // Under the lock, so that numbers are told in their order.
        self.last.send_replace(number);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(after: Option<Vec<Event>>) -> Option<Vec<u64>> {
        after.map(|events| events.iter().map(|event| event.number).collect())
    }

    #[test]
    fn who_was_away_goes_on_unless_it_was_too_long() {
        let events = Events::default();
        assert_eq!(events.resume(&events.id(0)), Ok(0));
        for id in 1..=3 {
            events.deleted(BuildId(id));
        }
        let resumed = events.resume(&events.id(1)).unwrap();
        assert_eq!(numbers(events.after(resumed)), Some(vec![2, 3]));
        assert_eq!(events.resume("7-1"), Err(Lost::Restarted));
        for strange in [events.id(4).as_str(), "", "7", "x-1", "7-x", "7--1"] {
            assert_eq!(events.resume(strange), Err(Lost::Unknown), "{strange}");
        }
        for id in 0..KEPT_MAX as u64 {
            events.deleted(BuildId(id + 10));
        }
        assert_eq!(events.resume(&events.id(2)), Err(Lost::Forgotten));
        assert_eq!(events.after(2), None);
        assert_eq!(events.resume(&events.id(3)), Ok(3));
        assert_eq!(events.after(3).unwrap().len(), KEPT_MAX);
        assert_eq!(events.after(u64::MAX), Some(Vec::new()));
    }

    #[test]
    fn a_long_queue_whose_words_change_drives_nothing_out() {
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
        let mut tell = |id, state, message: String| {
            build.id = BuildId(id);
            build.state = state;
            build.message = message;
            events.build(&build);
        };
        tell(7777, State::Starting, String::new());
        tell(7777, State::Running, String::new());
        let queue = 1000;
        for round in 0..10 {
            for id in 0..queue {
                tell(id, State::Queued, format!("for round {round}"));
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
        tell(3, State::Starting, String::new());
        let told = events.after(0).unwrap();
        assert_eq!(
            told.len() as u64,
            queue + 3,
            "what is new is kept beside it"
        );
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
    }
}
