//! Eviction of holds when the host needs what they take.

use std::collections::BTreeSet;

use config::{BuildId, ImageKey};

use super::{Action, Observed};

impl Observed {
    /// Returns the holds to release or evict: all on a volume under disk pressure or of
    /// a machine that is being deleted, the oldest beyond `held_max`, and otherwise one
    /// guest if a build of `order`, a bootstrap or a debug session is not among `starts`.
    /// Bootstraps that nobody asked for yield before a hold is evicted, and evict none.
    pub(super) fn evict_holds(&self, starts: &[Action], order: &[BuildId]) -> Vec<Action> {
        let released = self.holds_to_release();
        let yields = |action: &Action| matches!(action, Action::YieldBootstrap(_));
        if starts.iter().any(yields) {
            return released.into_iter().map(Action::ReleaseHold).collect();
        }
        if released.is_empty() && self.is_waiting(starts, order) {
            let oldest_guest = self.jobs.holds.iter().find(|(_, hold)| hold.has_guest);
            return oldest_guest
                .map(|(id, _)| Action::EvictHold(*id))
                .into_iter()
                .collect();
        }
        released.into_iter().map(Action::ReleaseHold).collect()
    }

    /// Returns true if a build, a bootstrap or a debug session waits for resources.
    fn is_waiting(&self, starts: &[Action], order: &[BuildId]) -> bool {
        let mut builds = BTreeSet::new();
        let mut images: BTreeSet<&ImageKey> = BTreeSet::new();
        for action in starts {
            match action {
                Action::StartBuild(start) => drop(builds.insert(start.id)),
                Action::StartBootstrap(start) => drop(images.insert(&start.key)),
                _ => {}
            }
        }
        order.iter().any(|id| !builds.contains(id))
            || self
                .missing_images()
                .iter()
                .any(|key| self.is_asked(key) && !images.contains(key))
            || self.has_waiting_debug_session(starts)
    }

    fn holds_to_release(&self) -> BTreeSet<BuildId> {
        let mut released = BTreeSet::new();
        let mut kept = Vec::new();
        for (id, hold) in &self.jobs.holds {
            if self.halt(&hold.key.machine).is_some() || self.is_being_deleted(&hold.key) {
                released.insert(*id);
            } else {
                kept.push(*id);
            }
        }
        let most = self.held_max.unwrap_or(usize::MAX);
        let beyond = kept.len().saturating_sub(most);
        released.extend(&kept[..beyond]);
        released
    }
}

#[cfg(test)]
mod tests {
    use config::MachineName;
    use config::builds::{StartKind, Submitter};
    use store::{Located, MachineView, VolumeId};

    use super::*;
    use crate::BuildStart;
    use crate::ResourceRequest;
    use crate::RunningHold;

    fn start(id: u64) -> BuildStart {
        BuildStart {
            id: BuildId(id),
            key: ImageKey {
                machine: "linux".parse().unwrap(),
                toolchain: "default".parse().unwrap(),
            },
            submitter: Submitter::root(),
            volume: VolumeId(0),
            image: None,
            start: StartKind::Cold,
            request: ResourceRequest::default(),
        }
    }

    /// Observes holds of builds 1 to 3, the last two with a guest.
    fn observed() -> Observed {
        let machine: MachineName = "linux".parse().unwrap();
        let key = ImageKey {
            machine: machine.clone(),
            toolchain: "default".parse().unwrap(),
        };
        let view = MachineView::new(machine.clone());
        let mut observed = Observed::default();
        observed.machines.insert(
            machine,
            Located {
                volume: VolumeId(0),
                view,
            },
        );
        for (id, has_guest) in [(1, false), (2, true), (3, true)] {
            let key = key.clone();
            observed
                .jobs
                .holds
                .insert(BuildId(id), RunningHold { key, has_guest });
        }
        observed
    }

    fn released(observed: &Observed) -> Vec<u64> {
        let actions = observed.evict_holds(&[], &[]);
        let id = |action: &Action| match action {
            Action::ReleaseHold(id) => id.0,
            other => panic!("{other:?}"),
        };
        actions.iter().map(id).collect()
    }

    #[test]
    fn the_oldest_holds_beyond_the_limit_are_released() {
        let mut observed = observed();
        assert_eq!(released(&observed), [0; 0]);
        for (most, expected) in [(3, &[][..]), (2, &[1]), (1, &[1, 2]), (0, &[1, 2, 3])] {
            observed.held_max = Some(most);
            assert_eq!(released(&observed), expected);
        }
    }

    #[test]
    fn all_holds_are_released_under_disk_pressure_or_without_their_machine() {
        let mut short = observed();
        let reason = "it is nearly full".into();
        short.halted_volumes.insert(VolumeId(0), reason);
        let mut gone = observed();
        gone.machines.clear();
        for observed in [short, gone] {
            assert_eq!(released(&observed), [1, 2, 3]);
        }
    }

    #[test]
    fn one_held_guest_is_evicted_for_a_build_that_lacks_resources() {
        let observed = observed();
        let action = Action::StartBuild(start(9));
        assert_eq!(observed.evict_holds(&[action], &[BuildId(9)]), []);
        let actions = observed.evict_holds(&[], &[BuildId(9)]);
        assert_eq!(actions, [Action::EvictHold(BuildId(2))]);
    }
}
