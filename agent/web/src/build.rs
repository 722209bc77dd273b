//! One build: its verdict, phases, history, log, files and details.

mod details;
mod timeline;

use askama::Template;
use config::BuildId;
use config::builds::{Build, HoldKind, State};
use config::queue::WaitingBuild;
use jiff::Timestamp;

use crate::frame::Frame;
use crate::log_view::LogView;
use crate::marks::Mark;
use crate::overview::RunningBuild;
use crate::words::{Ago, duration, size};
use timeline::Bar;

/// The number of characters of a hash that are shown.
const HASH_SHOWN: usize = 12;

/// The page of a build.
#[derive(Debug, Template)]
#[template(path = "build.html")]
pub struct BuildPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The record.
    pub build: Build,
    /// The latest builds of its package on its machine, newest first.
    pub history: Vec<Build>,
    /// Its place in the queue, if it waits.
    pub waiting: Option<WaitingBuild>,
    /// Its guest, if it has one.
    pub running: Option<RunningBuild>,
    /// Its log.
    pub log: LogView,
    /// True if it has provenance.
    pub has_provenance: bool,
    /// True if its provenance is signed.
    pub has_signed_provenance: bool,
    /// The present.
    pub now: Timestamp,
}

impl BuildPage {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    /// Returns the word for the state of the build: its outcome if it has one.
    fn verdict(&self) -> String {
        match self.build.outcome {
            Some(outcome) => outcome.to_string(),
            None => self.build.state.to_string(),
        }
    }

    /// Returns the class of the notice with the message.
    fn notice_class(&self) -> &'static str {
        match self.build.outcome {
            Some(outcome) if !outcome.is_good() => "notice bad",
            Some(_) | None => "notice",
        }
    }

    /// Returns the message of the build, as a sentence about a waiting one.
    fn message(&self) -> String {
        let Build { state, message, .. } = &self.build;
        match (state, message.as_str()) {
            (State::Queued, "") => "It waits for the next round of the scheduler.".to_owned(),
            (State::Queued | State::Storing, reason) if !reason.is_empty() => {
                format!("It waits {reason}.")
            }
            (_, message) => message.to_owned(),
        }
    }

    /// Returns the words for the start of a waiting build.
    fn start(&self) -> String {
        let forecast = self.waiting.as_ref().and_then(|it| it.forecast.as_ref());
        let Some(forecast) = forecast else {
            return String::new();
        };
        let place = match forecast.place {
            1 => "It is next in the queue".to_owned(),
            place => format!("It is number {place} in the queue"),
        };
        format!("{place}; {}.", crate::overview::start(forecast, self.now))
    }

    fn took(&self) -> String {
        self.build.seconds().map(duration).unwrap_or_default()
    }

    fn bars(&self) -> Vec<Bar> {
        timeline::bars(&self.build.phases, self.now)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        details::of(&self.build)
    }

    /// Returns the earlier builds from the oldest to the newest.
    fn past(&self) -> impl Iterator<Item = &Build> {
        self.history.iter().rev()
    }

    fn is_this(&self, id: BuildId) -> bool {
        id == self.build.id
    }

    fn can_cancel(&self) -> bool {
        let ends = matches!(
            self.build.state,
            State::Queued | State::Starting | State::Running
        );
        ends && self.frame.viewer.may_submit()
    }

    fn can_rebuild(&self) -> bool {
        self.build.state == State::Finished && self.frame.viewer.may_submit()
    }

    /// Returns true if the build has a guest whose console can be watched.
    fn has_console(&self) -> bool {
        let held = self.build.interactive.held.map(|held| held.kind);
        let runs = matches!(self.build.state, State::Starting | State::Running);
        runs || held == Some(HoldKind::Guest)
    }

    fn can_resume(&self) -> bool {
        let held = self.build.interactive.held.map(|held| held.kind);
        held == Some(HoldKind::Breakpoint) && self.frame.viewer.may_administer()
    }

    fn can_release(&self) -> bool {
        self.build.interactive.held.is_some() && self.frame.viewer.may_administer()
    }

    /// Returns the commands that help with the build, each with its purpose.
    fn commands(&self) -> Vec<(String, &'static str)> {
        let id = self.build.id;
        let mut commands = Vec::new();
        if self.build.interactive.held.is_some() {
            commands.push((
                format!("buildhost attach {id}"),
                "opens a shell in a copy of its guest",
            ));
        }
        if self.build.outcome.is_some_and(|it| !it.is_good()) {
            commands.push((
                format!("buildhost bisect {id}"),
                "finds the first revision on which it fails",
            ));
        }
        if self.build.state == State::Running {
            commands.push((
                format!("buildhost fork {id}"),
                "continues as copies of its guest",
            ));
        }
        commands
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn size(&self, bytes: u64) -> String {
        size(bytes)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn short(&self, hash: &str) -> String {
        hash.chars().take(HASH_SHOWN).collect()
    }
}
