//! The pages of the host: its state, what it runs by the clock, and its doctor.

use askama::Template;
use config::builds::{Build, Status};
use config::cache::Cache;
use config::controllers::ControllerStatus;
use config::doctor::{Finding, Report, Severity};
use config::projects::Project;
use config::queue::Drained;
use config::schedule::{RunResult, Schedule};
use jiff::Timestamp;

use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, Prose, count, size};

/// The page of the host.
#[derive(Debug, Template)]
#[template(path = "host.html")]
pub struct HostPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The start and the reason of the drain.
    pub drained: Option<Drained>,
    /// The status; `None` before the first round of the scheduler.
    pub status: Option<Status>,
    /// The schedules by name.
    pub schedules: Vec<Schedule>,
    /// The projects of BitBake by name.
    pub projects: Vec<ProjectRow>,
    /// The caches between builds.
    pub caches: Vec<Cache>,
    /// The controllers.
    pub controllers: Vec<ControllerStatus>,
    /// The present.
    pub now: Timestamp,
}

/// A project of BitBake with its builds.
#[derive(Debug)]
pub struct ProjectRow {
    /// The project.
    pub project: Project,
    /// The last builds, newest first.
    pub last: Vec<Build>,
    /// The next run of one of its schedules.
    pub next: Option<Timestamp>,
}

impl ProjectRow {
    fn release(&self) -> String {
        let release = self.project.release.as_ref();
        release.map_or_else(|| "layers of its own".to_owned(), ToString::to_string)
    }

    fn targets(&self) -> String {
        let targets = self.project.targets.iter().map(ToString::to_string);
        targets.collect::<Vec<_>>().join(" ")
    }
}

/// The page of the doctor.
#[derive(Debug, Template)]
#[template(path = "doctor.html")]
pub struct DoctorPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The findings, and what the agent will delete.
    pub report: Report,
}

impl HostPage {
    /// Returns the notices, without the one about the drain, which the page shows itself.
    fn notices<'s>(&self, status: &'s Status) -> impl Iterator<Item = &'s String> {
        let drained = self.drained.as_ref().map(Drained::message);
        let notices = status.notices.iter();
        notices.filter(move |it| {
            drained
                .as_ref()
                .is_none_or(|message| !it.starts_with(message))
        })
    }

    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn size(&self, bytes: u64) -> String {
        size(bytes)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn entries(&self, cache: &Cache) -> String {
        count(
            usize::try_from(cache.entries).unwrap_or(usize::MAX),
            "entry",
        )
        .replace("entrys", "entries")
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn run_class(&self, result: RunResult) -> &'static str {
        match result {
            RunResult::Failed => "bad",
            RunResult::Submitted | RunResult::Coalesced => "good",
        }
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn contact(&self, controller: &ControllerStatus) -> (&'static str, String) {
        let contact = &controller.contact;
        if !contact.failure.is_empty() {
            return ("bad", contact.failure.clone());
        }
        match (contact.not_asked.as_str(), contact.answered) {
            ("", Some(_)) => ("good", "answers".to_owned()),
            ("", None) => ("idle", "not asked yet".to_owned()),
            (reason, _) => ("idle", reason.to_owned()),
        }
    }
}

impl DoctorPage {
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn class(&self, finding: &Finding) -> &'static str {
        match finding.severity {
            Severity::Fault => "bad",
            Severity::Warning => "warn",
            Severity::Note => "idle",
        }
    }

    /// Returns the key of a finding as a field of a form.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn key(&self, finding: &Finding) -> String {
        finding_field(finding)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn name(&self, finding: &Finding) -> &'static str {
        finding.id.kind().name
    }
}

/// Returns the field of a form that names a finding.
pub fn finding_field(finding: &Finding) -> String {
    format!("{} {}", finding.id.kind().name, finding.subject)
}

#[cfg(test)]
mod tests {
    use config::doctor::{Id, Subject};
    use config::tokens::Scope;

    use super::*;

    fn page(scope: Option<Scope>) -> String {
        let mut frame = Frame::plain("Host");
        frame.viewer.scope = scope;
        let page = HostPage {
            frame,
            drained: Some(Drained {
                since: Timestamp::UNIX_EPOCH,
                reason: "new <disks>".to_owned(),
            }),
            status: None,
            schedules: Vec::new(),
            projects: Vec::new(),
            caches: Vec::new(),
            controllers: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
        };
        page.render().unwrap()
    }

    #[test]
    fn only_an_administrator_undrains() {
        let reader = page(Some(Scope::Submit));
        assert!(!reader.contains("/host/undrain") && !reader.contains("new <disks>"));
        assert!(page(Some(Scope::Admin)).contains("/host/undrain"));
    }

    #[test]
    fn a_finding_shows_its_repair_before_it_is_done() {
        let mut frame = Frame::plain("Doctor");
        frame.viewer.scope = Some(Scope::Admin);
        let finding = Finding {
            repair: vec!["remove /x".to_owned()],
            ..Finding::new(
                Id::LostPin,
                Subject::Guest("7".to_owned()),
                "proof",
                "advice",
            )
        };
        let report = Report {
            findings: vec![finding],
            cleaning: Vec::new(),
        };
        let html = DoctorPage { frame, report }.render().unwrap();
        assert!(
            html.contains("remove /x") && html.contains("value=\"lost-pin guest 7\""),
            "{html}"
        );
    }
}
