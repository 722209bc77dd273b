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
