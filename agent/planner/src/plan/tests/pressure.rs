//! Plans for a host under pressure.

use config::pressure::PressureKind;

use super::*;
use crate::RunningHold;
use crate::pressure::HighPressure;

const HIGH: HighPressure = HighPressure {
    kind: PressureKind::Memory,
    percent_max: 25,
};

/// Observes a host under pressure, with these queued builds of `linux`.
fn pressed(queue: std::ops::RangeInclusive<u64>) -> Observed {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed.capacity.guests = Some(4);
    observed.capacity.pressure = Some(HIGH);
    observed.queue = queue.map(|id| queued(id, "linux")).collect();
    observed
}

#[test]
fn under_pressure_one_build_starts_and_the_others_say_why_they_wait() {
    let observed = pressed(1..=2);
    let actions = observed.plan();
    assert_eq!(builds(&actions), [1]);
    let reason = "for less memory pressure on the host: it rose above 25 %, and no guest starts beside another one until it has fallen below 12.5 %; build 1 has a guest";
    assert_eq!(actions[1], Action::SetWaitReason(BuildId(2), reason.into()));
    let notice = observed.pressure_notice().unwrap();
    assert!(
        notice.contains("guests.memory_pressure_percent_max"),
        "{notice}"
    );
    assert_eq!(observed.notices(), [""; 0], "builds still start");
}

#[test]
fn a_held_guest_is_evicted_for_a_build_that_pressure_keeps_waiting() {
    let mut observed = pressed(9..=9);
    let hold = RunningHold {
        key: key_of("linux"),
        has_guest: true,
    };
    observed.jobs.holds.insert(BuildId(1), hold);
    assert!(observed.plan().contains(&Action::EvictHold(BuildId(1))));
}

#[test]
fn an_unasked_bootstrap_yields_to_a_build_that_pressure_keeps_waiting() {
    let mut observed = pressed(9..=9);
    let located = machine("new");
    observed.machines.insert("new".parse().unwrap(), located);
    let inputs = observed.inputs(&key_of("new")).unwrap();
    observed.jobs.images.insert(key_of("new"), inputs);
    observed.jobs.unasked.insert(key_of("new"));
    let actions = observed.plan();
    assert_eq!(actions[0], Action::YieldBootstrap(key_of("new")));
    assert_eq!(
        builds(&actions),
        [0; 0],
        "it starts when the guest has ended"
    );
}

proptest! {
    #[test]
    fn under_pressure_no_guest_starts_beside_another_and_one_always_runs(
        images in prop::collection::vec(any::<bool>(), 1..4),
        queue in prop::collection::vec(0usize..4, 0..8),
        running in 0u64..4,
    ) {
        let mut observed = some_bootstrapped(&images);
        observed.capacity.guests = None;
        observed.queue = queue.iter().zip(10..).map(|(m, id)| queued(id, &format!("m{m}"))).collect();
        observed.jobs.builds = (1..=running).map(|id| (BuildId(id), key_of("m0"))).collect();
        let started = |observed: &Observed| {
            let actions = observed.plan();
            builds(&actions).len() + bootstraps(&actions)
        };
        let could = started(&observed);
        observed.capacity.pressure = Some(HIGH);
        let expected = if running > 0 { 0 } else { could.min(1) };
        prop_assert_eq!(started(&observed), expected);
        let actions = observed.plan();
        let ends_a_running_build = actions.iter().any(|action| match action {
            Action::Abort(id, _) | Action::Skip(id, _) => id.0 <= running,
            _ => false,
        });
        prop_assert!(!ends_a_running_build);
    }
}
