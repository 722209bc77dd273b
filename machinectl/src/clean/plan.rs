//! What has to go from a machine's directory. Thinks only.

use std::fmt;

use config::layout::Entry;

use crate::MachineView;

/// One thing that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A subvolume is deleted.
    Delete(Entry),
    /// A link is removed.
    Unlink(Entry),
    /// The machine's directory is removed.
    RemoveDirectory,
}

impl Step {
    /// Whether this ends a deletion: it must not be done when something before it
    /// failed, or the rest would be forgotten.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Unlink(Entry::Deleting) | Self::RemoveDirectory)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(entry) => write!(f, "delete {entry}"),
            Self::Unlink(entry) => write!(f, "remove {entry}"),
            Self::RemoveDirectory => write!(f, "remove the machine's directory"),
        }
    }
}

/// What goes after a boot.
///
/// - A machine with a current link keeps its complete revisions and images; its
///   snapshots, its half-received revisions and what else is unfinished go.
/// - A machine whose link leads to no complete revision keeps in addition whatever
///   the link could mean: a person has to decide.
/// - Without a link everything of ours goes, and the directory, if that leaves it
///   empty: so removing the link and rebooting deletes a machine.
///
/// What somebody uses, and strangers, always stay.
pub fn plan(view: &MachineView) -> Vec<Step> {
    if view.has_link() {
        leftovers(view)
    } else {
        everything(view)
    }
}

/// What goes when a machine is deleted. A machine that has a current link again is
/// in service: then only the mark of the deletion goes.
pub fn plan_deletion(view: &MachineView) -> Vec<Step> {
    match (view.deleting, view.has_link()) {
        (false, _) => Vec::new(),
        (true, true) => vec![Step::Unlink(Entry::Deleting)],
        (true, false) => everything(view),
    }
}

fn leftovers(view: &MachineView) -> Vec<Step> {
    let mut steps = snapshots(view);
    let half = view.revisions.iter().filter(|view| !view.complete);
    if view.is_live() {
        steps.extend(half.map(|view| Step::Delete(Entry::Revision(view.revision))));
    }
    let half = view.images.iter().filter(|view| !view.complete);
    steps.extend(half.map(|view| Step::Delete(Entry::Image(view.toolchain.clone()))));
    steps.extend(view.incoming.then_some(Step::Unlink(Entry::Incoming)));
    steps.extend(view.deleting.then_some(Step::Unlink(Entry::Deleting)));
    steps
}

/// The link of a deletion goes last, so that a deletion that is interrupted is
/// known as one.
fn everything(view: &MachineView) -> Vec<Step> {
    let mut steps = snapshots(view);
    let images = view.images.iter();
    steps.extend(images.map(|view| Step::Delete(Entry::Image(view.toolchain.clone()))));
    let revisions = view.revisions.iter();
    steps.extend(revisions.map(|view| Step::Delete(Entry::Revision(view.revision))));
    steps.extend(view.incoming.then_some(Step::Unlink(Entry::Incoming)));
    let used = view.snapshots.iter().any(|view| view.in_use);
    steps.extend((view.deleting && !used).then_some(Step::Unlink(Entry::Deleting)));
    // A directory in which nothing was ours may be anybody's.
    if !steps.is_empty() && view.strangers.is_empty() && !used {
        steps.push(Step::RemoveDirectory);
    }
    steps
}

fn snapshots(view: &MachineView) -> Vec<Step> {
    let unused = view.snapshots.iter().filter(|view| !view.in_use);
    let name =
        |view: &crate::SnapshotView| Entry::Snapshot(view.toolchain.clone(), view.tag.clone());
    unused.map(|view| Step::Delete(name(view))).collect()
}
