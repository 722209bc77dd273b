//! What is not as it should be in a volume, what proves it, and what repairs it.

mod mount;

use std::collections::BTreeMap;

use config::MachineName;
use config::doctor::{Cleaning, Finding, Id, Subject};
use config::layout::Entry;

use crate::clean::{Step, plan_deletion};
use crate::error::IoContext;
use crate::lock::{self, Holder};
use crate::{CleanReport, MachineView, Result, Volume};

/// Something about a machine that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The machine.
    pub machine: MachineName,
    /// What kind of finding it is.
    pub id: Id,
    /// What proves it.
    pub proof: String,
    /// What a person can do.
    pub advice: String,
    /// What [`Volume::repair`] does; empty when a person must decide.
    pub repair: Vec<Step>,
}

impl Found {
    /// How others are told of it.
    pub fn finding(&self) -> Finding {
        let subject = Subject::Machine(self.machine.clone());
        Finding {
            repair: self.repair.iter().map(ToString::to_string).collect(),
            ..Finding::new(self.id, subject, &self.proof, &self.advice)
        }
    }

    /// Whether what an agent is about to clean leaves nothing to repair.
    pub fn is_covered(&self, cleaning: &[Cleaning]) -> bool {
        let entry = match self.repair.as_slice() {
            _ if self.id == Id::HalfDeleted => None,
            [Step::Delete(entry)] => Some(entry.name(&self.machine)),
            _ => return false,
        };
        let same = |it: &Cleaning| it.machine == self.machine && it.entry == entry;
        !self.repair.is_empty() && cleaning.iter().any(same)
    }
}

/// Who has to do with a machine at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Company {
    /// Who holds its lock.
    pub holders: Vec<Holder>,
    /// Who has its directory open, as a `btrfs receive` by hand does.
    pub visitors: Vec<Holder>,
}

/// Examines a machine. Thinks only.
pub fn examine(view: &MachineView, company: &Company) -> Vec<Found> {
    let mut doctor = Doctor {
        view,
        findings: Vec::new(),
    };
    if view.is_foreign() {
        doctor.note(
            Id::Unmanaged,
            "its directory holds nothing of ours",
            "none: it is never touched",
        );
        return doctor.findings;
    }
    doctor.link();
    doctor.leftovers(company);
    doctor.identities();
    doctor.images();
    for holder in &company.holders {
        doctor.note(
            Id::Locked,
            &format!("{holder} is changing it"),
            "wait until that has ended",
        );
    }
    for stranger in &view.strangers {
        doctor.note(
            Id::Unmanaged,
            &format!("`{stranger}` is not ours"),
            "none: it is never touched",
        );
    }
    doctor.findings
}

struct Doctor<'a> {
    view: &'a MachineView,
    findings: Vec<Found>,
}

impl Doctor<'_> {
    fn add(&mut self, id: Id, proof: &str, advice: &str, repair: Vec<Step>) {
        self.findings.push(Found {
            machine: self.view.name.clone(),
            id,
            proof: proof.to_owned(),
            advice: advice.to_owned(),
            repair,
        });
    }

    fn note(&mut self, id: Id, proof: &str, advice: &str) {
        self.add(id, proof, advice, Vec::new());
    }

    /// Something that can simply go.
    fn stray(&mut self, id: Id, proof: &str, step: Step) {
        self.add(id, proof, "buildhost doctor --repair", vec![step]);
    }

    fn link(&mut self) {
        let view = self.view;
        let name = &view.name;
        let roll_back = format!("buildhost rollback {name} REVISION");
        if let Some(fault) = &view.link_fault {
            self.add(Id::BrokenLink, fault, &roll_back, Vec::new());
        } else if view.deleting && view.current.is_none() {
            let used = view.snapshots.iter().any(|it| it.in_use);
            let repair = if used {
                Vec::new()
            } else {
                plan_deletion(view)
            };
            let proof = "its deletion was begun and has not ended";
            self.add(
                Id::HalfDeleted,
                proof,
                &format!("buildhost delete {name}"),
                repair,
            );
        } else if view.current.is_none() {
            let proof = "it has no current link; the next boot's clean-up deletes it";
            self.add(Id::NoLink, proof, &roll_back, Vec::new());
        } else if view.deleting {
            let step = Step::Unlink(Entry::Deleting);
            self.stray(
                Id::DeletionMark,
                "it is in service and marked as being deleted",
                step,
            );
        }
        if view.incoming {
            let step = Step::Unlink(Entry::Incoming);
            self.stray(Id::IncomingLink, "a link was never put in place", step);
        }
        for pin in view
            .pins
            .iter()
            .filter(|pin| view.revision(**pin).is_none())
        {
            let proof = format!("revision {pin} is pinned and not there");
            self.stray(Id::LostPin, &proof, Step::Unlink(Entry::Pin(*pin)));
        }
    }

    /// Revisions that are not whole, and the marks of some that are not even there.
    fn halves(&mut self, maker: Option<&Holder>) {
        let view = self.view;
        let halves = view.revisions.iter().filter(|it| !it.complete);
        let begun = view
            .arriving
            .iter()
            .filter(|it| view.revision(**it).is_none());
        for revision in halves.map(|it| it.revision).chain(begun.copied()) {
            let (there, marked) = (
                view.revision(revision).is_some(),
                view.arriving.contains(&revision),
            );
            let is = if marked { "unfinished" } else { "writable" };
            let proof = format!("revision {revision} is {is}");
            if let Some(maker) = maker {
                let proof = format!("{proof}; {maker} may be making it");
                self.note(Id::ArrivingRevision, &proof, "wait until that has ended");
            } else if there && view.link_fault.is_some() {
                let proof = format!("{proof}, and the link may mean it");
                self.add(
                    Id::HalfRevision,
                    &proof,
                    "settle the link first",
                    Vec::new(),
                );
            } else {
                let proof =
                    format!("{proof}: its making was cut short, or somebody has opened it up");
                let half = there.then_some(Step::Delete(Entry::Revision(revision)));
                let mark = marked.then_some(Step::Unlink(Entry::Arriving(revision)));
                let repair = half.into_iter().chain(mark).collect();
                self.add(
                    Id::HalfRevision,
                    &proof,
                    "buildhost doctor --repair",
                    repair,
                );
            }
        }
    }

    fn leftovers(&mut self, company: &Company) {
        let view = self.view;
        self.halves(company.visitors.first().or(company.holders.first()));
        for image in view.images.iter().filter(|it| !it.complete) {
            let proof = format!("the image for toolchain {} is writable", image.toolchain);
            self.stray(
                Id::HalfImage,
                &proof,
                Step::Delete(Entry::Image(image.toolchain.clone())),
            );
        }
        for it in view.snapshots.iter().filter(|it| !it.in_use) {
            let proof = format!(
                "nobody uses snapshot {} of toolchain {}",
                it.tag, it.toolchain
            );
            let entry = Entry::Snapshot(it.toolchain.clone(), it.tag.clone());
            self.stray(Id::StraySnapshot, &proof, Step::Delete(entry));
        }
    }

    /// Two contents of one identity, or a content without one.
    fn identities(&mut self) {
        let mut known = BTreeMap::new();
        for it in self.view.revisions.iter().filter(|it| it.complete) {
            let revision = it.revision;
            let Some(identity) = it.received_uuid else {
                let proof = format!("revision {revision} was not received as a stream");
                self.note(
                    Id::NoIdentity,
                    &proof,
                    "the next incremental stream may need to be a full one",
                );
                continue;
            };
            if let Some(other) = known.insert(identity, revision) {
                let proof =
                    format!("revisions {other} and {revision} claim to be the same ({identity})");
                let advice = "on the development host, make a new snapshot of the working image and send it in full";
                self.add(Id::TwinIdentity, &proof, advice, Vec::new());
            }
        }
    }

    fn images(&mut self) {
        let view = self.view;
        let current = view.current().map(|it| it.uuid.to_string());
        for image in view.images.iter().filter(|it| it.complete) {
            let toolchain = &image.toolchain;
            match &image.provenance {
                None => {
                    let proof = format!(
                        "the image for toolchain {toolchain} does not say what it was made from"
                    );
                    self.note(
                        Id::UnknownImage,
                        &proof,
                        "none: the agent bootstraps it anew",
                    );
                }
                Some(made) if Some(&made.revision_uuid) != current.as_ref() => {
                    let proof =
                        format!("the image for toolchain {toolchain} is of another revision");
                    self.note(Id::OldImage, &proof, "none: the agent bootstraps it anew");
                }
                Some(_) => {}
            }
        }
    }
}

impl Volume {
    /// Examines machines; all of the volume when none are named. Changes nothing.
    ///
    /// # Errors
    /// When a machine cannot be looked at.
    pub fn examine(&self, machines: &[MachineName]) -> Result<Vec<Found>> {
        let all = if machines.is_empty() {
            self.machines()?
        } else {
            machines.to_vec()
        };
        let mut findings = Vec::new();
        for machine in all {
            findings.extend(examine(&self.look(&machine)?, &self.company(&machine, &[])));
        }
        Ok(findings)
    }

    /// Examines how the volume is mounted, its devices, and the tools. Changes nothing.
    ///
    /// # Errors
    /// When the mount cannot be looked at.
    pub fn examine_mount(&self) -> Result<Vec<Finding>> {
        let seen = mount::Seen::look(&self.path).context("look at the mount of", &self.path)?;
        Ok(mount::examine(&seen))
    }

    fn company(&self, machine: &MachineName, but: &[u32]) -> Company {
        let directory = self.directory(machine);
        let others = |holders: Vec<Holder>| {
            holders
                .into_iter()
                .filter(|holder| !but.contains(&holder.pid))
                .collect()
        };
        Company {
            holders: others(lock::holders(&directory)),
            visitors: others(lock::visitors(&directory)),
        }
    }

    /// Repairs what of these findings is still so and needs no person to decide.
    /// What cannot be repaired is reported and does not stop the rest.
    pub fn repair(&self, findings: &[Found]) -> CleanReport {
        let mut report = CleanReport::default();
        let mut machines: Vec<_> = findings.iter().map(|finding| &finding.machine).collect();
        machines.sort();
        machines.dedup();
        for machine in machines {
            let wanted = findings
                .iter()
                .filter(|finding| finding.machine == *machine);
            let wanted: Vec<_> = wanted.flat_map(|finding| &finding.repair).collect();
            if wanted.is_empty() {
                continue;
            }
            if let Err(error) = self.repair_machine(machine, &wanted, &mut report) {
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
        let company = self.company(machine, &[std::process::id()]);
        let still = examine(&self.look(machine)?, &company);
        let steps = still.into_iter().flat_map(|finding| finding.repair);
        let steps = steps.filter(|step| wanted.contains(&step));
        self.act_all(machine, steps, report);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_covers_what_it_is_about_to_clean_and_nothing_else() {
        let entry = |tag: &str| Entry::Snapshot("default".parse().unwrap(), tag.parse().unwrap());
        let found = |id, repair| Found {
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
        let stray = found(Id::StraySnapshot, vec![Step::Delete(entry("7"))]);
        assert!(stray.is_covered(&[cleaning(Some("linux-default-7"))]));
        assert!(!stray.is_covered(&[cleaning(Some("linux-default-8")), cleaning(None)]));
        let steps = vec![Step::Unlink(Entry::Deleting), Step::RemoveDirectory];
        let half = found(Id::HalfDeleted, steps);
        assert!(half.is_covered(&[cleaning(None)]));
        assert!(!half.is_covered(&[cleaning(Some("linux-default-7"))]));
        assert!(!found(Id::NoLink, Vec::new()).is_covered(&[cleaning(None)]));
    }
}
