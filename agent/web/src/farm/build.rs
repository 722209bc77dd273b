//! One build of a farm: its attempts, and the way to its log.

use askama::Template;
use farm_core::view::{BuildState, BuildView, FilesPlace};
use jiff::Timestamp;

use super::mark;
use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, Prose, clock, mebibytes, rough};

/// One build of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_build.html")]
pub struct FarmBuild {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The build.
    pub build: BuildView,
    /// The present.
    pub now: Timestamp,
}

/// A line of the timeline.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    at: Timestamp,
    /// The time since the submission; `None` for the submission itself.
    after: Option<String>,
    class: &'static str,
    text: String,
}

impl FarmBuild {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn mark(&self, build: &BuildView) -> Mark {
        mark(build)
    }

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

    fn took(&self) -> String {
        self.build.seconds(self.now).map(clock).unwrap_or_default()
    }

    fn usual(&self) -> Option<String> {
        Some(rough(self.build.usual_seconds?))
    }

    fn can_cancel(&self) -> bool {
        let is_unfinished = self.build.state != BuildState::Finished && !self.build.canceled;
        is_unfinished && self.frame.viewer.may_submit()
    }

    /// Returns true if there may be files of the build.
    fn has_files(&self) -> bool {
        self.build.host.is_some() && self.build.files != Some(FilesPlace::Lost)
    }

    /// Returns what happened, the oldest first.
    fn events(&self) -> Vec<Event> {
        let build = &self.build;
        let mut events = Vec::new();
        let mut add = |at: Option<Timestamp>, class, text: String| {
            if let Some(at) = at {
                let seconds = at.duration_since(build.submitted).as_secs();
                let after = clock(u64::try_from(seconds).unwrap_or(0));
                events.push(Event {
                    at,
                    after: Some(after),
                    class,
                    text,
                });
            }
        };
        add(
            Some(build.submitted),
            "idle",
            format!("submitted by {}", build.submitter),
        );
        for lost in &build.lost {
            let host = lost.host.as_deref().unwrap_or("a host that is gone");
            let number = lost.epoch.0;
            add(lost.claimed, "idle", format!("attempt {number} on {host}"));
            let text = format!("attempt {number} on {host} lost: {}", lost.reason());
            add(Some(lost.ended), "bad", text);
        }
        if let Some(host) = &build.host
            && build.lost.iter().all(|it| it.epoch != build.epoch)
        {
            let text = format!("attempt {} on {host}", build.epoch.0);
            add(build.claimed, "busy", text);
        }
        add(
            build.finished,
            mark(build).class,
            format!("finished as {}", self.verdict()),
        );
        events.sort_by_key(|it| it.at);
        if let Some(submission) = events.first_mut() {
            submission.after = None;
        }
        events
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let (build, needs) = (&self.build, &self.build.requirements);
        let resources = needs
            .resources
            .iter()
            .map(|(name, it)| format!("{name}={it}"));
        let resources: Vec<_> = resources.collect();
        let all = [
            (
                "project",
                build.subject.project.as_ref().map(ToString::to_string),
            ),
            ("toolchain", Some(needs.toolchain.to_string())),
            ("processors", Some(needs.cpus.to_string())),
            ("memory", Some(mebibytes(needs.memory_mib))),
            ("resources", Some(resources.join(", "))),
            ("priority", Some(build.priority.0.to_string())),
            ("trial", build.trial.map(|it| it.to_string())),
            ("files", build.files.map(|it| it.words().to_owned())),
        ];
        let shown = all
            .into_iter()
            .filter_map(|(term, value)| Some((term, value?)));
        shown.filter(|(_, value)| !value.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{build, frame};
    use super::*;
    use farm_core::Epoch;
    use farm_core::view::LostAttempt;

    #[test]
    fn the_timeline_says_why_attempts_were_lost() {
        let mut view = build(7, BuildState::Finished);
        view.epoch = Epoch(2);
        view.lost = vec![LostAttempt {
            epoch: Epoch(1),
            host: Some("build2".to_owned()),
            claimed: Some("2026-11-30T12:00:10Z".parse().unwrap()),
            ended: "2026-11-30T12:01:30Z".parse().unwrap(),
            is_released: false,
        }];
        let page = FarmBuild {
            frame: frame("Build 7"),
            build: view,
            now: "2026-11-30T13:00:00Z".parse().unwrap(),
        };
        let times: Vec<_> = page.events().into_iter().map(|it| it.after).collect();
        assert_eq!((&times[0], times[2].as_deref()), (&None, Some("1:30")));
        let texts: Vec<_> = page.events().into_iter().map(|it| it.text).collect();
        let expected = [
            "submitted by ann",
            "attempt 1 on build2",
            "attempt 1 on build2 lost: the host gave no sign of life for a whole lease",
            "attempt 2 on build1",
            "finished as success",
        ];
        assert_eq!(texts, expected);
        let html = page.render().unwrap();
        assert!(html.contains("/builds/7/log.txt") && !html.contains("/cancel"));
    }

    #[test]
    fn a_page_says_if_a_log_is_nowhere_any_more() {
        let mut view = build(7, BuildState::Finished);
        view.files = Some(FilesPlace::Lost);
        let page = FarmBuild {
            frame: frame("Build 7"),
            build: view,
            now: "2026-11-30T13:00:00Z".parse().unwrap(),
        };
        let html = page.render().unwrap();
        assert!(html.contains("nowhere any more"), "{html}");
        assert!(!html.contains("/builds/7/log.txt"), "{html}");
    }
}
