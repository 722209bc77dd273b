//! The order of bootstraps and builds, and the bootstraps that yield.

use super::*;

/// Observes images of `linux` and others that are missing, and a host with this number of
/// guest slots.
fn host(missing: &[&str], slots: usize) -> Observed {
    let mut observed = bootstrapped_machines(&["linux"]);
    for name in missing {
        let located = machine(name);
        observed.machines.insert(name.parse().unwrap(), located);
    }
    observed.capacity.guests = Some(slots);
    observed
}

/// Lets the unasked bootstraps of these machines run.
fn run_unasked(observed: &mut Observed, machines: &[&str]) {
    for name in machines {
        let key = key_of(name);
        let inputs = observed.inputs(&key).unwrap();
        observed.jobs.images.insert(key.clone(), inputs);
        observed.jobs.unasked.insert(key);
    }
}

fn bootstrapped_by(actions: &[Action]) -> Vec<(String, bool)> {
    let start = |action: &Action| match action {
        Action::StartBootstrap(start) => Some((start.key.machine.to_string(), start.unasked)),
        _ => None,
    };
    actions.iter().filter_map(start).collect()
}

fn yields(actions: &[Action]) -> Vec<String> {
    let key = |action: &Action| match action {
        Action::YieldBootstrap(key) => Some(key.machine.to_string()),
        _ => None,
    };
    actions.iter().filter_map(key).collect()
}

#[test]
fn the_image_that_the_first_build_waits_for_is_made_first() {
    let mut observed = host(&["a", "b", "c"], 1);
    observed.queue = vec![queued(1, "c"), queued(2, "b")];
    assert_eq!(bootstrapped_by(&observed.plan()), [("c".to_owned(), false)]);
    observed.queue[1].priority = Priority(1);
    assert_eq!(bootstrapped_by(&observed.plan()), [("b".to_owned(), false)]);
    observed.queue.clear();
    assert_eq!(bootstrapped_by(&observed.plan()), [("a".to_owned(), true)]);
}

#[test]
fn a_missing_image_comes_before_one_that_is_only_out_of_date() {
    let mut observed = host(&["z"], 1);
    let toolchains = &mut observed.toolchains;
    toolchains.insert(toolchain("default"), digest('b'));
    observed.queue = vec![queued(1, "linux"), queued(2, "z")];
    assert_eq!(bootstrapped_by(&observed.plan()), [("z".to_owned(), false)]);
}

#[test]
fn unasked_bootstraps_start_behind_all_builds_and_say_why_they_wait() {
    let mut observed = host(&["a"], 2);
    observed.queue = (1..=3).map(|id| queued(id, "linux")).collect();
    let decision = observed.decide();
    assert_eq!(
        (bootstraps(&decision.actions), builds(&decision.actions)),
        (0, vec![1, 2])
    );
    let reason = "its bootstrap waits for the start of build 3: no build needs this image yet";
    assert_eq!(decision.bootstrap_waits[&key_of("a")], reason);
    let readiness = observed.readiness(&decision.bootstrap_waits);
    assert_eq!(
        (&*readiness[0].message, &*readiness[0].bootstrap_wait),
        (reason, reason)
    );
    observed.queue.truncate(1);
    let decision = observed.decide();
    assert_eq!(
        (bootstraps(&decision.actions), builds(&decision.actions)),
        (1, vec![1])
    );
    assert!(decision.bootstrap_waits.is_empty());
}

#[test]
fn a_bootstrap_that_waits_for_space_says_so_without_a_build() {
    let mut observed = host(&["a"], 2);
    let request = ResourceRequest {
        disk: 256,
        ..ResourceRequest::default()
    };
    observed.requests.insert(key_of("a"), request);
    observed.capacity.disk.insert(VolumeId(0), 252);
    let message = |observed: &Observed| {
        let decision = observed.decide();
        assert_eq!(bootstraps(&decision.actions), 0);
        observed.readiness(&decision.bootstrap_waits)[0]
            .message
            .clone()
    };
    assert_eq!(
        message(&observed),
        "its bootstrap waits for space on its volume: 256 MiB wanted, 252 of 252 free"
    );
    let halt = "the volume is below its reserve".to_owned();
    observed.halted_volumes.insert(VolumeId(0), halt);
    assert_eq!(
        message(&observed),
        "its bootstrap waits because the volume is below its reserve"
    );
}

#[test]
fn a_build_that_waits_for_its_own_machine_does_not_delay_the_bootstraps_of_others() {
    let mut observed = host(&["a"], 3);
    let one = ResourceRequest {
        machine_max: Some(1),
        ..ResourceRequest::default()
    };
    observed.requests.insert(key_of("linux"), one);
    observed.queue = vec![queued(1, "linux"), queued(2, "linux")];
    let actions = observed.plan();
    assert_eq!((bootstraps(&actions), builds(&actions)), (1, vec![1]));
}

#[test]
fn an_unasked_bootstrap_yields_to_a_build_that_does_not_fit_beside_it() {
    let mut observed = host(&["a", "b"], 2);
    run_unasked(&mut observed, &["a", "b"]);
    assert_eq!(observed.plan(), []);
    observed.queue = vec![queued(1, "linux")];
    let actions = observed.plan();
    assert_eq!(
        (yields(&actions), builds(&actions)),
        (vec!["b".to_owned()], vec![])
    );
    // It has ended.
    observed.jobs.images.remove(&key_of("b"));
    observed.jobs.unasked.remove(&key_of("b"));
    let actions = observed.plan();
    assert_eq!((yields(&actions), builds(&actions)), (vec![], vec![1]));
    assert_eq!(bootstraps(&actions), 0);
}

#[test]
fn an_unasked_bootstrap_yields_to_an_asked_one() {
    let mut observed = host(&["a", "b"], 1);
    run_unasked(&mut observed, &["a"]);
    observed.queue = vec![queued(1, "b")];
    assert_eq!(yields(&observed.plan()), ["a"]);
    // Now a build needs it as well.
    observed.queue.push(queued(2, "a"));
    assert_eq!(yields(&observed.plan()), [""; 0]);
}

#[test]
fn nothing_yields_in_vain() {
    let mut observed = host(&["a"], 2);
    run_unasked(&mut observed, &["a"]);
    // There is a slot for the build.
    observed.queue = vec![queued(1, "linux")];
    assert_eq!(yields(&observed.plan()), [""; 0]);
    // It would not fit without the bootstrap.
    let heavy = ResourceRequest {
        memory: 4000,
        ..ResourceRequest::default()
    };
    observed.requests.insert(key_of("linux"), heavy);
    observed.jobs.builds.insert(BuildId(9), key_of("linux"));
    assert_eq!(yields(&observed.plan()), [""; 0]);
    // The bootstrap was asked for when it began.
    observed.jobs.builds.clear();
    observed.capacity.guests = Some(1);
    assert_eq!(yields(&observed.plan()), ["a"]);
    observed.jobs.unasked.clear();
    assert_eq!(yields(&observed.plan()), [""; 0]);
}

#[test]
fn a_bootstrap_yields_before_a_hold_is_evicted() {
    let mut observed = host(&["a"], 2);
    run_unasked(&mut observed, &["a"]);
    let held = crate::RunningHold {
        key: key_of("linux"),
        has_guest: true,
    };
    observed.jobs.holds.insert(BuildId(5), held);
    observed.queue = vec![queued(9, "linux")];
    let actions = observed.plan();
    assert_eq!(yields(&actions), ["a"]);
    assert!(!actions.contains(&Action::EvictHold(BuildId(5))));
}

proptest! {
    /// Ends everything that yields until the plan settles.
    #[test]
    fn builds_start_as_if_there_were_no_unasked_bootstraps_and_the_plan_settles(
        running in prop::collection::vec(any::<bool>(), 1..5),
        queue in prop::collection::vec(0usize..5, 0..6),
        memory in prop::collection::vec(1u64..2000, 5),
        slots in 1usize..5,
    ) {
        let names: Vec<_> = (0..running.len()).map(|i| format!("m{i}")).collect();
        let mut observed = host(&names.iter().map(String::as_str).collect::<Vec<_>>(), slots);
        for (name, memory) in names.iter().zip(&memory) {
            let request = ResourceRequest { memory: *memory, ..ResourceRequest::default() };
            observed.requests.insert(key_of(name), request);
        }
        let memory = memory[4];
        observed.requests.insert(key_of("linux"), ResourceRequest { memory, ..ResourceRequest::default() });
        observed.queue = queue.iter().zip(10..).map(|(m, id)| {
            let machine = names.get(*m).map_or("linux", String::as_str);
            queued(id, machine)
        }).collect();
        let without = builds(&observed.plan());
        let is_unasked = |(name, runs): &(&String, &bool)| **runs && !observed.is_asked(&key_of(name));
        let unasked = names.iter().zip(&running).filter(is_unasked);
        let unasked: Vec<_> = unasked.map(|(name, _)| name.as_str()).collect();
        run_unasked(&mut observed, &unasked);
        let memory: u64 = unasked.iter().map(|name| observed.requests[&key_of(name)].memory).sum();
        prop_assume!(memory <= observed.capacity.memory && unasked.len() <= slots);
        for machine in yields(&observed.plan()) {
            observed.jobs.images.remove(&key_of(&machine));
            observed.jobs.unasked.remove(&key_of(&machine));
        }
        let actions = observed.plan();
        prop_assert_eq!(yields(&actions), Vec::<String>::new());
        prop_assert_eq!(builds(&actions), without);
    }
}
