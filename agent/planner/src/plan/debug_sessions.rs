//! Admission of debug sessions in copies of held builds.

use config::{CopyTag, ImageKey};

use super::{Action, Observed};
use crate::JobId;
use crate::admission::ResourcePool;

impl Observed {
    /// Returns the answers to the debug sessions that wait: admitted while there are
    /// resources, else rejected with the reason. One that an eviction of a held guest can
    /// make room for waits on.
    pub(super) fn admit_debug_sessions(&self, pool: &mut ResourcePool) -> Vec<Action> {
        let can_evict = self.jobs.holds.values().any(|hold| hold.has_guest);
        let mut actions = Vec::new();
        for (tag, key) in self.jobs.waiting_debug_sessions() {
            if let Some(reason) = self.guests_barred(key) {
                actions.push(Action::RejectDebugSession(tag, reason));
                continue;
            }
            let allocation = self.allocation(JobId::Copy(tag), key);
            match pool.check(&allocation.machine, allocation.volume, &allocation.request) {
                None => {
                    pool.allocate(allocation);
                    actions.push(Action::AdmitDebugSession(tag));
                }
                Some(reason) if can_evict && !reason.is_final() => {}
                Some(reason) => {
                    actions.push(Action::RejectDebugSession(tag, format!("for {reason}")));
                }
            }
        }
        actions
    }

    /// Returns the ends of debug sessions whose machine is being deleted.
    pub(super) fn end_debug_sessions(&self) -> Vec<Action> {
        self.jobs
            .debug_sessions
            .iter()
            .filter(|(_, session)| session.admitted && self.is_being_deleted(&session.key))
            .map(|(tag, _)| Action::EndDebugSession(*tag))
            .collect()
    }

    /// Returns true if a debug session waits for the eviction of a held guest.
    pub(super) fn has_waiting_debug_session(&self, starts: &[Action]) -> bool {
        let is_answered = |tag: CopyTag| {
            starts.iter().any(|action| match action {
                Action::AdmitDebugSession(answered) | Action::RejectDebugSession(answered, _) => {
                    *answered == tag
                }
                _ => false,
            })
        };
        self.jobs
            .waiting_debug_sessions()
            .any(|(tag, _)| !is_answered(tag))
    }

    /// Returns the reason for which no debug session and no fork on an image starts, whatever
    /// resources there are.
    pub(super) fn guests_barred(&self, key: &ImageKey) -> Option<String> {
        let reason = if let Some(drained) = &self.drained {
            drained.message()
        } else if self.is_being_deleted(key) {
            format!("machine {} is being deleted", key.machine)
        } else {
            self.halt(&key.machine)?.clone()
        };
        Some(format!("because {reason}"))
    }

    pub(super) fn is_being_deleted(&self, key: &ImageKey) -> bool {
        let state = self.machines.get(&key.machine);
        state.is_none_or(|state| state.view.deleting)
    }
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::queue::Drained;
    use jiff::Timestamp;

    use config::builds::Submitter;
    use store::VolumeId;

    use super::*;
    use crate::admission::Unschedulable;
    use crate::plan::tests::{bootstrapped_machines, key_of};
    use crate::{Capacity, ResourceRequest};
    use crate::{RunningDebugSession, RunningHold};

    const COPY: CopyTag = CopyTag {
        build: BuildId(42),
        number: 1,
    };

    /// Observes one free guest slot of two, and a debug session of build 42 that waits.
    fn observed() -> Observed {
        let mut observed = bootstrapped_machines(&["linux"]);
        let request = ResourceRequest {
            cpus: 1,
            memory: 1024,
            ..ResourceRequest::default()
        };
        observed.requests.insert(key_of("linux"), request);
        observed.jobs.builds.insert(BuildId(50), key_of("linux"));
        session(observed, false)
    }

    fn session(mut observed: Observed, admitted: bool) -> Observed {
        let session = RunningDebugSession {
            key: key_of("linux"),
            submitter: Submitter::root(),
            since: Timestamp::UNIX_EPOCH,
            admitted,
        };
        observed.jobs.debug_sessions.insert(COPY, session);
        observed
    }

    fn hold(has_guest: bool) -> RunningHold {
        let key = key_of("linux");
        RunningHold { key, has_guest }
    }

    #[test]
    fn a_debug_session_is_admitted_and_allocated_like_a_build() {
        assert_eq!(observed().plan(), [Action::AdmitDebugSession(COPY)]);
        let observed = session(observed(), true);
        assert_eq!(observed.plan(), []);
        let request = observed.requests[&key_of("linux")].clone();
        let unschedulable = observed
            .pool()
            .check(&key_of("linux").machine, VolumeId(0), &request);
        assert_eq!(unschedulable, Some(Unschedulable::Guests(2)));
    }

    #[test]
    fn a_rejected_debug_session_gets_the_reason() {
        let one = Capacity {
            guests: Some(1),
            ..observed().capacity
        };
        let rejected = |change: &dyn Fn(&mut Observed)| {
            let mut observed = observed();
            change(&mut observed);
            match observed.plan().pop() {
                Some(Action::RejectDebugSession(COPY, reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        let full = rejected(&|observed| observed.capacity = one.clone());
        assert_eq!(full, "for a guest: 1 of 1 run");
        let drained = rejected(&|observed| {
            let since = Timestamp::UNIX_EPOCH;
            let reason = String::new();
            observed.drained = Some(Drained { since, reason });
        });
        assert_eq!(
            drained,
            "because the host is drained since 1970-01-01 00:00:00Z"
        );
        let short = rejected(&|observed| observed.halt = Some("it is full".into()));
        assert_eq!(short, "because it is full");
        let deleting = rejected(&|observed| {
            let seen = observed.machines.values_mut().next().unwrap();
            seen.view.deleting = true;
        });
        assert_eq!(deleting, "because machine linux is being deleted");
    }

    #[test]
    fn a_held_guest_is_evicted_for_a_debug_session() {
        let mut observed = observed();
        observed.capacity.guests = Some(1);
        observed.jobs.builds.clear();
        observed.jobs.holds.insert(BuildId(42), hold(true));
        assert_eq!(observed.plan(), [Action::EvictHold(BuildId(42))]);
        observed.jobs.holds.insert(BuildId(42), hold(false));
        assert_eq!(observed.plan(), [Action::AdmitDebugSession(COPY)]);
    }

    #[test]
    fn a_debug_session_ends_with_its_machine() {
        let mut observed = session(observed(), true);
        observed.machines.values_mut().next().unwrap().view.deleting = true;
        assert!(observed.plan().contains(&Action::EndDebugSession(COPY)));
    }
}
