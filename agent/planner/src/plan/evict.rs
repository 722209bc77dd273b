//! Eviction of holds when the host needs what they take.

use std::collections::BTreeSet;

use config::{BuildId, ImageKey};

use super::{Action, Observed, QueuedBuild};
use crate::JobId;
use crate::admission::{Allocation, ResourcePool};

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
        let ready: BTreeSet<_> = order.iter().collect();
        let mut waiting = self.queue.iter();
        let pool = self.pool_without_holds(starts);
        waiting.any(|queued| {
            ready.contains(&queued.id)
                && !builds.contains(&queued.id)
                && self.eviction_helps(queued, &pool)
        }) || self
            .missing_images()
            .iter()
            .any(|key| self.is_asked(key) && !images.contains(key))
            || self.has_waiting_debug_session(starts)
    }

    /// Returns the pool as it is once all holds have ended and these jobs have started.
    fn pool_without_holds(&self, starts: &[Action]) -> ResourcePool {
        let holds = self.jobs.holds.keys().map(|id| JobId::Build(*id));
        let mut pool = self.pool().without(&holds.collect());
        for action in starts {
            if let Action::StartBuild(start) = action {
                pool.allocate(Allocation {
                    job: JobId::Build(start.id),
                    machine: start.key.machine.clone(),
                    volume: start.volume,
                    request: start.request.clone(),
                });
            }
        }
        pool
    }

    /// Returns false if a build waits for a countable resource that no hold has.
    fn eviction_helps(&self, queued: &QueuedBuild, pool: &ResourcePool) -> bool {
        let reason = pool.check_together(&self.allocations_of(queued));
        reason.is_none_or(|reason| !reason.is_for_count())
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
    use config::builds::{Resources, StartKind, Submitter};
    use config::{MachineName, ResourceName};
    use store::{Located, MachineView, VolumeId};

    use super::*;
    use crate::BuildStart;
    use crate::ResourceRequest;
    use crate::RunningHold;
    use crate::plan::tests::queued;

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
            trial: None,
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
        let mut observed = observed();
        observed.queue = vec![queued(9, "linux")];
        let action = Action::StartBuild(start(9));
        assert_eq!(observed.evict_holds(&[action], &[BuildId(9)]), []);
        let actions = observed.evict_holds(&[], &[BuildId(9)]);
        assert_eq!(actions, [Action::EvictHold(BuildId(2))]);
    }

    #[test]
    fn no_hold_is_evicted_for_a_resource_that_none_has() {
        let name: ResourceName = "license".parse().unwrap();
        let resources: Resources = serde_json::from_str(r#"{"counts": {"license": 1}}"#).unwrap();
        let mut observed = observed();
        observed.capacity.counts.insert(name, 1);
        observed.jobs.builds.insert(BuildId(8), start(8).key);
        observed
            .jobs
            .resources
            .insert(BuildId(8), resources.clone());
        observed.queue = vec![QueuedBuild {
            resources: resources.clone(),
            ..queued(9, "linux")
        }];
        let order = [BuildId(9)];
        assert_eq!(observed.evict_holds(&[], &order), [], "build 8 has it");
        observed.jobs.builds.clear();
        observed.jobs.resources.clear();
        let mut taken = start(7);
        taken.request = taken.request.with(&resources);
        let starts = [Action::StartBuild(taken)];
        assert_eq!(observed.evict_holds(&starts, &order), [], "build 7 gets it");
        observed.jobs.resources.insert(BuildId(3), resources);
        let evicted = observed.evict_holds(&[], &order);
        assert_eq!(evicted, [Action::EvictHold(BuildId(2))], "a hold has it");
    }
}
