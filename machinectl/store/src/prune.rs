//! Pruning: the deletion of old revisions.

use std::time::SystemTime;

use config::layout::Entry;
use config::{MachineName, Revision};

use crate::clean::Step;
use crate::{
    Change, LockRefusal, MachineView, RefusalKind, Result, RevisionView, StoreError, Volume,
};

/// The policy for old revisions.
///
/// It never selects the current revision, one on trial, pinned ones, the sources of images and of
/// snapshots in use, or ones that a process reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunePolicy {
    /// The number of complete revisions of each machine to keep, the newest ones.
    pub keep: usize,
    /// The time from which on created revisions are kept.
    pub created_before: Option<SystemTime>,
    /// The free space in bytes at which pruning stops.
    pub free_target: Option<u64>,
}

/// Returns the revisions to delete, the oldest first.
pub fn plan<'v>(
    views: impl IntoIterator<Item = &'v MachineView>,
    policy: &PrunePolicy,
) -> Vec<(MachineName, Revision)> {
    let mut selected = Vec::new();
    for view in views {
        for old in old(view, policy).filter(|it| use_of(view, it).is_none()) {
            selected.push((old.subvolume.created, view.name.clone(), old.revision));
        }
    }
    selected.sort();
    selected
        .into_iter()
        .map(|(_, machine, revision)| (machine, revision))
        .collect()
}

/// A use that prevents the deletion of an old revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// An image or a snapshot in use was made from it.
    Origin,
    /// A process reads it.
    Read,
}

/// Returns the old revisions that are kept only because they are used.
pub fn retained(view: &MachineView, policy: &PrunePolicy) -> Vec<(Revision, Use)> {
    old(view, policy)
        .filter_map(|it| Some((it.revision, use_of(view, it)?)))
        .collect()
}

/// Returns the revisions that a policy selects, used or not.
fn old<'v>(view: &'v MachineView, policy: &PrunePolicy) -> impl Iterator<Item = &'v RevisionView> {
    let is_live = view.is_live();
    let candidate = view.candidate().map(|(view, _)| view.revision);
    let complete: Vec<_> = view.revisions.iter().filter(|it| it.complete).collect();
    let count = complete.len().saturating_sub(policy.keep);
    let policy = *policy;
    complete.into_iter().take(count).filter(move |it| {
        let is_kept = view.current == Some(it.revision)
            || view.pins.contains(&it.revision)
            || candidate == Some(it.revision);
        let is_young = policy
            .created_before
            .is_some_and(|limit| it.subvolume.created >= limit);
        is_live && !is_kept && !is_young
    })
}

fn use_of(view: &MachineView, revision: &RevisionView) -> Option<Use> {
    if view.revisions_in_use.contains(&revision.revision) {
        Some(Use::Read)
    } else {
        view.origins.contains(&revision.uuid).then_some(Use::Origin)
    }
}

/// The result of pruning.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// The deleted revisions.
    pub deleted: Vec<(MachineName, Revision)>,
    /// The old revisions that are kept as sources of images or builds.
    pub origins: Vec<(MachineName, Revision)>,
    /// The old revisions that could not be deleted, such as one that is being sent.
    pub failed: Vec<(MachineName, Revision, StoreError)>,
}

impl Volume {
    /// Deletes the old revisions of machines. A revision that cannot be deleted does not stop
    /// the rest.
    ///
    /// # Errors
    /// The free space cannot be measured, or the file system cannot commit.
    pub fn prune(&self, views: &[MachineView], policy: &PrunePolicy) -> Result<PruneReport> {
        let mut report = self.prune_selected(&plan(views, policy), policy)?;
        for view in views {
            for (revision, used) in retained(view, policy) {
                let machine = view.name.clone();
                match used {
                    Use::Origin => report.origins.push((machine, revision)),
                    Use::Read => {
                        let path = self.entry(&machine, &Entry::Revision(revision));
                        let error = LockRefusal::in_use(&path).into();
                        report.failed.push((machine, revision, error));
                    }
                }
            }
        }
        Ok(report)
    }

    /// Deletes the selected revisions that a policy still selects, in order. A revision that
    /// cannot be deleted does not stop the rest.
    ///
    /// # Errors
    /// The free space cannot be measured, or the file system cannot commit.
    pub fn prune_selected(
        &self,
        selected: &[(MachineName, Revision)],
        policy: &PrunePolicy,
    ) -> Result<PruneReport> {
        let mut report = PruneReport::default();
        if policy
            .free_target
            .is_some_and(|target| self.free().is_ok_and(|free| free < target))
        {
            // Free space includes the space of deleted files and subvolumes after a while.
            self.reclaim()?;
        }
        for (machine, revision) in selected {
            if let Some(target) = policy.free_target
                && self.free()? >= target
            {
                break;
            }
            let (machine, revision) = (machine.clone(), *revision);
            match self.prune_one(&machine, revision, policy) {
                Ok(Change::Changed) => report.deleted.push((machine, revision)),
                Ok(Change::Unchanged) => continue,
                // Its machine was deleted meanwhile.
                Err(error) if error.kind() == Some(RefusalKind::NotFound) => continue,
                Err(error) => {
                    report.failed.push((machine, revision, error));
                    continue;
                }
            }
            if policy.free_target.is_some() {
                self.reclaim()?;
            }
        }
        if !report.deleted.is_empty() {
            self.commit()?;
        }
        Ok(report)
    }

    /// Deletes a revision if the policy still selects it under the lock.
    fn prune_one(
        &self,
        machine: &MachineName,
        revision: Revision,
        policy: &PrunePolicy,
    ) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        if !plan([&view], policy).contains(&(machine.clone(), revision)) {
            return Ok(Change::Unchanged);
        }
        self.execute(machine, &Step::Delete(Entry::Revision(revision)))?;
        self.execute(machine, &Step::Unlink(Entry::Note(revision)))?;
        self.execute(machine, &Step::Unlink(Entry::ContentRecord(revision)))?;
        self.execute(machine, &Step::Unlink(Entry::Trial(revision)))?;
        Ok(Change::Changed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Subvolume, Uuid};

    fn view(name: &str, complete: &[bool], current: u32, pins: &[u32]) -> MachineView {
        let mut view = MachineView::new(name.parse().unwrap());
        for (number, complete) in (1..).zip(complete) {
            let subvolume = Subvolume {
                uuid: Uuid::nil(),
                parent_uuid: None,
                received_uuid: None,
                created_transaction: 0,
                transaction: 0,
                received_transaction: None,
                read_only: *complete,
                created: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(number)),
            };
            view.revisions.push(RevisionView {
                revision: Revision(number),
                uuid: subvolume.uuid,
                received_uuid: None,
                complete: *complete,
                subvolume,
            });
        }
        view.current = Some(Revision(current));
        view.pins = pins.iter().map(|pin| Revision(*pin)).collect();
        view
    }

    fn planned(views: &[MachineView], keep: usize, before: Option<u64>) -> Vec<(String, u32)> {
        let policy = PrunePolicy {
            keep,
            created_before: before.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s)),
            free_target: None,
        };
        plan(views, &policy)
            .into_iter()
            .map(|(machine, revision)| (machine.to_string(), revision.0))
            .collect()
    }

    #[test]
    fn the_oldest_revisions_are_selected_but_not_the_current_and_pinned_ones() {
        let complete = [true; 5];
        let a = |numbers: &[u32]| {
            numbers
                .iter()
                .map(|it| ("a".to_owned(), *it))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            planned(&[view("a", &complete, 5, &[])], 2, None),
            a(&[1, 2, 3])
        );
        assert_eq!(planned(&[view("a", &complete, 1, &[3])], 2, None), a(&[2]));
        assert_eq!(
            planned(&[view("a", &complete, 5, &[])], 0, None),
            a(&[1, 2, 3, 4])
        );
        assert_eq!(planned(&[view("a", &complete, 5, &[])], 9, None), a(&[]));
        assert_eq!(
            planned(&[view("a", &complete, 5, &[])], 1, Some(3)),
            a(&[1, 2])
        );
        // The clean-up deletes incomplete ones; they do not count here.
        let partly = [true, true, false, true, true];
        assert_eq!(planned(&[view("a", &partly, 5, &[])], 2, None), a(&[1, 2]));
    }

    #[test]
    fn revisions_of_all_machines_are_ordered_by_age() {
        let views = [view("b", &[true; 3], 3, &[]), view("a", &[true; 3], 3, &[])];
        let order = [("a", 1), ("b", 1), ("a", 2), ("b", 2)];
        let order: Vec<_> = order
            .iter()
            .map(|(name, it)| ((*name).to_owned(), *it))
            .collect();
        assert_eq!(planned(&views, 1, None), order);
    }

    #[test]
    fn a_machine_out_of_service_is_not_pruned() {
        let mut broken = view("a", &[true; 3], 3, &[]);
        broken.current = None;
        assert!(planned(&[broken], 0, None).is_empty());
    }
}
