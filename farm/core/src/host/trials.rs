//! The trials of a farm on a host.

use config::MachineName;

use super::{Effect, HostAgent};
use crate::Moment;
use crate::trials::{HostTrial, TrialNumber, TrialOrder};

impl HostAgent {
    /// Begins a trial, or ends it. Coordinators may answer with what they read before, so that only a higher
    /// number begins another trial, and only the reason of a rollback ends one.
    pub(super) fn ordered(
        &mut self,
        machine: MachineName,
        order: TrialOrder,
        effects: &mut Vec<Effect>,
    ) {
        let last = self.trials.get(&machine);
        if order.rolled_back.is_some() {
            // A machine has one trial: a later one ends those that this host has not heard the end of. After a
            // start, one may be on the disk that was not seen yet.
            if last.is_none_or(|it| it.is_open && it.number <= order.number) {
                let (number, is_open) = (order.number, false);
                let trial = HostTrial { number, is_open };
                self.trials.insert(machine.clone(), trial);
                effects.push(Effect::EndTrial(machine, order));
            }
            return;
        }
        let is_new = last.is_none_or(|it| it.number < order.number);
        let current = self.revisions.get(&machine);
        let is_newer = current.is_some_and(|it| *it < order.candidate.revision);
        if is_new && is_newer && self.fetching.insert(machine.clone()) {
            effects.push(Effect::Try(machine, order));
        }
    }

    /// Notes that a trial is on disk.
    pub(super) fn tried(&mut self, now: Moment, machine: MachineName, number: TrialNumber) {
        self.fetching.remove(&machine);
        let is_open = true;
        self.trials.insert(machine, HostTrial { number, is_open });
        self.poll_soon(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{agent, poll};
    use super::super::{Input, PollAnswer};
    use super::*;
    use crate::{Published, Revision};

    fn machine() -> MachineName {
        "linux".parse().unwrap()
    }

    fn order(number: u64, revision: u64, rolled_back: Option<&str>) -> TrialOrder {
        TrialOrder {
            number: TrialNumber(number),
            candidate: Published {
                revision: Revision(revision),
                content: None,
            },
            rolled_back: rolled_back.map(str::to_owned),
        }
    }

    /// Answers a poll of the host, and returns the effects on machines.
    fn told(
        agent: &mut HostAgent,
        now: u64,
        published: u64,
        trial: Option<TrialOrder>,
    ) -> Vec<Effect> {
        let id = poll(agent, now);
        let published = Published {
            revision: Revision(published),
            content: None,
        };
        let answer = PollAnswer {
            id,
            leases: Vec::new(),
            published: BTreeMap::from([(machine(), published)]),
            trials: trial.map(|it| (machine(), it)).into_iter().collect(),
            transfers: Vec::new(),
        };
        agent.step(Moment(now), Input::Answered(answer))
    }

    #[test]
    fn a_trial_begins_once_and_ends_with_its_reason() {
        let mut agent = agent();
        let open = order(1, 2, None);
        let first = told(&mut agent, 0, 0, Some(open.clone()));
        assert_eq!(first, [], "it does not have the machine");
        agent.step(Moment(0), Input::Fetched(machine(), Revision(1)));
        let begin = [Effect::Try(machine(), open.clone())];
        assert_eq!(told(&mut agent, 100, 1, Some(open.clone())), begin);
        assert_eq!(told(&mut agent, 200, 1, Some(open.clone())), [], "fetching");
        agent.step(Moment(200), Input::NotFetched(machine()));
        assert_eq!(told(&mut agent, 300, 1, Some(open.clone())), begin);
        agent.step(Moment(300), Input::Tried(machine(), TrialNumber(1)));
        assert_eq!(told(&mut agent, 400, 1, Some(open.clone())), []);
        assert_eq!(told(&mut agent, 500, 1, None), [], "absence tells nothing");
        let ended = order(1, 2, Some("it failed"));
        let end = [Effect::EndTrial(machine(), ended.clone())];
        assert_eq!(told(&mut agent, 600, 1, Some(ended.clone())), end);
        assert_eq!(told(&mut agent, 700, 1, Some(ended)), []);
        assert_eq!(told(&mut agent, 800, 1, Some(open)), [], "an old answer");
        let again = order(2, 2, None);
        let begin = [Effect::Try(machine(), again.clone())];
        assert_eq!(told(&mut agent, 900, 1, Some(again)), begin);
    }

    #[test]
    fn the_end_of_a_later_trial_ends_an_earlier_one() {
        let mut agent = agent();
        agent.step(Moment(0), Input::Fetched(machine(), Revision(1)));
        agent.step(Moment(0), Input::Tried(machine(), TrialNumber(1)));
        let ended = order(2, 3, Some("it failed"));
        let end = [Effect::EndTrial(machine(), ended.clone())];
        assert_eq!(told(&mut agent, 100, 1, Some(ended)), end);
    }

    #[test]
    fn the_end_of_a_trial_is_noted_that_was_not_seen_after_a_start() {
        let mut agent = agent();
        let ended = order(1, 2, Some("it failed"));
        let end = [Effect::EndTrial(machine(), ended.clone())];
        assert_eq!(told(&mut agent, 100, 0, Some(ended.clone())), end);
        assert_eq!(told(&mut agent, 200, 0, Some(ended)), []);
    }

    #[test]
    fn a_promotion_makes_the_revision_current() {
        let mut agent = agent();
        agent.step(Moment(0), Input::Fetched(machine(), Revision(1)));
        let open = order(1, 2, None);
        told(&mut agent, 100, 1, Some(open.clone()));
        agent.step(Moment(100), Input::Tried(machine(), TrialNumber(1)));
        let promotion = told(&mut agent, 200, 2, None);
        assert!(matches!(promotion[..], [Effect::Fetch(_, _)]));
        agent.step(Moment(200), Input::Fetched(machine(), Revision(2)));
        assert_eq!(told(&mut agent, 300, 2, Some(open)), [], "an old answer");
    }
}
