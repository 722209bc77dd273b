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
    /// Whether this ends something: it must not be done when something before it
    /// failed, or the rest would be forgotten or taken for whole.
    pub(crate) fn is_end(&self) -> bool {
        let mark = matches!(self, Self::Unlink(Entry::Deleting | Entry::Arriving(_)));
        mark || *self == Self::RemoveDirectory
    }
}

impl Step {
    /// Returns the step in the past tense, as a report of what was done.
    pub fn done(&self) -> String {
        match self {
            Self::Delete(entry) => format!("deleted {entry}"),
            Self::Unlink(entry) => format!("removed {entry}"),
            Self::RemoveDirectory => "removed the machine's directory".to_owned(),
        }
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
    let lost = view
        .pins
        .iter()
        .filter(|pin| view.revision(**pin).is_none());
    steps.extend(lost.map(|pin| Step::Unlink(Entry::Pin(*pin))));
    steps.extend(view.incoming.then_some(Step::Unlink(Entry::Incoming)));
    steps.extend(marks(view, &steps));
    steps.extend(view.deleting.then_some(Step::Unlink(Entry::Deleting)));
    steps
}

/// The link of a deletion goes last, so that a deletion that is interrupted is
/// known as one.
fn everything(view: &MachineView) -> Vec<Step> {
    let mut steps = snapshots(view);
    let images = view.images.iter();
    steps.extend(images.map(|view| Step::Delete(Entry::Image(view.toolchain.clone()))));
    let held = |number| view.held.contains(&number);
    let revisions = view.revisions.iter().filter(|view| !held(view.revision));
    steps.extend(revisions.map(|view| Step::Delete(Entry::Revision(view.revision))));
    steps.extend(view.pins.iter().map(|pin| Step::Unlink(Entry::Pin(*pin))));
    steps.extend(view.incoming.then_some(Step::Unlink(Entry::Incoming)));
    steps.extend(marks(view, &steps));
    let used = view.is_used();
    steps.extend((view.deleting && !used).then_some(Step::Unlink(Entry::Deleting)));
    // A directory in which nothing was ours may be anybody's.
    if !steps.is_empty() && view.strangers.is_empty() && !used {
        steps.push(Step::RemoveDirectory);
    }
    steps
}

/// The marks of unfinished revisions, those that are not there after these steps.
fn marks(view: &MachineView, steps: &[Step]) -> Vec<Step> {
    let goes = |revision| steps.contains(&Step::Delete(Entry::Revision(revision)));
    let marks = view.arriving.iter().copied();
    let done = marks.filter(|it| view.revision(*it).is_none() || goes(*it));
    done.map(|it| Step::Unlink(Entry::Arriving(it))).collect()
}

fn snapshots(view: &MachineView) -> Vec<Step> {
    let unused = view.snapshots.iter().filter(|view| !view.in_use);
    let name =
        |view: &crate::SnapshotView| Entry::Snapshot(view.toolchain.clone(), view.tag.clone());
    unused.map(|view| Step::Delete(name(view))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use config::{Revision, Tag};
    use proptest::prelude::*;

    use super::*;
    use crate::{ImageView, RevisionView, SnapshotView, Subvolume, Uuid};

    fn revision((number, complete): (u32, bool)) -> RevisionView {
        let subvolume = Subvolume {
            uuid: Uuid::nil(),
            parent_uuid: None,
            received_uuid: None,
            transaction: 0,
            read_only: complete,
            created: SystemTime::UNIX_EPOCH,
        };
        RevisionView {
            revision: Revision(number),
            uuid: subvolume.uuid,
            received_uuid: None,
            complete,
            subvolume,
        }
    }

    fn snapshot((number, in_use): (u32, bool)) -> SnapshotView {
        let tag: Tag = number.to_string().parse().unwrap();
        SnapshotView {
            toolchain: "default".parse().unwrap(),
            tag,
            in_use,
        }
    }

    fn view() -> impl Strategy<Value = MachineView> {
        let revisions = prop::collection::btree_map(0_u32..5, any::<bool>(), 0..4);
        let snapshots = prop::collection::btree_map(0_u32..5, any::<bool>(), 0..4);
        let rest = (any::<[bool; 6]>(), 0_u32..5, prop::option::of(0_u32..5));
        (revisions, snapshots, rest).prop_map(|(revisions, snapshots, (flags, current, held))| {
            let [link, incoming, deleting, image, stranger, marked] = flags;
            let mut view = MachineView::new("linux".parse().unwrap());
            let whole = |it: &u32| revisions.get(it) == Some(&true) && !(marked && *it == 1);
            let leads = whole(&current);
            view.current = (link && leads).then_some(Revision(current));
            view.link_fault = (link && !leads).then(|| "broken".to_owned());
            view.incoming = incoming;
            view.deleting = deleting;
            let held = held.filter(whole);
            view.held = held.map(Revision).into_iter().collect();
            view.arriving = marked.then_some(Revision(1)).into_iter().collect();
            view.revisions = revisions.into_iter().map(revision).collect();
            for it in &mut view.revisions {
                it.complete &= !view.arriving.contains(&it.revision);
            }
            view.snapshots = snapshots.into_iter().map(snapshot).collect();
            view.images = vec![ImageView {
                toolchain: "default".parse().unwrap(),
                uuid: Uuid::nil(),
                complete: image,
                provenance: None,
            }];
            view.strangers = stranger.then(|| "notes".to_owned()).into_iter().collect();
            view
        })
    }

    proptest! {
        #[test]
        fn nothing_goes_that_must_stay(view in view()) {
            for plan in [plan(&view), plan_deletion(&view)] {
                for it in &view.snapshots {
                    let name = Entry::Snapshot(it.toolchain.clone(), it.tag.clone());
                    prop_assert!(!it.in_use || !plan.contains(&Step::Delete(name)));
                }
                let used = view.is_used();
                let foreign = !view.strangers.is_empty();
                prop_assert!(!(used || foreign) || !plan.contains(&Step::RemoveDirectory));
                for it in &view.revisions {
                    let goes = plan.contains(&Step::Delete(Entry::Revision(it.revision)));
                    prop_assert!(!(goes && it.complete && view.has_link()));
                    prop_assert!(!(goes && view.held.contains(&it.revision)));
                    prop_assert!(!(goes && view.link_fault.is_some()));
                }
            }
            prop_assert!(view.deleting || plan_deletion(&view).is_empty());
        }

        #[test]
        fn what_is_marked_as_unfinished_goes_before_its_mark(view in view()) {
            for plan in [plan(&view), plan_deletion(&view)] {
                let at = |step: &Step| plan.iter().position(|it| it == step);
                for revision in &view.arriving {
                    let mark = at(&Step::Unlink(Entry::Arriving(*revision)));
                    if mark.is_some() && view.revision(*revision).is_some() {
                        let gone = at(&Step::Delete(Entry::Revision(*revision)));
                        prop_assert!(gone.is_some() && gone < mark);
                    }
                }
            }
        }

        #[test]
        fn nothing_unfinished_stays_with_a_machine_in_service(view in view()) {
            if !view.is_live() {
                return Ok(());
            }
            let plan = plan(&view);
            for it in view.revisions.iter().filter(|it| !it.complete) {
                prop_assert!(plan.contains(&Step::Delete(Entry::Revision(it.revision))));
            }
            prop_assert_eq!(view.incoming, plan.contains(&Step::Unlink(Entry::Incoming)));
            prop_assert_eq!(view.deleting, plan.contains(&Step::Unlink(Entry::Deleting)));
        }
    }
}
