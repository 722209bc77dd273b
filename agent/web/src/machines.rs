//! The pages of machines: the list, one machine, and the differences between two revisions.

use askama::Template;
use config::builds::{ImageState, Readiness};
use config::machines::{
    DIFFERENCES_MAX, Difference, DifferenceKind, Machine, MachineImage, MachineRevision,
    MachineSummary, RevisionDiff,
};
use jiff::Timestamp;

use crate::frame::Frame;
use crate::words::{Ago, count, size};

/// The list of machines.
#[derive(Debug, Template)]
#[template(path = "machines.html")]
pub struct Machines {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The machines by name.
    pub machines: Vec<MachineSummary>,
}

/// A machine with its revisions and images.
#[derive(Debug, Template)]
#[template(path = "machine.html")]
pub struct MachinePage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The machine.
    pub machine: Machine,
    /// The scheduler's knowledge of its images.
    pub readiness: Vec<Readiness>,
    /// The present.
    pub now: Timestamp,
}

/// The differences between two revisions.
#[derive(Debug, Template)]
#[template(path = "diff.html")]
pub struct DiffPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The differences.
    pub diff: RevisionDiff,
}

/// Returns the class of the color of a state.
fn state_class(state: &str) -> &'static str {
    match state {
        "current" | "ready" | "in service" => "good",
        "on trial" | "outdated" | "for the trial" => "warn",
        "incomplete" | "writable" => "bad",
        _ => "idle",
    }
}

fn size_or_dash(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), size)
}

impl Machines {
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn class(&self, machine: &MachineSummary) -> &'static str {
        match (machine.in_service, machine.candidate) {
            (true, None) => "good",
            (true, Some(_)) => "warn",
            (false, _) => "bad",
        }
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn revisions(&self, machine: &MachineSummary) -> String {
        count(machine.revision_count, "revision")
    }
}

impl MachinePage {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    /// Returns the line below the title.
    fn summary(&self) -> String {
        let machine = &self.machine.summary;
        let mut parts = vec![
            machine.state.clone(),
            count(machine.revision_count, "revision"),
        ];
        match self.machine.bytes {
            Some(bytes) => parts.push(size(bytes)),
            None => parts.push("space not counted yet".to_owned()),
        }
        if machine.guests > 0 {
            parts.push(count(machine.guests, "guest"));
        }
        parts.push(machine.volume.display().to_string());
        parts.join(" · ")
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn class(&self, state: &str) -> &'static str {
        state_class(state)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn size(&self, bytes: Option<u64>) -> String {
        size_or_dash(bytes)
    }

    /// Returns the revision before one, to compare it with.
    fn before(&self, revision: &MachineRevision) -> Option<config::Revision> {
        let earlier = self.machine.revisions.iter();
        let earlier = earlier.filter(|it| it.revision < revision.revision && it.is_complete());
        earlier.map(|it| it.revision).max()
    }

    /// Returns the revisions, the newest first.
    fn newest_first(&self) -> impl Iterator<Item = &MachineRevision> {
        self.machine.revisions.iter().rev()
    }

    /// Returns the sentence about the last bootstrap and the start of builds of an image.
    fn about(&self, image: &MachineImage) -> String {
        let mut known = self.readiness.iter();
        let Some(known) = known.find(|it| it.toolchain == image.toolchain) else {
            return String::new();
        };
        let parts = [
            &known.bootstrap_error,
            &known.bootstrap_wait,
            &known.message,
        ];
        let message = parts.into_iter().find(|it| !it.is_empty());
        message
            .cloned()
            .unwrap_or_else(|| match known.start_message.as_str() {
                "" => format!("builds start {}", known.start),
                message => format!("builds start {}: {message}", known.start),
            })
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn missing_class(&self, image: &Readiness) -> &'static str {
        match image.image {
            ImageState::Failed => "bad",
            _ => "idle",
        }
    }

    /// Returns the toolchains whose image does not exist yet.
    fn missing_images(&self) -> impl Iterator<Item = &Readiness> {
        let images = &self.machine.images;
        self.readiness
            .iter()
            .filter(|it| !images.iter().any(|image| image.toolchain == it.toolchain))
    }
}

impl DiffPage {
    /// Returns the numbers of differences.
    fn summary(&self) -> String {
        let RevisionDiff {
            added,
            missing,
            changed,
            ..
        } = &self.diff;
        format!("{added} added, {missing} missing, {changed} changed")
    }

    /// Returns true if the page does not show all differences.
    fn is_cut(&self) -> bool {
        self.diff.added + self.diff.missing + self.diff.changed > DIFFERENCES_MAX
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn mark(&self, of: &Difference) -> (&'static str, &'static str, &'static str) {
        match of.change {
            DifferenceKind::Added => ("good", "+", "added"),
            DifferenceKind::Missing => ("bad", "−", "missing"),
            DifferenceKind::Changed => ("warn", "~", "changed"),
        }
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn size(&self, bytes: Option<u64>) -> String {
        bytes.map_or_else(String::new, size)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn predicates(&self, of: &Difference) -> String {
        match of.change {
            DifferenceKind::Changed => of.differences.join(", "),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use config::canary::{Terms, Trial};
    use config::machines::{BuildCounts, Note};
    use config::tokens::Scope;

    use super::*;

    fn revision(number: u32, state: &str) -> MachineRevision {
        MachineRevision {
            revision: config::Revision(number),
            state: state.to_owned(),
            pinned: number == 1,
            created: Some(Timestamp::UNIX_EPOCH),
            uuid: "u".to_owned(),
            bytes: Some(528 << 20),
            bytes_exclusive: Some(24 << 20),
            note: Some(Note {
                text: "<script>alert(1)</script>".to_owned(),
                ..Note::default()
            }),
            trial: None,
            builds: BuildCounts {
                succeeded: 9,
                failed: 1,
                other: 0,
            },
        }
    }

    fn page(scope: Option<Scope>) -> String {
        let mut frame = Frame::plain("demo");
        frame.viewer.scope = scope;
        let trial = MachineRevision {
            trial: Some(Trial {
                terms: Terms::default(),
                since: Timestamp::UNIX_EPOCH,
                revision_uuid: "u".to_owned(),
                end: None,
                farm: None,
            }),
            ..revision(3, "on trial")
        };
        let page = MachinePage {
            frame,
            machine: Machine {
                summary: MachineSummary {
                    name: "demo".parse().unwrap(),
                    volume: "/v".into(),
                    state: "in service".to_owned(),
                    in_service: true,
                    current: Some(config::Revision(2)),
                    candidate: Some(config::Revision(3)),
                    revision_count: 3,
                    toolchains: Vec::new(),
                    guests: 1,
                },
                bytes: None,
                revisions: vec![revision(1, "complete"), revision(2, "current"), trial],
                images: Vec::new(),
            },
            readiness: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
        };
        page.render().unwrap()
    }

    #[test]
    fn only_an_administrator_sees_actions_and_notes_are_texts() {
        let reader = page(Some(Scope::Submit));
        assert!(
            reader.contains("528 MiB") && reader.contains("9 ✓"),
            "{reader}"
        );
        assert!(!reader.contains("action=\"/machines/"));
        assert!(!reader.contains("<script>alert"));
        let admin = page(Some(Scope::Admin));
        for action in ["rollback", "unpin", "pin", "prune", "promote", "reject"] {
            assert!(
                admin.contains(&format!("/machines/demo/{action}\"")),
                "{action}"
            );
        }
        assert!(
            admin.contains("/machines/demo/diff?from=2&#38;to=3")
                || admin.contains("from=2&amp;to=3"),
            "{admin}"
        );
    }
}
