//! The examination of a volume: findings, their evidence, and their repair.

mod mount;

use std::collections::BTreeMap;

use config::canary::Decider;
use config::doctor::{Cleaning, Finding, Id, Subject};
use config::layout::Entry;
use config::{MachineName, Revision};

use crate::clean::{Step, plan_deletion};
use crate::lock::{Holder, Uses};
use crate::{CleanReport, MachineView, Result, Volume};
use btrfs::error::IoContext;

/// The advice of findings that [`Volume::repair`] repairs.
const REPAIR: &str = "buildhost doctor --repair";
const BOOTSTRAP_AGAIN: &str = "none: the agent bootstraps it again";
const NEVER_TOUCHED: &str = "none: it is never touched";

/// A finding about a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFinding {
    /// The machine.
    pub machine: MachineName,
    /// The kind.
    pub id: Id,
    /// The evidence.
    pub proof: String,
    /// The advice for a person.
    pub advice: String,
    /// The steps of [`Volume::repair`]; empty if a person must decide.
    pub repair: Vec<Step>,
}

impl MachineFinding {
    /// Returns the finding as it is printed and sent.
    pub fn finding(&self) -> Finding {
        let subject = Subject::Machine(self.machine.clone());
        Finding {
            repair: self.repair.iter().map(ToString::to_string).collect(),
            ..Finding::new(self.id, subject, &self.proof, &self.advice)
        }
    }

    /// Returns true if the planned clean-up of an agent repairs the finding.
    pub fn is_covered(&self, cleaning: &[Cleaning]) -> bool {
        let entry = match self.repair.as_slice() {
            _ if self.id == Id::HalfDeleted => None,
            [Step::Delete(entry)] => Some(entry.name(&self.machine)),
            _ => return false,
        };
        !self.repair.is_empty()
            && cleaning
                .iter()
                .any(|it| it.machine == self.machine && it.entry == entry)
    }
}

/// The processes that access a machine's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activity {
    /// The processes that hold the machine's lock.
    pub holders: Vec<Holder>,
    /// The processes that have the directory open, such as a `btrfs receive` that was started
    /// by hand.
    pub opened_by: Vec<Holder>,
    /// The processes that create a revision.
    pub ingesting: Vec<Holder>,
}

/// Returns the findings about a machine. `manifest_fault` is that of
/// [`Volume::manifest_fault`].
pub fn examine(
    view: &MachineView,
    manifest_fault: Option<&str>,
    activity: &Activity,
) -> Vec<MachineFinding> {
    let mut examination = Examination {
        view,
        findings: Vec::new(),
    };
    if view.is_unmanaged() {
        examination.note(
            Id::Unmanaged,
            "its directory has no managed entries",
            NEVER_TOUCHED,
        );
        return examination.findings;
    }
    examination.examine_link();
    examination.examine_manifest(manifest_fault);
    examination.examine_pins();
    examination.examine_trial();
    examination.examine_partial_revisions();
    examination.examine_incomplete_revisions(activity);
    examination.examine_leftovers();
    examination.examine_identities();
    examination.examine_images();
    for holder in &activity.holders {
        examination.note(
            Id::Locked,
            &format!("{holder} is changing it"),
            "wait for the end of that",
        );
    }
    for name in &view.unmanaged {
        examination.note(
            Id::Unmanaged,
            &format!("`{name}` is unmanaged"),
            NEVER_TOUCHED,
        );
    }
    examination.findings
}

struct Examination<'a> {
    view: &'a MachineView,
    findings: Vec<MachineFinding>,
}

impl Examination<'_> {
    fn add(&mut self, id: Id, proof: &str, advice: &str, repair: Vec<Step>) {
        self.findings.push(MachineFinding {
            machine: self.view.name.clone(),
            id,
            proof: proof.to_owned(),
            advice: advice.to_owned(),
            repair,
        });
    }

    /// Adds a finding without a repair.
    fn note(&mut self, id: Id, proof: &str, advice: &str) {
        self.add(id, proof, advice, Vec::new());
    }

    /// Adds a finding that one step repairs.
    fn repairable(&mut self, id: Id, proof: &str, step: Step) {
        self.add(id, proof, REPAIR, vec![step]);
    }

    fn examine_link(&mut self) {
        let view = self.view;
        let name = &view.name;
        let roll_back = format!("buildhost rollback {name} REVISION");
        if let Some(fault) = &view.link_fault {
            self.note(Id::BrokenLink, fault, &roll_back);
        } else if view.deleting && view.current.is_none() {
            let in_use = view.snapshots.iter().any(|it| it.in_use);
            let repair = if in_use {
                Vec::new()
            } else {
                plan_deletion(view)
            };
            self.add(
                Id::HalfDeleted,
                "its deletion has begun and not ended",
                &format!("buildhost delete {name}"),
                repair,
            );
        } else if view.current.is_none() {
            self.note(
                Id::NoLink,
                "it has no current link; the clean-up after the next boot deletes it",
                &roll_back,
            );
        } else if view.deleting {
            self.repairable(
                Id::DeletionMark,
                "it is in service and marked as being deleted",
                Step::Unlink(Entry::Deleting),
            );
        }
        if view.incoming {
            self.repairable(
                Id::IncomingLink,
                "a new current link was not published",
                Step::Unlink(Entry::Incoming),
            );
        }
    }

    fn examine_manifest(&mut self, fault: Option<&str>) {
        if let Some(fault) = fault {
            let fault = format!("nothing can be built on it: {fault}");
            self.note(
                Id::UnusableManifest,
                &fault,
                "buildhost upgrade, with an image whose manifest is valid",
            );
        }
    }

    fn examine_pins(&mut self) {
        let view = self.view;
        for pin in view
            .pins
            .iter()
            .filter(|pin| view.revision(**pin).is_none())
        {
            let proof = format!("revision {pin} is pinned and does not exist");
            self.repairable(Id::LostPin, &proof, Step::Unlink(Entry::Pin(*pin)));
        }
    }

    fn examine_trial(&mut self) {
        let view = self.view;
        let name = &view.name;
        if let Some(revision) = view.unfinished_promotion() {
            self.note(
                Id::OnTrial,
                &format!("revision {revision} is current, and its promotion is not finished"),
                &format!("`buildhost promote {name}`, or the agent: finishes it"),
            );
        } else if let Some((candidate, trial)) = view.candidate() {
            let (revision, decider) = (candidate.revision, trial.decider());
            let who = match &decider {
                Decider::Host(_) => "the agent decides".to_owned(),
                Decider::Farm(_) => decider.to_string(),
            };
            self.note(
                Id::OnTrial,
                &format!("revision {revision} is on trial ({decider}) since {:.0}", trial.since),
                &format!(
                    "none: {who}; `buildhost promote {name}` and `buildhost rollback {name}` decide for this host at once"
                ),
            );
        }
    }

    fn examine_partial_revisions(&mut self) {
        let view = self.view;
        for revision in &view.partial {
            if view.is_continuable(*revision) {
                self.note(
                    Id::PartialRevision,
                    &format!("a part of revision {revision} has arrived"),
                    "the same push, which continues it; any other one deletes it",
                );
            } else {
                self.repairable(
                    Id::HalfRevision,
                    &format!("a part of revision {revision} has arrived that cannot be continued"),
                    Step::Delete(Entry::Partial(*revision)),
                );
            }
        }
    }

    /// Examines incomplete revisions, and marks of unfinished revisions that do not exist.
    fn examine_incomplete_revisions(&mut self, activity: &Activity) {
        let view = self.view;
        let mut writers = activity
            .ingesting
            .iter()
            .chain(&activity.opened_by)
            .chain(&activity.holders);
        let writer = writers.next();
        let incomplete = view
            .revisions
            .iter()
            .filter(|it| !it.complete)
            .map(|it| it.revision);
        let missing = view
            .arriving
            .iter()
            .copied()
            .filter(|it| view.revision(*it).is_none());
        for revision in incomplete.chain(missing) {
            self.examine_incomplete_revision(revision, writer);
        }
    }

    fn examine_incomplete_revision(&mut self, revision: Revision, writer: Option<&Holder>) {
        let view = self.view;
        let exists = view.revision(revision).is_some();
        let is_marked = view.arriving.contains(&revision);
        let state = if is_marked { "unfinished" } else { "writable" };
        let proof = format!("revision {revision} is {state}");
        let name = Entry::Revision(revision).name(&view.name);
        if let Some(writer) = writer {
            self.note(
                Id::ArrivingRevision,
                &format!("{proof}; {writer} may be creating it"),
                "wait for the end of that",
            );
        } else if exists && view.link_fault.is_some() {
            self.note(
                Id::HalfRevision,
                &format!("{proof}, and the current link may mean it"),
                &format!(
                    "`buildhost rollback {}` or `btrfs property set -ts {name} ro true`",
                    view.name
                ),
            );
        } else if !is_marked {
            self.note(
                Id::WritableRevision,
                &format!("{proof}: a person may be working in it"),
                &format!(
                    "`btrfs property set -ts {name} ro true` or `btrfs subvolume delete {name}`"
                ),
            );
        } else {
            let delete = exists.then_some(Step::Delete(Entry::Revision(revision)));
            let unmark = Some(Step::Unlink(Entry::Arriving(revision)));
            self.add(
                Id::HalfRevision,
                &format!("{proof}: its creation was interrupted"),
                REPAIR,
                delete.into_iter().chain(unmark).collect(),
            );
        }
    }

    fn examine_leftovers(&mut self) {
        let view = self.view;
        for image in view.images.iter().filter(|it| !it.complete) {
            let proof = format!("the image for toolchain {} is writable", image.toolchain);
            self.repairable(
                Id::HalfImage,
                &proof,
                Step::Delete(Entry::Image(image.toolchain.clone())),
            );
        }
        for (revision, image) in view.obsolete_trial_images() {
            let toolchain = &image.toolchain;
            let entry = Entry::TrialImage(revision, toolchain.clone());
            let proof = format!("{entry} was made for a trial that has ended");
            self.repairable(Id::StrayTrialImage, &proof, Step::Delete(entry));
        }
        for it in view.snapshots.iter().filter(|it| !it.in_use) {
            let proof = format!(
                "snapshot {} of toolchain {} is not in use",
                it.tag, it.toolchain
            );
            let entry = Entry::Snapshot(it.toolchain.clone(), it.tag.clone());
            self.repairable(Id::StraySnapshot, &proof, Step::Delete(entry));
        }
    }

    /// Finds two revisions with one identity, and revisions without any among received ones. On
    /// a development host and for an imported machine, no revision was received.
    fn examine_identities(&mut self) {
        let mut known = BTreeMap::new();
        let complete = || self.view.revisions.iter().filter(|it| it.complete);
        let some_received = complete().any(|it| it.received_uuid.is_some());
        for it in complete() {
            let revision = it.revision;
            let Some(identity) = it.received_uuid else {
                if !some_received {
                    continue;
                }
                let proof =
                    format!("revision {revision} was not received as a stream, unlike others");
                self.note(
                    Id::NoIdentity,
                    &proof,
                    "the next incremental stream may have to be a full one",
                );
                continue;
            };
            if let Some(other) = known.insert(identity, revision) {
                let proof =
                    format!("revisions {other} and {revision} have the same identity ({identity})");
                self.note(
                    Id::TwinIdentity,
                    &proof,
                    "on the development host, take a new snapshot of the working subvolume and send it in full",
                );
            }
        }
    }

    fn examine_images(&mut self) {
        let view = self.view;
        let current = view.current().map(|it| it.uuid.to_string());
        for image in view.images.iter().filter(|it| it.complete) {
            let toolchain = &image.toolchain;
            match &image.provenance {
                None => {
                    let proof = format!("the image for toolchain {toolchain} has no provenance");
                    self.note(Id::UnknownImage, &proof, BOOTSTRAP_AGAIN);
                }
                Some(provenance) if Some(&provenance.revision_uuid) != current.as_ref() => {
                    let proof =
                        format!("the image for toolchain {toolchain} is of another revision");
                    self.note(Id::OldImage, &proof, BOOTSTRAP_AGAIN);
                }
                Some(_) => {}
            }
        }
    }
}

impl Volume {
    /// Returns the findings about machines, by default about all of the volume.
    ///
    /// # Errors
    /// A machine cannot be read.
    pub fn examine(&self, machines: &[MachineName]) -> Result<Vec<MachineFinding>> {
        let views = self.views(machines)?;
        let uses = self.uses(views.iter().map(|view| &view.name));
        let mut findings = Vec::new();
        for view in views {
            let activity = self.activity(&view.name, &uses, &[]);
            let manifest_fault = self.manifest_fault(&view);
            findings.extend(examine(&view, manifest_fault.as_deref(), &activity));
        }
        Ok(findings)
    }

    /// Returns the findings about the volume's mount, its devices, and btrfs-progs.
    ///
    /// # Errors
    /// The mount cannot be inspected.
    pub fn examine_mount(&self) -> Result<Vec<Finding>> {
        let state =
            mount::MountState::inspect(self.path()).context("inspect the mount of", self.path())?;
        Ok(mount::examine(&state))
    }

    /// Returns the uses of the directories that are locked to change machines.
    fn uses<'m>(&self, machines: impl Iterator<Item = &'m MachineName>) -> Uses {
        let directories = |it| [self.directory(it), self.entry(it, &Entry::Ingest)];
        Uses::of(machines.flat_map(directories))
    }

    fn activity(&self, machine: &MachineName, uses: &Uses, ignored_pids: &[u32]) -> Activity {
        let directory = self.directory(machine);
        let others = |holders: Vec<Holder>| {
            holders
                .into_iter()
                .filter(|holder| !ignored_pids.contains(&holder.pid))
                .collect()
        };
        Activity {
            holders: others(uses.holders(&directory)),
            opened_by: others(uses.opened_by(&directory)),
            ingesting: uses.holders(&self.entry(machine, &Entry::Ingest)),
        }
    }

    /// Repairs those findings that still exist and need no decision of a person. A failure
    /// does not stop the rest.
    pub fn repair(&self, findings: &[MachineFinding]) -> CleanReport {
        let mut steps: BTreeMap<&MachineName, Vec<&Step>> = BTreeMap::new();
        for finding in findings {
            steps
                .entry(&finding.machine)
                .or_default()
                .extend(&finding.repair);
        }
        let mut report = CleanReport::default();
        for (machine, steps) in steps.into_iter().filter(|(_, steps)| !steps.is_empty()) {
            if let Err(error) = self.repair_machine(machine, &steps, &mut report) {
                report.fail(Some(machine), None, error);
            }
        }
        if let Err(error) = self.commit() {
            report.fail(None, None, error);
        }
        report
    }

    fn repair_machine(
        &self,
        machine: &MachineName,
        wanted: &[&Step],
        report: &mut CleanReport,
    ) -> Result<()> {
        let _lock = self.lock(machine)?;
        let uses = self.uses(std::iter::once(machine));
        let activity = self.activity(machine, &uses, &[std::process::id()]);
        let steps = examine(&self.view(machine)?, None, &activity)
            .into_iter()
            .flat_map(|finding| finding.repair)
            .filter(|step| wanted.contains(&step));
        self.execute_all(machine, steps, report);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planned_clean_up_covers_exactly_what_it_deletes() {
        let entry = |tag: &str| Entry::Snapshot("default".parse().unwrap(), tag.parse().unwrap());
        let finding = |id, repair| MachineFinding {
            machine: "linux".parse().unwrap(),
            id,
            proof: String::new(),
            advice: String::new(),
            repair,
        };
        let cleaning = |entry: Option<&str>| Cleaning {
            volume: "/v".into(),
            machine: "linux".parse().unwrap(),
            entry: entry.map(str::to_owned),
        };
        let stray = finding(Id::StraySnapshot, vec![Step::Delete(entry("7"))]);
        assert!(stray.is_covered(&[cleaning(Some("linux-default-7"))]));
        assert!(!stray.is_covered(&[cleaning(Some("linux-default-8")), cleaning(None)]));
        let steps = vec![Step::Unlink(Entry::Deleting), Step::RemoveDirectory];
        let half = finding(Id::HalfDeleted, steps);
        assert!(half.is_covered(&[cleaning(None)]));
        assert!(!half.is_covered(&[cleaning(Some("linux-default-7"))]));
        assert!(!finding(Id::NoLink, Vec::new()).is_covered(&[cleaning(None)]));
    }
}
