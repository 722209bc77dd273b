//! Thinks: which copies boot of builds that are held, for people to look into.

use super::super::admission::{JobId, Refusal, Room};
use super::{Action, CopyTag, ImageKey, Observed};

impl Observed {
    /// Whoever wants to look into a copy is let in while there is room, and else told
    /// what there is none of; or waits on when a guest that is held can give way.
    pub(super) fn attaching(&self, room: &mut Room) -> Vec<Action> {
        let can_yield = self.jobs.held.values().any(|(_, guest)| *guest);
        let mut steps = Vec::new();
        for (tag, pair) in self.jobs.waiting_copies() {
            if let Some(words) = self.barred(pair) {
                steps.push(Action::TurnAway(tag, words));
                continue;
            }
            let copy = self.holding(JobId::Copy(tag), pair);
            match room.refuse(&copy.machine, copy.volume, &copy.demand) {
                None => {
                    room.hold(copy);
                    steps.push(Action::Attach(tag));
                }
                Some(refusal) if can_yield && !matches!(refusal, Refusal::Never { .. }) => {}
                Some(refusal) => steps.push(Action::TurnAway(tag, format!("for {refusal}"))),
            }
        }
        steps
    }

    /// The copies of machines that go.
    pub(super) fn detaching(&self) -> Vec<Action> {
        let begun = self.jobs.copies.iter().filter(|(_, (_, begun))| *begun);
        let gone = begun.filter(|(_, (pair, _))| self.is_leaving(pair));
        gone.map(|(tag, _)| Action::Detach(*tag)).collect()
    }

    /// Whether somebody waits for a guest that is held to give way.
    pub(super) fn awaits_copy(&self, starting: &[Action]) -> bool {
        let settled = |tag: CopyTag| {
            let mut steps = starting.iter();
            steps.any(
                |step| matches!(step, Action::Attach(it) | Action::TurnAway(it, _) if *it == tag),
            )
        };
        self.jobs.waiting_copies().any(|(tag, _)| !settled(tag))
    }

    /// Why no copy of a machine boots whatever room there is.
    fn barred(&self, pair: &ImageKey) -> Option<String> {
        let why = if let Some(drained) = &self.drained {
            drained.message()
        } else if self.is_leaving(pair) {
            format!("machine {} is being deleted", pair.machine)
        } else {
            self.halt(&pair.machine)?.clone()
        };
        Some(format!("because {why}"))
    }

    pub(super) fn is_leaving(&self, pair: &ImageKey) -> bool {
        let seen = self.machines.get(&pair.machine);
        seen.is_none_or(|seen| seen.view.deleting)
    }
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::queue::Drained;
    use jiff::Timestamp;

    use super::super::super::admission::{Capacity, ResourceRequest};
    use super::super::tests::{pair_of, ready};
    use super::*;

    const COPY: CopyTag = CopyTag {
        build: BuildId(42),
        number: 1,
    };

    /// A world with one free place of two, in which somebody wants to look into build 42.
    fn world() -> Observed {
        let mut world = ready(&["linux"]);
        let demand = ResourceRequest {
            cpus: 1,
            memory: 1024,
            ..ResourceRequest::default()
        };
        world.demands.insert(pair_of("linux"), demand);
        world.jobs.builds.insert(BuildId(50), pair_of("linux"));
        world.jobs.copies.insert(COPY, (pair_of("linux"), false));
        world
    }

    fn begun(mut world: Observed) -> Observed {
        world.jobs.copies.insert(COPY, (pair_of("linux"), true));
        world
    }

    #[test]
    fn a_copy_boots_while_there_is_room_and_takes_it_like_a_build() {
        assert_eq!(world().plan(), [Action::Attach(COPY)]);
        let world = begun(world());
        assert_eq!(world.plan(), []);
        let demand = world.demands[&pair_of("linux")];
        let refusal = world.room().refuse(&pair_of("linux").machine, 0, &demand);
        assert_eq!(refusal, Some(Refusal::Guests(2)));
    }

    #[test]
    fn somebody_is_turned_away_with_words() {
        let one = Capacity {
            guests: Some(1),
            ..world().capacity
        };
        let turned = |change: &dyn Fn(&mut Observed)| {
            let mut world = world();
            change(&mut world);
            match world.plan().pop() {
                Some(Action::TurnAway(COPY, words)) => words,
                other => panic!("{other:?}"),
            }
        };
        let full = turned(&|world| world.capacity = one.clone());
        assert_eq!(full, "for a guest: 1 of 1 run");
        let drained = turned(&|world| {
            let since = Timestamp::UNIX_EPOCH;
            let reason = String::new();
            world.drained = Some(Drained { since, reason });
        });
        assert_eq!(
            drained,
            "because the host is drained since 1970-01-01 00:00:00Z"
        );
        let short = turned(&|world| world.halt = Some("it is full".into()));
        assert_eq!(short, "because it is full");
        let leaving = turned(&|world| {
            let seen = world.machines.values_mut().next().unwrap();
            seen.view.deleting = true;
        });
        assert_eq!(leaving, "because machine linux is being deleted");
    }

    #[test]
    fn a_guest_that_is_held_gives_way_to_somebody_who_waits() {
        let mut world = world();
        world.capacity.guests = Some(1);
        world.jobs.builds.clear();
        let held = (pair_of("linux"), true);
        world.jobs.held.insert(BuildId(42), held);
        assert_eq!(world.plan(), [Action::GiveWay(BuildId(42))]);
        world
            .jobs
            .held
            .insert(BuildId(42), (pair_of("linux"), false));
        assert_eq!(world.plan(), [Action::Attach(COPY)]);
    }

    #[test]
    fn a_copy_goes_with_its_machine() {
        let mut world = begun(world());
        world.machines.values_mut().next().unwrap().view.deleting = true;
        assert!(world.plan().contains(&Action::Detach(COPY)));
    }
}
