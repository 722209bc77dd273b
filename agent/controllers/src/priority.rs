//! The rules of priorities: in which order controllers are asked, which ones are not asked, and which
//! tasks are interrupted; pure.

use config::BuildId;
use config::controllers::ControllerPriority;

/// A task that waits or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningTask {
    /// Its build.
    pub build: BuildId,
    /// The priority of its controller.
    pub priority: ControllerPriority,
}

/// Returns true if a controller may be asked while these tasks run.
pub fn may_be_asked(priority: ControllerPriority, running: &[RunningTask]) -> bool {
    !running.iter().any(|task| task.priority.excludes(priority))
}

/// Returns the order in which controllers are asked, as indexes: higher ones first, and equal ones by
/// `draw`, which draws a random number for each.
pub fn order(priorities: &[ControllerPriority], mut draw: impl FnMut() -> u64) -> Vec<usize> {
    let mut keyed: Vec<_> = priorities
        .iter()
        .enumerate()
        .map(|(index, priority)| (std::cmp::Reverse(priority.preference()), draw(), index))
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, _, index)| index).collect()
}

/// The tasks that a task of a controller may interrupt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interruptible {
    /// All of these are interrupted.
    All(Vec<BuildId>),
    /// One of these, if its place is needed, the first one that helps.
    One(Vec<BuildId>),
}

/// Returns the tasks that a task of a controller of this priority may interrupt: the lowest first, and
/// of equal ones the newest, which loses the least work.
pub fn interruptible(priority: ControllerPriority, running: &[RunningTask]) -> Interruptible {
    let all = of(running, |task| priority.interrupts_all(task.priority));
    if !all.is_empty() {
        return Interruptible::All(all);
    }
    Interruptible::One(of(running, |task| priority.interrupts(task.priority)))
}

fn of(running: &[RunningTask], applies: impl Fn(&RunningTask) -> bool) -> Vec<BuildId> {
    let mut tasks: Vec<_> = running.iter().filter(|task| applies(task)).collect();
    tasks.sort_by_key(|task| (task.priority.preference(), std::cmp::Reverse(task.build)));
    tasks.into_iter().map(|task| task.build).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn priority(number: u32) -> ControllerPriority {
        number.try_into().unwrap()
    }

    fn running(tasks: &[(u64, u32)]) -> Vec<RunningTask> {
        let task = |(build, number): &(u64, u32)| RunningTask {
            build: BuildId(*build),
            priority: priority(*number),
        };
        tasks.iter().map(task).collect()
    }

    #[test]
    fn a_running_task_keeps_lower_controllers_from_being_asked() {
        for (number, tasks, expected) in [
            (0, vec![], true),
            (0, vec![9], true),
            (9, vec![10], false),
            (15, vec![10], true),
            (10, vec![20, 0], false),
            (100, vec![90], true),
            (90, vec![100], false),
            (999, vec![11000], false),
            (1000, vec![11000], true),
        ] {
            let tasks: Vec<_> = tasks.into_iter().map(|number| (1, number)).collect();
            let asked = may_be_asked(priority(number), &running(&tasks));
            assert_eq!(asked, expected, "{number} beside {tasks:?}");
        }
    }

    #[test]
    fn higher_controllers_are_asked_first_and_equal_ones_in_random_order() {
        let priorities = [0, 11000, 5, 1000, 5].map(priority);
        let mut ascending = 0..;
        let order_with = |draws: &[u64]| {
            let mut draws = draws.iter().copied();
            order(&priorities, || draws.next().unwrap())
        };
        assert_eq!(
            order(&priorities, || ascending.next().unwrap()),
            [1, 3, 2, 4, 0]
        );
        assert_eq!(order_with(&[0, 9, 7, 1, 3]), [3, 1, 4, 2, 0]);
    }

    #[test]
    fn level_c_interrupts_one_task_and_level_d_all() {
        let tasks = running(&[(1, 0), (2, 50), (3, 0), (4, 100), (5, 1000)]);
        let ids = |ids: &[u64]| ids.iter().copied().map(BuildId).collect::<Vec<_>>();
        for (number, expected) in [
            (0, Interruptible::One(vec![])),
            (99, Interruptible::One(vec![])),
            (100, Interruptible::One(ids(&[3, 1, 2]))),
            (200, Interruptible::One(ids(&[3, 1, 2, 4]))),
            (1000, Interruptible::All(ids(&[3, 1, 2, 4]))),
            (1100, Interruptible::All(ids(&[3, 1, 2, 4]))),
            (2000, Interruptible::All(ids(&[3, 1, 2, 4, 5]))),
        ] {
            assert_eq!(
                interruptible(priority(number), &tasks),
                expected,
                "{number}"
            );
        }
        let other = running(&[(7, 1000), (8, 1100)]);
        assert_eq!(
            interruptible(priority(1100), &other),
            Interruptible::One(ids(&[7]))
        );
    }

    proptest! {
        #[test]
        fn nobody_interrupts_its_equal_or_better(
            number in 0u32..10_000,
            others in proptest::collection::vec(0u32..10_000, 0..6),
        ) {
            let tasks: Vec<_> = (1u64..).zip(others).collect();
            let all = running(&tasks);
            let (Interruptible::All(ids) | Interruptible::One(ids)) =
                interruptible(priority(number), &all);
            for id in ids {
                let task = all.iter().find(|task| task.build == id).unwrap();
                prop_assert!(task.priority.preference() / 100 < number / 100);
                // Who may be interrupted does not keep the other from being asked.
                prop_assert!(may_be_asked(priority(number), &[*task]));
            }
        }
    }
}
