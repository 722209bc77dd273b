//! The schedules and the projects of a farm.

use askama::Template;
use config::task::Outcome;
use farm_core::view::{BuildView, ProjectView, ScheduleView};
use jiff::Timestamp;

use crate::frame::Frame;
use crate::words::Ago;

/// The schedules and the projects of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_schedules.html")]
pub struct FarmSchedules {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The schedules.
    pub schedules: Vec<ScheduleView>,
    /// The projects.
    pub projects: Vec<ProjectView>,
    /// The present.
    pub now: Timestamp,
}

impl FarmSchedules {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn at(&self, at: &Timestamp) -> String {
        at.strftime("%Y-%m-%d %H:%M UTC").to_string()
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn class(&self, build: &BuildView) -> &'static str {
        match build.outcome {
            Some(Outcome::Success | Outcome::Skip) => "good",
            Some(Outcome::Warning) => "warn",
            Some(Outcome::Error | Outcome::Abnormal) => "bad",
            _ => "idle",
        }
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn outcome(&self, build: &BuildView) -> String {
        build.outcome.map(|it| it.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use config::builds::Priority;
    use config::schedule::{Run, RunResult, Timing};
    use config::tokens::Scope;
    use farm_core::schedules::Schedule;
    use farm_core::view::BuildState;
    use jiff::SignedDuration;

    use super::super::examples::{build, frame};
    use super::*;

    fn page() -> FarmSchedules {
        let build = build(7, BuildState::Finished);
        let schedule = Schedule {
            name: "nightly".parse().unwrap(),
            timing: Timing::Every(SignedDuration::from_hours(6)),
            coalesce: true,
            submitter: build.submitter.clone(),
            priority: Priority(0),
            requirements: build.requirements.clone(),
            subject: build.subject.clone(),
        };
        let last = Run {
            due: None,
            at: Timestamp::UNIX_EPOCH,
            result: RunResult::Submitted,
            build: Some(build.build),
            message: String::new(),
        };
        FarmSchedules {
            frame: frame("Schedules"),
            schedules: vec![ScheduleView {
                schedule,
                is_paused: false,
                added: Timestamp::UNIX_EPOCH,
                since: Timestamp::UNIX_EPOCH,
                last: Some(last),
                next: Some(Timestamp::UNIX_EPOCH),
            }],
            projects: vec![ProjectView {
                name: "camera".parse().unwrap(),
                unfinished: 2,
                last: Some(build),
                last_good: None,
                schedules: vec!["nightly".parse().unwrap()],
            }],
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_submitters_run_and_pause_schedules() {
        let mut page = page();
        let html = page.render().unwrap();
        assert!(
            html.contains("every 6h") && html.contains("href=\"/builds/7\""),
            "{html}"
        );
        assert!(!html.contains("/schedules/nightly/"), "{html}");
        page.frame.viewer.scope = Some(Scope::Submit);
        let html = page.render().unwrap();
        assert!(
            html.contains("/schedules/nightly/run") && html.contains("/schedules/nightly/pause")
        );
        page.schedules[0].is_paused = true;
        page.schedules[0].next = None;
        let html = page.render().unwrap();
        assert!(html.contains("/schedules/nightly/resume") && html.contains("pill warn"));
    }

    #[test]
    fn projects_have_their_last_build_and_their_schedules() {
        let html = page().render().unwrap();
        assert!(
            html.contains("2 unfinished") && html.contains("scheduled by nightly"),
            "{html}"
        );
        assert!(html.contains("/builds?project=camera"), "{html}");
    }
}
