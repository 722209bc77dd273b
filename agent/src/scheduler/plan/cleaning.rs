//! Thinks: what goes from the directories of machines.

use std::collections::BTreeSet;

use config::{MachineName, Revision, Tag};
use store::{ImageView, prune};

use super::{Action, ImageKey, MachineState, Observed, pair};
use crate::state::guest_tag::GuestTag;

impl Observed {
    /// What nothing accounts for, or nobody needs.
    pub(super) fn cleaning(&self) -> Vec<Action> {
        let leaving = self.machines.values().filter(|seen| seen.view.deleting);
        let volumes: BTreeSet<_> = leaving.map(|seen| seen.volume).collect();
        let mut steps: Vec<_> = volumes.into_iter().map(Action::FinishDeletions).collect();
        for MachineState { view, .. } in self.machines.values().filter(|seen| !seen.view.deleting) {
            for snapshot in view.snapshots.iter().filter(|snapshot| !snapshot.in_use) {
                let pair = pair(view, &snapshot.toolchain);
                if self.is_stray(&pair, &snapshot.tag) {
                    steps.push(Action::DropSnapshot(pair, snapshot.tag.clone()));
                }
            }
            // No toolchain at all is more likely a directory that is not mounted.
            let gone = |image: &&ImageView| !self.toolchains.contains_key(&image.toolchain);
            for image in view
                .images
                .iter()
                .filter(gone)
                .filter(|_| !self.toolchains.is_empty())
            {
                steps.push(Action::DropImage(pair(view, &image.toolchain)));
            }
        }
        steps
    }

    /// The revisions that the settings let go. Where room decides, one at a time: how
    /// much one gives back is seen only when it is gone.
    pub(super) fn pruning(&self) -> Vec<Action> {
        let Some(rule) = &self.retention else {
            return Vec::new();
        };
        let volumes: BTreeSet<_> = self.machines.values().map(|seen| seen.volume).collect();
        let busy = |volume: &usize| self.jobs.pruning.contains(volume);
        let step = |volume| {
            let free = self.free.get(&volume).copied().unwrap_or(u64::MAX);
            if rule.until_free.is_some_and(|enough| free >= enough) {
                return None;
            }
            let seen = self.machines.values().filter(|seen| seen.volume == volume);
            let mut chosen = prune::plan(seen.map(|seen| &seen.view), rule);
            chosen.retain(|(machine, revision)| !self.is_bootstrapped(machine, *revision));
            chosen.truncate(rule.until_free.map_or(usize::MAX, |_| 1));
            (!chosen.is_empty()).then_some(Action::Prune(volume, chosen))
        };
        let idle = volumes.into_iter().filter(|volume| !busy(volume));
        idle.filter_map(step).collect()
    }

    /// Whether an image is being made from a revision.
    fn is_bootstrapped(&self, machine: &MachineName, revision: Revision) -> bool {
        let view = self.machines.get(machine).map(|seen| &seen.view);
        let uuid = view.and_then(|view| Some(view.revision(revision)?.uuid.to_string()));
        let mut running = self.jobs.bootstraps.iter();
        running.any(|(pair, made)| {
            pair.machine == *machine && Some(&made.revision_uuid) == uuid.as_ref()
        })
    }

    /// Whether a snapshot that nobody holds is one that we made.
    fn is_stray(&self, pair: &ImageKey, tag: &Tag) -> bool {
        match tag.as_str().parse() {
            Ok(GuestTag::Build(id)) => {
                let used = self.jobs.builds.contains_key(&id) || self.jobs.held.contains_key(&id);
                Some(id) <= self.newest && !used
            }
            Ok(GuestTag::Copy(copy)) => {
                Some(copy.build) <= self.newest && !self.jobs.copies.contains_key(&copy)
            }
            Ok(GuestTag::Bootstrap(_)) | Err(_) => {
                *tag == Tag::bootstrap() && !self.jobs.bootstraps.contains_key(pair)
            }
        }
    }
}
