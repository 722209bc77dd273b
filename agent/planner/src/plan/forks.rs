//! Admission of forks of running builds: all copies at once, or none.

use super::{Action, Observed};
use crate::JobId;
use crate::admission::ResourcePool;

impl Observed {
    /// Returns the answers to the forks that wait. A fork is of an instant, so none waits for
    /// resources: it is admitted if all its copies fit now, else rejected with the reason.
    pub(super) fn admit_forks(&self, pool: &mut ResourcePool) -> Vec<Action> {
        let waiting = self.jobs.forks.iter().filter(|(_, fork)| !fork.admitted);
        let mut actions = Vec::new();
        for (id, fork) in waiting {
            if let Some(reason) = self.guests_barred(&fork.key) {
                actions.push(Action::RejectFork(*id, reason));
                continue;
            }
            let mut admitted = pool.clone();
            let lacking = (0..fork.copies).find_map(|started| {
                let copy = self.allocation(JobId::Fork(*id), &fork.key);
                let lacking = admitted.check(&copy.machine, copy.volume, &copy.request);
                admitted.allocate(copy);
                lacking.map(|reason| (started, reason))
            });
            actions.push(match lacking {
                None => {
                    *pool = admitted;
                    Action::AdmitFork(*id)
                }
                Some((room, reason)) => {
                    let copies = fork.copies;
                    let reason = format!("there is room for {room} of {copies} copies; the next one would wait for {reason}");
                    Action::RejectFork(*id, reason)
                }
            });
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::queue::Drained;
    use jiff::Timestamp;
    use store::{SnapshotView, VolumeId};

    use super::*;
    use crate::plan::tests::{bootstrapped_machines, key_of};
    use crate::{ResourceRequest, RunningFork};

    const BUILD: BuildId = BuildId(42);

    /// Observes a host with room for four guests, on which build 42 runs and is to be forked.
    fn observed(copies: u32) -> Observed {
        let mut observed = bootstrapped_machines(&["linux"]);
        observed.capacity.guests = Some(4);
        let request = ResourceRequest {
            cpus: 1,
            memory: 1,
            ..ResourceRequest::default()
        };
        observed.capacity.cpus = 8;
        observed.requests.insert(key_of("linux"), request);
        observed.jobs.builds.insert(BUILD, key_of("linux"));
        let fork = RunningFork {
            key: key_of("linux"),
            copies,
            admitted: false,
        };
        observed.jobs.forks.insert(BUILD, fork);
        observed
    }

    #[test]
    fn a_fork_is_admitted_if_all_copies_fit_and_then_takes_their_room() {
        let mut fits = observed(3);
        assert_eq!(fits.plan(), [Action::AdmitFork(BUILD)]);
        fits.jobs.forks.get_mut(&BUILD).unwrap().admitted = true;
        assert_eq!(fits.plan(), []);
        assert_eq!(fits.jobs.guests().count(), 4);
        let reason =
            "there is room for 3 of 4 copies; the next one would wait for a guest: 4 of 4 run";
        let rejected = Action::RejectFork(BUILD, reason.to_owned());
        assert_eq!(observed(4).plan(), [rejected]);
    }

    #[test]
    fn a_rejected_fork_leaves_its_room_to_others() {
        let mut both = observed(4);
        let other = RunningFork {
            copies: 2,
            ..both.jobs.forks[&BUILD].clone()
        };
        both.jobs.forks.insert(BuildId(43), other);
        let plan = both.plan();
        assert!(matches!(plan[0], Action::RejectFork(BUILD, _)), "{plan:?}");
        assert_eq!(plan[1..], [Action::AdmitFork(BuildId(43))]);
    }

    #[test]
    fn snapshots_of_copies_are_no_orphans_while_a_build_is_forked() {
        let mut forking = observed(1);
        forking.jobs.forks.get_mut(&BUILD).unwrap().admitted = true;
        forking.newest_build = Some(BuildId(43));
        let state = forking.machines.values_mut().next().unwrap();
        for tag in ["43", "42-f"] {
            state.view.snapshots.push(SnapshotView {
                toolchain: key_of("linux").toolchain,
                tag: tag.parse().unwrap(),
                in_use: false,
            });
        }
        assert_eq!(forking.plan(), []);
        forking.jobs.forks.clear();
        let orphans = ["43", "42-f"]
            .map(|tag| Action::DeleteSnapshot(VolumeId(0), key_of("linux"), tag.parse().unwrap()));
        assert_eq!(forking.plan(), orphans);
    }

    #[test]
    fn a_drained_host_forks_nothing() {
        let mut drained = observed(1);
        drained.drained = Some(Drained {
            since: Timestamp::UNIX_EPOCH,
            reason: String::new(),
        });
        let plan = drained.plan();
        assert!(
            matches!(plan[..], [Action::RejectFork(BUILD, _)]),
            "{plan:?}"
        );
    }
}
