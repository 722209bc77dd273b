//! The machines that are offered to controllers.

use super::*;

fn names(observed: &Observed, ended: &[u64]) -> Result<Vec<String>, String> {
    let ended = ended.iter().copied().map(BuildId).collect();
    let openings = observed.openings(&toolchain("default"), &ended)?;
    Ok(openings
        .iter()
        .map(|it| it.key.machine.to_string())
        .collect())
}

fn run(observed: &mut Observed, id: u64, machine: &str) {
    observed.jobs.builds.insert(BuildId(id), key_of(machine));
}

#[test]
fn machines_with_an_image_and_a_free_place_are_offered() {
    let mut observed = bootstrapped_machines(&["a", "b"]);
    observed.machines.insert("c".parse().unwrap(), machine("c"));
    observed.capacity.guests = Some(3);
    assert_eq!(names(&observed, &[]).unwrap(), ["a", "b"], "c has no image");
    run(&mut observed, 1, "a");
    run(&mut observed, 2, "a");
    let limited = ResourceRequest {
        machine_max: Some(2),
        ..ResourceRequest::default()
    };
    observed.requests.insert(key_of("a"), limited);
    // The place of c is for its bootstrap only while something asks for it.
    assert_eq!(names(&observed, &[]).unwrap(), ["b"]);
    assert_eq!(names(&observed, &[1]).unwrap(), ["a", "b"]);
    run(&mut observed, 3, "b");
    let reason = names(&observed, &[]).unwrap_err();
    assert!(
        reason.contains("a further guest of a waits for"),
        "{reason}"
    );
}

#[test]
fn the_queue_goes_first() {
    let mut observed = bootstrapped_machines(&["a"]);
    observed.queue = vec![queued(1, "a")];
    assert_eq!(names(&observed, &[]).unwrap(), ["a"]);
    observed.queue.push(queued(2, "a"));
    names(&observed, &[]).unwrap_err();
    assert_eq!(
        names(&observed, &[2]).unwrap(),
        ["a"],
        "build 2 is given up"
    );
}

#[test]
fn nothing_is_offered_while_no_guest_may_start() {
    let drained = Observed {
        drained: Some(config::queue::Drained {
            reason: "repair".into(),
            since: Timestamp::UNIX_EPOCH,
        }),
        ..bootstrapped_machines(&["a"])
    };
    assert!(names(&drained, &[]).unwrap_err().contains("repair"));
    let mut full = bootstrapped_machines(&["a"]);
    full.halted_volumes
        .insert(VolumeId(0), "it is nearly full".into());
    assert_eq!(names(&full, &[]).unwrap_err(), "it is nearly full");
    let full = Observed {
        halt: Some("the state directory is nearly full".into()),
        ..bootstrapped_machines(&["a"])
    };
    assert!(names(&full, &[]).unwrap_err().contains("state directory"));
    let mut deleted = bootstrapped_machines(&["a"]);
    deleted
        .machines
        .get_mut(&key_of("a").machine)
        .unwrap()
        .view
        .deleting = true;
    let reason = names(&deleted, &[]).unwrap_err();
    assert_eq!(reason, "no machine is bootstrapped with toolchain default");
}

#[test]
fn a_new_revision_is_another_machine_for_controllers_and_a_received_one_the_same() {
    let identity = |observed: &Observed| {
        let openings = observed.openings(&toolchain("default"), &BTreeSet::new());
        openings.unwrap().remove(0).identity
    };
    let mut observed = bootstrapped_machines(&["a"]);
    let first = identity(&observed);
    let view = &mut observed
        .machines
        .get_mut(&key_of("a").machine)
        .unwrap()
        .view;
    view.revisions.push(revision(2, true));
    view.current = Some(config::Revision(2));
    assert_eq!(
        identity(&observed),
        first,
        "its image is of revision 1 still"
    );
    let inputs = observed.inputs(&key_of("a"));
    let view = &mut observed
        .machines
        .get_mut(&key_of("a").machine)
        .unwrap()
        .view;
    view.images[0].provenance = inputs;
    let second = identity(&observed);
    assert_ne!(second, first);
    let view = &mut observed
        .machines
        .get_mut(&key_of("a").machine)
        .unwrap()
        .view;
    view.revisions[1].received_uuid = Some(Uuid::from_bytes([1; 16]));
    assert_eq!(
        identity(&observed),
        first,
        "it was received from the host of revision 1"
    );
}

/// Observes a host with a build machine and two auxiliary machines.
fn with_auxiliaries() -> Observed {
    let mut observed = bootstrapped_machines(&["linux", "x-mysql", "x-pgsql"]);
    for machine in ["x-mysql", "x-pgsql"] {
        observed.auxiliaries.insert(key_of(machine));
    }
    for machine in ["linux", "x-mysql", "x-pgsql"] {
        let request = ResourceRequest {
            cpus: 1,
            memory: 1000,
            ..ResourceRequest::default()
        };
        observed.requests.insert(key_of(machine), request);
    }
    observed.capacity.guests = Some(4);
    observed
}

fn auxiliary_names(observed: &Observed) -> (Vec<String>, u64) {
    let toolchain = toolchain("default");
    let builds = observed.openings(&toolchain, &BTreeSet::new()).unwrap();
    let openings = observed.auxiliary_openings(&toolchain, &BTreeSet::new(), &builds);
    let names = openings.machines.iter();
    (
        names.map(|it| it.key.machine.to_string()).collect(),
        openings.memory,
    )
}

#[test]
fn auxiliary_machines_are_offered_beside_a_build_and_never_for_one() {
    let mut observed = with_auxiliaries();
    assert_eq!(names(&observed, &[]).unwrap(), ["linux"]);
    let both = vec!["x-mysql".to_owned(), "x-pgsql".to_owned()];
    assert_eq!(auxiliary_names(&observed), (both, 4096 - 1000));
    run(&mut observed, 1, "linux");
    observed.capacity.guests = Some(2);
    assert_eq!(auxiliary_names(&observed), (vec![], 4096 - 2000));
}

#[test]
fn a_build_starts_with_its_auxiliary_guests_or_not_at_all() {
    let mut observed = with_auxiliaries();
    let mut build = queued(1, "linux");
    build.auxiliaries = vec!["x-mysql".parse().unwrap(), "x-pgsql".parse().unwrap()];
    observed.queue = vec![build];
    let plan = observed.plan();
    assert_eq!(builds(&plan), [1]);
    let Action::StartBuild(start) = &plan[0] else {
        panic!("{plan:?}");
    };
    assert_eq!((start.request.cpus, start.request.memory), (3, 3000));
    let reason = |observed: &Observed| match &observed.plan()[..] {
        [Action::SetWaitReason(BuildId(1), reason)] => reason.clone(),
        other => panic!("{other:?}"),
    };
    observed.capacity.memory = 2999;
    let never = reason(&observed);
    assert!(never.contains("3000 MiB"), "{never}");
    observed.capacity.memory = 4096;
    observed.capacity.guests = Some(5);
    run(&mut observed, 2, "linux");
    let auxiliaries = vec![key_of("x-pgsql")];
    observed.jobs.auxiliaries.insert(BuildId(2), auxiliaries);
    let short = reason(&observed);
    assert!(
        short.starts_with("for memory:")
            && short.ends_with("with its auxiliary machines x-mysql, x-pgsql"),
        "{short}"
    );
    observed.capacity.memory = 8192;
    observed.capacity.guests = Some(4);
    let slots = reason(&observed);
    assert!(slots.starts_with("for a guest: "), "{slots}");
    observed.capacity.guests = Some(5);
    assert_eq!(builds(&observed.plan()), [1]);
    observed.machines.remove(&"x-pgsql".parse().unwrap());
    let gone = reason(&observed);
    assert_eq!(gone, "because auxiliary machine x-pgsql was deleted");
}
