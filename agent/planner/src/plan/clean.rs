//! Deletions in the directories of machines.

use std::collections::BTreeSet;

use config::{GuestTag, ImageKey, MachineName, Revision, Tag};
use store::VolumeId;
use store::prune::{self, PrunePolicy};

use super::{Action, Observed, key};

impl Observed {
    /// Returns the deletions of everything that belongs to no job and no toolchain.
    pub(super) fn clean(&self) -> Vec<Action> {
        let deleting: BTreeSet<_> = self
            .machines
            .values()
            .filter(|state| state.view.deleting)
            .map(|state| state.volume)
            .collect();
        let mut actions: Vec<_> = deleting.into_iter().map(Action::FinishDeletions).collect();
        actions.extend(self.obsolete_trial_images());
        for state in self.machines.values().filter(|state| !state.view.deleting) {
            for snapshot in state.view.snapshots.iter().filter(|it| !it.in_use) {
                let key = key(&state.view, &snapshot.toolchain);
                if self.is_orphan(&key, &snapshot.tag) {
                    actions.push(Action::DeleteSnapshot(
                        state.volume,
                        key,
                        snapshot.tag.clone(),
                    ));
                }
            }
            // Without any toolchain, their directory is more likely not mounted.
            if self.toolchains.is_empty() {
                continue;
            }
            for image in &state.view.images {
                if !self.toolchains.contains_key(&image.toolchain) {
                    actions.push(Action::DeleteImage(
                        state.volume,
                        key(&state.view, &image.toolchain),
                    ));
                }
            }
        }
        actions
    }

    /// Returns the deletions of old revisions that the retention rule allows.
    pub(super) fn prune(&self) -> Vec<Action> {
        let Some(rule) = &self.retention else {
            return Vec::new();
        };
        let volumes: BTreeSet<_> = self.machines.values().map(|it| it.volume).collect();
        volumes
            .into_iter()
            .filter(|volume| !self.jobs.pruning.contains(volume))
            .filter_map(|volume| self.prune_volume(volume, rule))
            .collect()
    }

    fn prune_volume(&self, volume: VolumeId, rule: &PrunePolicy) -> Option<Action> {
        let free = self.free.get(&volume).copied().unwrap_or(u64::MAX);
        if rule.free_target.is_some_and(|enough| free >= enough) {
            return None;
        }
        let views = self
            .machines
            .values()
            .filter(|state| state.volume == volume)
            .map(|state| &state.view);
        let mut chosen = prune::plan(views, rule);
        chosen.retain(|(machine, revision)| !self.is_being_bootstrapped(machine, *revision));
        // The space that a revision frees is known only after its deletion.
        chosen.truncate(rule.free_target.map_or(usize::MAX, |_| 1));
        (!chosen.is_empty()).then_some(Action::Prune(volume, chosen))
    }

    /// Returns true if an image is being made from a revision.
    fn is_being_bootstrapped(&self, machine: &MachineName, revision: Revision) -> bool {
        let state = self.machines.get(machine);
        let uuid = state.and_then(|state| Some(state.view.revision(revision)?.uuid.to_string()));
        self.jobs.images.iter().any(|(key, inputs)| {
            key.machine == *machine && Some(&inputs.revision_uuid) == uuid.as_ref()
        })
    }

    /// Returns true if an unused snapshot was made by an agent for a job that has ended.
    fn is_orphan(&self, key: &ImageKey, tag: &Tag) -> bool {
        let jobs = &self.jobs;
        match tag.as_str().parse() {
            Ok(GuestTag::Build(id)) => {
                let used = jobs.builds.contains_key(&id) || jobs.holds.contains_key(&id);
                // The snapshots of copies are taken before these are among the builds.
                Some(id) <= self.newest_build && !used && jobs.forks.is_empty()
            }
            Ok(GuestTag::Copy(copy)) => {
                Some(copy.build) <= self.newest_build && !jobs.debug_sessions.contains_key(&copy)
            }
            Ok(GuestTag::Auxiliary(auxiliary)) => {
                let used = jobs.builds.contains_key(&auxiliary.build);
                Some(auxiliary.build) <= self.newest_build && !used
            }
            // The agent has those of ready guests in use.
            Ok(GuestTag::Ready(_)) => true,
            Ok(GuestTag::Fork(id)) => {
                Some(id) <= self.newest_build && !jobs.forks.contains_key(&id)
            }
            Ok(GuestTag::Bootstrap(_)) | Err(_) => {
                *tag == Tag::bootstrap() && !jobs.images.contains_key(key)
            }
        }
    }
}
