//! The messages about machines from what a volume shows of them.

use std::collections::BTreeMap;
use std::path::Path;

use config::Revision;
use config::machines::{
    BuildCounts, DIFFERENCES_MAX, Difference, DifferenceKind, Machine, MachineImage,
    MachineRevision, MachineSummary, Note, RevisionDiff,
};
use config::{MachineName, ToolchainName};
use jiff::Timestamp;
use store::{EntryDifference, ImageView, MachineUsage, MachineView, RevisionView, Usage};

/// The facts about a machine that are not in its view.
#[derive(Debug, Default)]
pub(super) struct MachineFacts {
    /// The notes on revisions.
    pub(super) notes: BTreeMap<Revision, Note>,
    /// The space, if it was counted.
    pub(super) usage: Option<MachineUsage>,
    /// The finished builds by revision.
    pub(super) builds: BTreeMap<Revision, BuildCounts>,
    /// The memory in the checkpoints of images.
    pub(super) checkpoints: BTreeMap<ToolchainName, u64>,
}

/// Returns the summary of a machine.
pub(super) fn summary(view: &MachineView, volume: &Path, fault: Option<&str>) -> MachineSummary {
    let images = view.images.iter().filter(|it| it.complete);
    MachineSummary {
        name: view.name.clone(),
        volume: volume.to_owned(),
        state: view.state(fault),
        in_service: view.is_live() && fault.is_none(),
        current: view.current,
        candidate: view.candidate().map(|(view, _)| view.revision),
        revision_count: view.revisions.len(),
        toolchains: images.map(|it| it.toolchain.clone()).collect(),
        guests: view.snapshots.iter().filter(|it| it.in_use).count(),
    }
}

/// Returns a machine with its revisions and images.
pub(super) fn machine(
    view: &MachineView,
    volume: &Path,
    fault: Option<&str>,
    facts: &MachineFacts,
) -> Machine {
    let trial_images = view.trial_images.iter();
    let trial_images = trial_images.map(|(revision, it)| trial_image(*revision, it));
    let images = view.images.iter().map(|it| image(view, it, facts));
    Machine {
        summary: summary(view, volume, fault),
        bytes: facts.usage.as_ref().map(|it| it.bytes),
        revisions: view
            .revisions
            .iter()
            .map(|it| revision(view, it, facts))
            .collect(),
        images: images.chain(trial_images).collect(),
    }
}

fn revision(view: &MachineView, of: &RevisionView, facts: &MachineFacts) -> MachineRevision {
    let number = of.revision;
    let usage = facts
        .usage
        .as_ref()
        .and_then(|it| it.revisions.get(&number));
    MachineRevision {
        revision: number,
        state: view.revision_state(of).to_owned(),
        pinned: view.pins.contains(&number),
        created: Timestamp::try_from(of.subvolume.created).ok(),
        uuid: of.uuid.to_string(),
        bytes: usage.map(|it| it.bytes),
        bytes_exclusive: usage.map(|it| it.exclusive),
        note: facts.notes.get(&number).cloned(),
        trial: view.trials.get(&number).cloned(),
        builds: facts.builds.get(&number).copied().unwrap_or_default(),
    }
}

fn image(view: &MachineView, of: &ImageView, facts: &MachineFacts) -> MachineImage {
    let usage: Option<&Usage> = facts
        .usage
        .as_ref()
        .and_then(|it| it.images.get(&of.toolchain));
    MachineImage {
        toolchain: of.toolchain.clone(),
        state: view.image_state(of).to_owned(),
        revision: view.made_from(of),
        bytes: usage.map(|it| it.bytes),
        bytes_exclusive: usage.map(|it| it.exclusive),
        checkpoint_bytes: facts.checkpoints.get(&of.toolchain).copied(),
    }
}

fn trial_image(revision: Revision, of: &ImageView) -> MachineImage {
    MachineImage {
        toolchain: of.toolchain.clone(),
        state: if of.complete {
            "for the trial"
        } else {
            "incomplete"
        }
        .to_owned(),
        revision: Some(revision),
        bytes: None,
        bytes_exclusive: None,
        checkpoint_bytes: None,
    }
}

/// Returns the differences between two revisions; the first ones, if there are many.
pub(super) fn diff(
    machine: &MachineName,
    (older, newer): (Revision, Revision),
    differences: Vec<EntryDifference>,
) -> RevisionDiff {
    let differences: Vec<_> = differences.into_iter().map(difference).collect();
    let number = |kind| differences.iter().filter(|it| it.change == kind).count();
    RevisionDiff {
        machine: machine.clone(),
        older,
        newer,
        added: number(DifferenceKind::Added),
        missing: number(DifferenceKind::Missing),
        changed: number(DifferenceKind::Changed),
        differences: differences.into_iter().take(DIFFERENCES_MAX).collect(),
    }
}

fn difference(of: EntryDifference) -> Difference {
    let change = match (of.before, of.after) {
        (None, _) => DifferenceKind::Added,
        (_, None) => DifferenceKind::Missing,
        _ => DifferenceKind::Changed,
    };
    Difference {
        name: of.name,
        change,
        bytes_before: of.before,
        bytes_after: of.after,
        differences: of.predicates,
    }
}
