//! Thinks: what is held for a person gives way to what the host needs.

use std::collections::BTreeSet;

use config::BuildId;

use super::{Action, ImageKey, Observed};

impl Observed {
    /// What is let go of: everything where there is too little room, or of a machine
    /// that goes; the oldest where more is held than may be; and one guest when a
    /// candidate in `order`, an image or somebody who wants to look into a copy waits
    /// for more than is in `starting`.
    pub(super) fn yielding(&self, starting: &[Action], order: &[BuildId]) -> Vec<Action> {
        let gone = self.unwanted();
        let stay = self.jobs.held.iter().filter(|(id, _)| !gone.contains(id));
        let mut guests = stay.filter(|(_, (_, guest))| *guest);
        let mut steps: Vec<_> = gone.iter().map(|id| Action::Release(**id)).collect();
        let waits = |id: &BuildId| !starting.contains(&Action::Build(*id));
        let made = |pair: &ImageKey| {
            let mut steps = starting.iter();
            steps.any(|step| matches!(step, Action::Bootstrap(it, _) if it == pair))
        };
        let awaited = order.iter().any(waits)
            || self.needed().iter().any(|pair| !made(pair))
            || self.awaits_copy(starting);
        if steps.is_empty()
            && awaited
            && let Some((oldest, _)) = guests.next()
        {
            steps.push(Action::GiveWay(*oldest));
        }
        steps
    }

    /// The builds of which nothing is to be held any more.
    fn unwanted(&self) -> BTreeSet<&BuildId> {
        let goes = |pair: &ImageKey| self.halt(&pair.machine).is_some() || self.is_leaving(pair);
        let held = self.jobs.held.iter();
        let mut gone: BTreeSet<_> = held
            .filter(|(_, (pair, _))| goes(pair))
            .map(|(id, _)| id)
            .collect();
        let most = self.held_max.unwrap_or(usize::MAX);
        let beyond = (self.jobs.held.len() - gone.len()).saturating_sub(most);
        let stay = self.jobs.held.keys().filter(|id| !gone.contains(id));
        let oldest: Vec<_> = stay.take(beyond).collect();
        gone.extend(oldest);
        gone
    }
}

#[cfg(test)]
mod tests {
    use config::MachineName;
    use store::MachineView;

    use super::super::MachineState;
    use super::*;

    /// A world in which something is held of builds 1 to 3, a guest of the last two.
    fn world() -> Observed {
        let machine: MachineName = "linux".parse().unwrap();
        let pair = ImageKey {
            machine: machine.clone(),
            toolchain: "default".parse().unwrap(),
        };
        let view = MachineView::new(machine.clone());
        let mut world = Observed::default();
        world
            .machines
            .insert(machine, MachineState { volume: 0, view });
        let held = [(1, false), (2, true), (3, true)];
        let held = held.map(|(id, guest)| (BuildId(id), (pair.clone(), guest)));
        world.jobs.held = held.into();
        world
    }

    fn released(world: &Observed) -> Vec<u64> {
        let steps = world.yielding(&[], &[]);
        let id = |step: &Action| match step {
            Action::Release(id) => id.0,
            other => panic!("{other:?}"),
        };
        steps.iter().map(id).collect()
    }

    #[test]
    fn the_oldest_goes_when_more_is_held_than_may_be() {
        let mut world = world();
        assert_eq!(released(&world), [0; 0]);
        for (most, expected) in [(3, &[][..]), (2, &[1]), (1, &[1, 2]), (0, &[1, 2, 3])] {
            world.held_max = Some(most);
            assert_eq!(released(&world), expected);
        }
    }

    #[test]
    fn all_goes_where_there_is_no_room_or_no_machine() {
        let mut short = world();
        short.halted.insert(0, "it is nearly full".into());
        let mut gone = world();
        gone.machines.clear();
        for world in [short, gone] {
            assert_eq!(released(&world), [1, 2, 3]);
        }
    }

    #[test]
    fn one_guest_gives_way_to_a_build_that_could_start_else() {
        let world = world();
        let step = Action::Build(BuildId(9));
        assert_eq!(world.yielding(&[step], &[BuildId(9)]), []);
        let steps = world.yielding(&[], &[BuildId(9)]);
        assert_eq!(steps, [Action::GiveWay(BuildId(2))]);
    }
}
