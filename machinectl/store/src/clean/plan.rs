//! The steps of a clean-up, determined from a machine's view alone.

use std::fmt;

use config::Revision;
use config::layout::Entry;

use crate::{ImageView, IngestState, MachineView, RevisionView, SnapshotView};

/// A step of a clean-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Deletes a subvolume.
    Delete(Entry),
    /// Removes a symbolic link, or the empty directory of a lock.
    Unlink(Entry),
    /// Removes the machine's directory.
    RemoveDirectory,
}

impl Step {
    /// Returns the entry that the step removes; `None` for the directory itself.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Delete(entry) | Self::Unlink(entry) => Some(entry),
            Self::RemoveDirectory => None,
        }
    }

    /// Returns the step in the past tense, as a report of what was done.
    pub fn done(&self) -> String {
        match self {
            Self::Delete(entry) => format!("deleted {entry}"),
            Self::Unlink(entry) => format!("removed {entry}"),
            Self::RemoveDirectory => "removed the machine's directory".to_owned(),
        }
    }

    /// Returns true if the step removes a link or a lock that only Buildhost uses. People need
    /// not know of it.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Unlink(Entry::Pin(_)) | Self::Delete(_) | Self::RemoveDirectory => false,
            Self::Unlink(_) => true,
        }
    }

    /// Returns true if the step must not follow a failed one: it removes the record of what
    /// remains to be done.
    pub(crate) fn is_final(&self) -> bool {
        let is_mark = matches!(self, Self::Unlink(Entry::Deleting | Entry::Arriving(_)));
        is_mark || *self == Self::RemoveDirectory
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

/// Returns the steps of the clean-up after a boot.
///
/// - A machine with a current link keeps its complete revisions and images, and partial revisions
///   that a transfer can continue. Its snapshots and other unfinished entries are deleted.
/// - A writable revision that is not marked as unfinished was made by a person, and stays.
/// - A machine whose link does not lead to a complete revision also keeps every revision that
///   the link could mean. A person has to decide.
/// - Without a link, all other managed entries are deleted, and the directory if it is then
///   empty. So a machine can be deleted by removing its link and rebooting.
///
/// Entries in use and unmanaged entries always stay.
pub fn plan(view: &MachineView) -> Vec<Step> {
    if view.has_link() {
        unfinished(view)
    } else if view.deleting {
        delete_all(view)
    } else {
        delete_all(&without_writable(view))
    }
}

/// Returns a view in which the revisions that a person made are unmanaged.
fn without_writable(view: &MachineView) -> MachineView {
    let mut view = view.clone();
    let is_managed = |it: &RevisionView| it.complete || view.arriving.contains(&it.revision);
    let (managed, writable): (Vec<_>, Vec<_>) = view.revisions.into_iter().partition(is_managed);
    let names = writable
        .iter()
        .map(|it| Entry::Revision(it.revision).name(&view.name));
    view.unmanaged.extend(names);
    let is_kept = |described: &Revision| writable.iter().all(|it| it.revision != *described);
    view.notes.retain(is_kept);
    view.content_records.retain(is_kept);
    view.trials.retain(|described, _| is_kept(described));
    view.revisions = managed;
    view
}

/// Returns the steps that finish the deletion of a machine. A machine with a current link is
/// in service again and only loses the mark of the deletion.
pub fn plan_deletion(view: &MachineView) -> Vec<Step> {
    match (view.deleting, view.has_link()) {
        (false, _) => Vec::new(),
        (true, true) => vec![Step::Unlink(Entry::Deleting)],
        (true, false) => delete_all(view),
    }
}

fn unfinished(view: &MachineView) -> Vec<Step> {
    let mut steps = unused_snapshots(view);
    if view.is_live() {
        let interrupted = view
            .revisions
            .iter()
            .filter(|it| view.is_interrupted(it.revision));
        steps.extend(interrupted.map(|view| Step::Delete(Entry::Revision(view.revision))));
    }
    let incomplete = view.images.iter().filter(|view| !view.complete);
    steps.extend(incomplete.map(|view| Step::Delete(Entry::Image(view.toolchain.clone()))));
    let obsolete = view.obsolete_trial_images();
    steps.extend(obsolete.map(|(revision, image)| delete_trial_image(revision, image)));
    if view.ingest != IngestState::Running {
        steps.extend(discard_partials_if(view, |it| !view.is_continuable(it)));
    }
    let dangling = view
        .pins
        .iter()
        .filter(|pin| view.revision(**pin).is_none());
    steps.extend(dangling.map(|pin| Step::Unlink(Entry::Pin(*pin))));
    steps.extend(view.incoming.then_some(Step::Unlink(Entry::Incoming)));
    steps.extend(obsolete_descriptions(view, &steps));
    steps.extend(obsolete_marks(view, &steps));
    steps.extend(interrupted_ingest(view));
    steps.extend(view.deleting.then_some(Step::Unlink(Entry::Deleting)));
    steps
}

/// Returns the steps that delete all managed entries. The mark of the deletion is removed
/// last, so that an interrupted deletion is recognized.
fn delete_all(view: &MachineView) -> Vec<Step> {
    let mut steps = unused_snapshots(view);
    let images = view.images.iter();
    steps.extend(images.map(|view| Step::Delete(Entry::Image(view.toolchain.clone()))));
    let images = view.trial_images.iter();
    steps.extend(images.map(|(revision, image)| delete_trial_image(*revision, image)));
    let unused = view.revisions.iter().filter(|it| {
        !view.revisions_in_use.contains(&it.revision) && !view.is_arriving(it.revision)
    });
    steps.extend(unused.map(|view| Step::Delete(Entry::Revision(view.revision))));
    steps.extend(view.pins.iter().map(|pin| Step::Unlink(Entry::Pin(*pin))));
    if view.ingest != IngestState::Running {
        steps.extend(discard_partials(view));
    }
    steps.extend(view.incoming.then_some(Step::Unlink(Entry::Incoming)));
    steps.extend(obsolete_descriptions(view, &steps));
    steps.extend(obsolete_marks(view, &steps));
    steps.extend(interrupted_ingest(view));
    let in_use = view.is_in_use();
    steps.extend((view.deleting && !in_use).then_some(Step::Unlink(Entry::Deleting)));
    // A directory without managed entries is unmanaged itself.
    if !steps.is_empty() && view.unmanaged.is_empty() && !in_use {
        steps.push(Step::RemoveDirectory);
    }
    steps
}

/// Returns the steps that remove the marks of unfinished revisions that do not exist after
/// `steps`.
fn obsolete_marks(view: &MachineView, steps: &[Step]) -> Vec<Step> {
    view.arriving
        .iter()
        .copied()
        .filter(|revision| {
            view.is_interrupted(*revision) && view.revision(*revision).is_none()
                || steps.contains(&Step::Delete(Entry::Revision(*revision)))
        })
        .map(|revision| Step::Unlink(Entry::Arriving(revision)))
        .collect()
}

/// Returns the steps that remove the notes on, the content records and the trials of revisions that
/// do not exist after `steps`, and are not arriving.
fn obsolete_descriptions(view: &MachineView, steps: &[Step]) -> Vec<Step> {
    let is_obsolete = |revision: &Revision| {
        view.revision(*revision).is_none() && !view.is_arriving(*revision)
            || steps.contains(&Step::Delete(Entry::Revision(*revision)))
    };
    let notes = view.notes.iter().copied().filter(is_obsolete);
    let records = view.content_records.iter().copied().filter(is_obsolete);
    let trials = view.trials.keys().copied().filter(is_obsolete);
    let entries = notes.map(Entry::Note);
    let entries = entries.chain(records.map(Entry::ContentRecord));
    let entries = entries.chain(trials.map(Entry::Trial));
    entries.map(Step::Unlink).collect()
}

/// Returns the steps that delete the partial revisions of a machine.
pub(crate) fn discard_partials(view: &MachineView) -> Vec<Step> {
    discard_partials_if(view, |_| true)
}

fn discard_partials_if(view: &MachineView, selects: impl Fn(Revision) -> bool) -> Vec<Step> {
    let revisions = view.partial.union(&view.partial_states);
    let steps = |it: Revision| {
        let state = view.partial_states.contains(&it);
        let subvolume = view.partial.contains(&it);
        let state = state.then_some(Step::Unlink(Entry::PartialState(it)));
        [state, subvolume.then_some(Step::Delete(Entry::Partial(it)))]
    };
    let selected = revisions.copied().filter(|it| selects(*it));
    selected.flat_map(steps).flatten().collect()
}

fn delete_trial_image(revision: Revision, image: &ImageView) -> Step {
    Step::Delete(Entry::TrialImage(revision, image.toolchain.clone()))
}

fn interrupted_ingest(view: &MachineView) -> Option<Step> {
    (view.ingest == IngestState::Interrupted).then_some(Step::Unlink(Entry::Ingest))
}

fn unused_snapshots(view: &MachineView) -> Vec<Step> {
    let entry = |it: &SnapshotView| Entry::Snapshot(it.toolchain.clone(), it.tag.clone());
    view.snapshots
        .iter()
        .filter(|it| !it.in_use)
        .map(|it| Step::Delete(entry(it)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use config::Tag;
    use config::canary::{Terms, Trial, TrialEnd, TrialVerdict};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{ImageView, RevisionView, SnapshotView, Subvolume, Uuid};

    fn revision((number, complete): (u32, bool)) -> RevisionView {
        let subvolume = Subvolume {
            uuid: Uuid::nil(),
            parent_uuid: None,
            received_uuid: None,
            created_transaction: 0,
            transaction: 0,
            received_transaction: None,
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

    fn image_view(complete: bool) -> ImageView {
        ImageView {
            toolchain: "default".parse().unwrap(),
            uuid: Uuid::nil(),
            complete,
            provenance: None,
        }
    }

    fn trial(number: i64, is_decided: bool) -> Trial {
        let end = TrialEnd {
            verdict: TrialVerdict::RolledBack,
            reason: String::new(),
            at: Timestamp::UNIX_EPOCH,
        };
        Trial {
            terms: Terms::default(),
            since: Timestamp::from_second(number).unwrap(),
            revision_uuid: Uuid::nil().to_string(),
            end: is_decided.then_some(end),
            farm: None,
        }
    }

    fn view() -> impl Strategy<Value = MachineView> {
        let revisions = prop::collection::btree_map(0_u32..5, any::<bool>(), 0..4);
        let snapshots = prop::collection::btree_map(0_u32..5, any::<bool>(), 0..4);
        let ingest = prop::sample::select(vec![
            IngestState::Idle,
            IngestState::Interrupted,
            IngestState::Running,
        ]);
        let rest = (
            any::<[bool; 7]>(),
            [(); 4].map(|()| prop::collection::btree_set(0_u32..5, 0..3)),
            0_u32..5,
            prop::option::of(0_u32..5),
            ingest,
        );
        (revisions, snapshots, rest).prop_map(|(revisions, snapshots, rest)| {
            let (flags, [notes, records, trials, images], current, read, ingest) = rest;
            let [link, incoming, deleting, image, unmanaged, marked, decided] = flags;
            let mut view = MachineView::new("linux".parse().unwrap());
            let is_complete = |it: &u32| revisions.get(it) == Some(&true) && !(marked && *it == 1);
            let resolves = is_complete(&current);
            view.current = (link && resolves).then_some(Revision(current));
            view.link_fault = (link && !resolves).then(|| "broken".to_owned());
            view.incoming = incoming;
            view.ingest = ingest;
            view.deleting = deleting;
            view.revisions_in_use = read.filter(is_complete).map(Revision).into_iter().collect();
            view.notes = notes.into_iter().map(Revision).collect();
            view.content_records = records.into_iter().map(Revision).collect();
            let trial = |(number, it): (i64, u32)| (Revision(it), trial(number, decided));
            view.trials = (0..).zip(trials).map(trial).collect();
            let images = images
                .into_iter()
                .map(|it| (Revision(it), image_view(image)));
            view.trial_images = images.collect();
            view.arriving = marked.then_some(Revision(1)).into_iter().collect();
            view.revisions = revisions.into_iter().map(revision).collect();
            for it in &mut view.revisions {
                it.complete &= !view.arriving.contains(&it.revision);
            }
            view.snapshots = snapshots.into_iter().map(snapshot).collect();
            view.images = vec![image_view(image)];
            view.unmanaged = unmanaged.then(|| "notes".to_owned()).into_iter().collect();
            view
        })
    }

    proptest! {
        #[test]
        fn entries_in_use_and_complete_revisions_of_live_machines_stay(view in view()) {
            for plan in [plan(&view), plan_deletion(&view)] {
                for it in &view.snapshots {
                    let name = Entry::Snapshot(it.toolchain.clone(), it.tag.clone());
                    prop_assert!(!it.in_use || !plan.contains(&Step::Delete(name)));
                }
                let in_use = view.is_in_use();
                let has_unmanaged = !view.unmanaged.is_empty();
                prop_assert!(!(in_use || has_unmanaged) || !plan.contains(&Step::RemoveDirectory));
                for it in &view.revisions {
                    let deleted = plan.contains(&Step::Delete(Entry::Revision(it.revision)));
                    let is_writable = !it.complete && !view.arriving.contains(&it.revision);
                    prop_assert!(!(deleted && is_writable && !view.deleting));
                    prop_assert!(!(deleted && view.is_arriving(it.revision)));
                    prop_assert!(!(deleted && it.complete && view.has_link()));
                    prop_assert!(!(deleted && view.revisions_in_use.contains(&it.revision)));
                    prop_assert!(!(deleted && view.link_fault.is_some()));
                }
            }
            prop_assert!(view.deleting || plan_deletion(&view).is_empty());
        }

        #[test]
        fn an_unfinished_revision_is_deleted_before_its_mark(view in view()) {
            for plan in [plan(&view), plan_deletion(&view)] {
                let at = |step: &Step| plan.iter().position(|it| it == step);
                for revision in &view.arriving {
                    prop_assert!(!(view.is_arriving(*revision) && plan.contains(&Step::RemoveDirectory)));
                    let mark = at(&Step::Unlink(Entry::Arriving(*revision)));
                    if mark.is_some() && view.revision(*revision).is_some() {
                        let deleted = at(&Step::Delete(Entry::Revision(*revision)));
                        prop_assert!(deleted.is_some() && deleted < mark);
                    }
                }
            }
        }

        #[test]
        fn exactly_the_descriptions_of_revisions_that_stay_are_kept(view in view()) {
            let notes = view.notes.iter().map(|it| (*it, Entry::Note(*it)));
            let records = view.content_records.iter();
            let records = records.map(|it| (*it, Entry::ContentRecord(*it)));
            let trials = view.trials.keys().map(|it| (*it, Entry::Trial(*it)));
            let described: Vec<_> = notes.chain(records).chain(trials).collect();
            for plan in [plan(&view), plan_deletion(&view)] {
                for (revision, description) in &described {
                    let deleted = plan.contains(&Step::Delete(Entry::Revision(*revision)));
                    let stays = view.revision(*revision).is_some() && !deleted;
                    let removed = plan.contains(&Step::Unlink(description.clone()));
                    prop_assert!(!stays || !removed);
                    prop_assert!(!deleted || removed);
                }
            }
        }

        #[test]
        fn only_the_newest_trial_of_a_newer_revision_keeps_its_images(view in view()) {
            let plan = plan(&view);
            let candidate = view.candidate().map(|(view, _)| view.revision);
            prop_assert!(candidate.is_none() || candidate > view.current);
            prop_assert!(candidate.is_none() || view.unfinished_promotion().is_none());
            let used = candidate.or(view.unfinished_promotion());
            for (revision, image) in &view.trial_images {
                let is_used = view.has_link() && image.complete && Some(*revision) == used;
                prop_assert_eq!(!is_used, plan.contains(&delete_trial_image(*revision, image)));
            }
            let newest = view.trials.iter().max_by_key(|(_, it)| it.since).map(|it| *it.0);
            prop_assert!(used.is_none() || used == newest);
        }

        #[test]
        fn the_plan_for_a_live_machine_deletes_everything_unfinished(view in view()) {
            if !view.is_live() {
                return Ok(());
            }
            let plan = plan(&view);
            for it in view.revisions.iter().filter(|it| view.is_interrupted(it.revision)) {
                prop_assert!(plan.contains(&Step::Delete(Entry::Revision(it.revision))));
            }
            prop_assert_eq!(view.incoming, plan.contains(&Step::Unlink(Entry::Incoming)));
            prop_assert_eq!(view.deleting, plan.contains(&Step::Unlink(Entry::Deleting)));
        }
    }
}
