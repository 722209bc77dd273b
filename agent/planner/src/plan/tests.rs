//! The actions that a plan must and must not have, in small and in random situations.

use std::collections::BTreeSet;

use config::builds::ImageState;
use proptest::prelude::*;
use store::{RevisionView, SnapshotView, Subvolume, Uuid};

use super::*;

mod bootstraps;
mod forecast;
mod openings;
mod pressure;
mod pruning;
mod ready_guests;
mod resources;

fn digest(digit: char) -> Digest {
    digit.to_string().repeat(64).parse().unwrap()
}

fn toolchain(name: &str) -> ToolchainName {
    name.parse().unwrap()
}

pub(super) fn revision(number: u32, complete: bool) -> RevisionView {
    let uuid = Uuid::from_bytes([u8::try_from(number).unwrap(); 16]);
    RevisionView {
        revision: config::Revision(number),
        uuid,
        received_uuid: None,
        complete,
        subvolume: Subvolume {
            uuid,
            parent_uuid: None,
            received_uuid: None,
            created_transaction: 1,
            transaction: 1,
            received_transaction: None,
            read_only: complete,
            created: std::time::SystemTime::UNIX_EPOCH,
        },
    }
}

/// Returns a machine with revision 1 and nothing else.
fn machine(name: &str) -> Located {
    let mut view = MachineView::new(name.parse().unwrap());
    view.current = Some(config::Revision(1));
    view.revisions = vec![revision(1, true)];
    Located {
        volume: VolumeId(0),
        view,
    }
}

pub(super) fn key_of(machine: &str) -> ImageKey {
    ImageKey {
        machine: machine.parse().unwrap(),
        toolchain: toolchain("default"),
    }
}

fn observed(machines: &[&str]) -> Observed {
    Observed {
        machines: machines
            .iter()
            .map(|name| (name.parse().unwrap(), machine(name)))
            .collect(),
        toolchains: [(toolchain("default"), digest('a'))].into(),
        capacity: Capacity {
            guests: Some(2),
            cpus: 64,
            memory: 4096,
            available: 1 << 20,
            disk: BTreeMap::new(),
            counts: BTreeMap::new(),
            pressure: None,
        },
        retries_max: 1,
        newest_build: Some(BuildId(100)),
        ..Observed::default()
    }
}

/// Adds an image to a machine; without provenance it is out of date.
fn bootstrapped(observed: &mut Observed, machine: &str, provenance: Option<Provenance>) {
    let image = ImageView {
        toolchain: toolchain("default"),
        uuid: Uuid::nil(),
        complete: true,
        provenance,
    };
    observed
        .machines
        .get_mut(&key_of(machine).machine)
        .unwrap()
        .view
        .images
        .push(image);
}

pub(super) fn bootstrapped_machines(machines: &[&str]) -> Observed {
    let mut observed = observed(machines);
    for name in machines {
        let inputs = observed.inputs(&key_of(name));
        bootstrapped(&mut observed, name, inputs);
    }
    observed
}

/// Observes the machines `m0`, `m1` and so on, of which some have an image.
fn some_bootstrapped(images: &[bool]) -> Observed {
    let names: Vec<_> = (0..images.len()).map(|i| format!("m{i}")).collect();
    let mut observed = observed(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, has_image) in names.iter().zip(images) {
        if *has_image {
            let inputs = observed.inputs(&key_of(name));
            bootstrapped(&mut observed, name, inputs);
        }
    }
    observed
}

pub(super) fn queued(id: u64, machine: &str) -> QueuedBuild {
    QueuedBuild {
        id: BuildId(id),
        key: key_of(machine),
        submitter: Submitter::root(),
        priority: Priority(0),
        resources: Resources::default(),
        auxiliaries: Vec::new(),
        since: Timestamp::UNIX_EPOCH,
        backoff: None,
        after: Vec::new(),
        message: String::new(),
        may_be_on_trial: true,
        granted_trial: None,
    }
}

fn builds(actions: &[Action]) -> Vec<u64> {
    let number = |action: &Action| {
        if let Action::StartBuild(start) = action {
            Some(start.id.0)
        } else {
            None
        }
    };
    actions.iter().filter_map(number).collect()
}

fn image_start(machine: &str, inputs: Provenance) -> ImageStart {
    ImageStart {
        key: key_of(machine),
        volume: VolumeId(0),
        inputs,
        candidate: None,
        unasked: false,
    }
}

fn bootstraps(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| matches!(action, Action::StartBootstrap(..)))
        .count()
}

#[test]
fn a_settled_host_needs_no_action() {
    assert_eq!(bootstrapped_machines(&["linux", "hurd"]).plan(), []);
}

#[test]
fn a_new_machine_is_bootstrapped() {
    let observed = observed(&["linux"]);
    let inputs = observed.inputs(&key_of("linux")).unwrap();
    assert_eq!(
        observed.plan(),
        [Action::StartBootstrap(ImageStart {
            unasked: true,
            ..image_start("linux", inputs)
        })]
    );
}

#[test]
fn a_changed_toolchain_starts_a_bootstrap_while_the_old_image_serves() {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed
        .toolchains
        .insert(toolchain("default"), digest('b'));
    observed.queue = vec![queued(1, "linux")];
    let actions = observed.plan();
    assert_eq!((bootstraps(&actions), builds(&actions)), (1, vec![1]));
}

#[test]
fn a_bootstrap_is_started_once_and_cancelled_when_its_inputs_change() {
    let mut observed = observed(&["linux"]);
    let inputs = observed.inputs(&key_of("linux")).unwrap();
    observed.jobs.images.insert(key_of("linux"), inputs);
    assert_eq!(observed.plan(), []);
    observed
        .toolchains
        .insert(toolchain("default"), digest('b'));
    assert_eq!(observed.plan(), [Action::CancelBootstrap(key_of("linux"))]);
}

#[test]
fn builds_start_in_order_while_resources_last_and_the_others_get_a_wait_reason() {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed.queue = (1..=3).map(|id| queued(id, "linux")).collect();
    let actions = observed.plan();
    assert_eq!(builds(&actions), [1, 2]);
    assert_eq!(
        actions[2],
        Action::SetWaitReason(BuildId(3), "for a guest: 2 of 2 run".into())
    );
}

/// Returns the wait reason that a plan gives the only queued build.
fn wait_reason(observed: &Observed) -> String {
    let reason = observed.plan().into_iter().find_map(|action| match action {
        Action::SetWaitReason(_, reason) => Some(reason),
        _ => None,
    });
    reason.unwrap_or_default()
}

#[test]
fn every_queued_build_has_a_wait_reason() {
    let drained = |observed: &mut Observed| {
        observed.drained = Some(Drained {
            since: Timestamp::UNIX_EPOCH,
            reason: "new disks".into(),
        });
    };
    let heavy = |observed: &mut Observed| {
        let request = ResourceRequest {
            memory: 4000,
            ..ResourceRequest::default()
        };
        observed.requests.insert(key_of("linux"), request);
        observed.jobs.builds.insert(BuildId(2), key_of("linux"));
    };
    let after = |observed: &mut Observed| {
        observed.queue[0].after = vec![BuildId(5), BuildId(7), BuildId(8)];
        observed.dependencies = [5, 7, 8]
            .map(|id| {
                (
                    BuildId(id),
                    if id == 5 {
                        DependencyState::Succeeded
                    } else {
                        DependencyState::Pending
                    },
                )
            })
            .into();
    };
    let no_image = |observed: &mut Observed| clear_images(observed);
    let heavy_bootstrap = |observed: &mut Observed| {
        clear_images(observed);
        heavy(observed);
    };
    let no_toolchain = |observed: &mut Observed| observed.toolchains.clear();
    let unusable_toolchain = |observed: &mut Observed| {
        let names = std::mem::take(&mut observed.toolchains).into_keys();
        let faults = names.map(|name| (name, "x is not a file".to_owned()));
        observed.unusable_toolchains = faults.collect();
    };
    let changes: [&dyn Fn(&mut Observed); 7] = [
        &drained,
        &heavy,
        &after,
        &no_image,
        &heavy_bootstrap,
        &no_toolchain,
        &unusable_toolchain,
    ];
    let lines = changes.map(|change| {
        let mut observed = bootstrapped_machines(&["linux"]);
        observed.queue = vec![queued(9, "linux")];
        change(&mut observed);
        format!("build 9 waits {}", wait_reason(&observed))
    });
    insta::assert_snapshot!(lines.join("\n"));
}

fn clear_images(observed: &mut Observed) {
    for seen in observed.machines.values_mut() {
        seen.view.images.clear();
    }
}

#[test]
fn a_drained_host_starts_no_guests_but_ends_builds_of_deleted_machines() {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed
        .machines
        .insert("new".parse().unwrap(), machine("new"));
    observed.drained = Some(Drained {
        since: Timestamp::UNIX_EPOCH,
        reason: String::new(),
    });
    observed.queue = vec![queued(1, "linux"), queued(2, "gone")];
    let actions = observed.plan();
    assert_eq!((builds(&actions), bootstraps(&actions)), (vec![], 0));
    assert!(
        matches!(&actions[..], [Action::SetWaitReason(..), Action::Abort(..)]),
        "{actions:?}"
    );
    assert!(observed.notices()[0].contains("undrain"));
}

#[test]
fn a_build_is_skipped_when_one_that_it_depends_on_failed() {
    let mut observed = bootstrapped_machines(&["linux"]);
    let mut second = queued(9, "linux");
    second.after = vec![BuildId(5), BuildId(6)];
    observed.queue = vec![second];
    let mut with = |ending| {
        observed.dependencies = [
            (BuildId(5), DependencyState::Succeeded),
            (BuildId(6), ending),
        ]
        .into();
        observed.plan()
    };
    assert_eq!(builds(&with(DependencyState::Succeeded)), [9]);
    assert!(matches!(
        &with(DependencyState::Pending)[..],
        [Action::SetWaitReason(..)]
    ));
    let words = "build 6, which it was to come after, did not end well";
    assert_eq!(
        with(DependencyState::Failed),
        [Action::Skip(BuildId(9), words.into())]
    );
    observed.dependencies.clear();
    assert!(
        matches!(&observed.plan()[..], [Action::Skip(..)]),
        "a build that is not recorded any more counts as failed"
    );
}

#[test]
fn a_build_waits_for_the_end_of_its_backoff_and_the_loop_wakes_then() {
    let mut observed = bootstrapped_machines(&["linux"]);
    let second = |second| Timestamp::from_second(second).unwrap();
    observed.queue = vec![queued(1, "linux")];
    observed.queue[0].backoff = Some(second(5)..second(10));
    observed.now = second(9);
    assert_eq!(
        (observed.plan(), observed.wake_at()),
        (vec![], Some(second(10)))
    );
    observed.now = second(10);
    assert_eq!(builds(&observed.plan()), [1]);
    assert_eq!(observed.wake_at(), None);
}

#[test]
fn a_clock_that_is_set_back_ends_a_backoff() {
    let second = |second| Timestamp::from_second(second).unwrap();
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (name, submitter) = (toolchain("default"), Submitter::root());
    let mut failed = Build::new(
        BuildId(1),
        request,
        name,
        digest('0'),
        submitter,
        second(100),
    );
    assert_eq!(QueuedBuild::from(failed.clone()).backoff, None);
    failed.not_before = Some(second(130));
    let queued = QueuedBuild::from(failed);
    assert!(queued.is_backing_off(second(100)) && queued.is_backing_off(second(129)));
    assert!(!queued.is_backing_off(second(130)) && !queued.is_backing_off(second(99)));
}

#[test]
fn an_unchanged_wait_reason_is_not_recorded_again() {
    let mut observed = observed(&["linux"]);
    observed.capacity.guests = Some(1);
    observed.queue = vec![queued(1, "linux")];
    let reason = observed.plan().into_iter().find_map(|action| match action {
        Action::SetWaitReason(_, reason) => Some(reason),
        _ => None,
    });
    observed.queue[0].message = reason.unwrap();
    assert!(
        !observed
            .plan()
            .iter()
            .any(|action| matches!(action, Action::SetWaitReason(..)))
    );
}

#[test]
fn builds_and_bootstraps_do_not_starve_each_other() {
    let mut observed = bootstrapped_machines(&["linux"]);
    for name in ["a", "b", "c"] {
        observed
            .machines
            .insert(name.parse().unwrap(), machine(name));
    }
    observed.queue = (1..=5).map(|id| queued(id, "linux")).collect();
    observed.queue.push(queued(6, "c"));
    let actions = observed.plan();
    assert_eq!((bootstraps(&actions), builds(&actions)), (1, vec![1]));
}

#[test]
fn a_failed_bootstrap_is_retried_up_to_its_limit_and_again_when_its_inputs_change() {
    let mut observed = observed(&["linux"]);
    let inputs = observed.inputs(&key_of("linux")).unwrap();
    let failed = |attempts| BootstrapFailure {
        inputs: inputs.clone(),
        attempts,
        message: "no tar".into(),
    };
    observed
        .bootstrap_failures
        .insert(key_of("linux"), failed(1));
    assert_eq!(bootstraps(&observed.plan()), 1);
    observed
        .bootstrap_failures
        .insert(key_of("linux"), failed(2));
    observed.queue = vec![queued(1, "linux")];
    let actions = observed.plan();
    assert!(
        matches!(&actions[..], [Action::SetWaitReason(_, why)] if why.contains("no tar")),
        "{actions:?}"
    );
    assert_eq!(
        observed.readiness(&BTreeMap::new())[0].image,
        ImageState::Failed
    );
    observed
        .toolchains
        .insert(toolchain("default"), digest('b'));
    assert_eq!(bootstraps(&observed.plan()), 1);
}

#[test]
fn builds_of_a_deleted_machine_are_aborted() {
    let mut observed = observed(&[]);
    observed.queue = vec![queued(1, "linux")];
    assert_eq!(
        observed.plan(),
        [Action::Abort(
            BuildId(1),
            "machine linux was deleted".into()
        )]
    );
}

#[test]
fn a_machine_that_is_being_deleted_gets_no_new_guests() {
    let mut observed = bootstrapped_machines(&["linux"]);
    let view = &mut observed
        .machines
        .get_mut(&key_of("linux").machine)
        .unwrap()
        .view;
    view.current = None;
    view.deleting = true;
    observed.queue = vec![queued(1, "linux")];
    let actions = observed.plan();
    assert_eq!(actions[0], Action::FinishDeletions(VolumeId(0)));
    assert!(matches!(actions[1], Action::Abort(..)));
    assert_eq!(actions.len(), 2);
}

#[test]
fn orphaned_snapshots_are_deleted_and_others_stay() {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed.jobs.builds.insert(BuildId(7), key_of("linux"));
    let snapshot = |tag: &str, in_use| SnapshotView {
        toolchain: toolchain("default"),
        tag: tag.parse().unwrap(),
        in_use,
    };
    let view = &mut observed
        .machines
        .get_mut(&key_of("linux").machine)
        .unwrap()
        .view;
    view.snapshots = vec![
        snapshot("5", false),         // a build that has ended
        snapshot("6", true),          // a guest that outlived its agent
        snapshot("7", false),         // a build that runs, not locked yet
        snapshot("101", false),       // a build that was never recorded
        snapshot("mine", false),      // made by a person
        snapshot("bootstrap", false), // a bootstrap that died
    ];
    let dropped =
        |tag: &str| Action::DeleteSnapshot(VolumeId(0), key_of("linux"), tag.parse().unwrap());
    assert_eq!(observed.plan(), [dropped("5"), dropped("bootstrap")]);
}

#[test]
fn the_image_of_a_deleted_toolchain_is_deleted_unless_all_toolchains_are_missing() {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed.toolchains = [(toolchain("other"), digest('a'))].into();
    assert_eq!(
        observed.plan()[0],
        Action::DeleteImage(VolumeId(0), key_of("linux"))
    );
    observed.toolchains.clear();
    assert_eq!(observed.plan(), []);
}

#[test]
fn checkpoints_are_made_when_no_build_needs_the_resources() {
    let mut observed = bootstrapped_machines(&["a", "b"]);
    let due = StartMode {
        checkpoint_due: true,
        ..StartMode::default()
    };
    observed.start_modes.insert(key_of("a"), due);
    let made = observed.inputs(&key_of("a")).unwrap();
    let checkpoint = Action::StartCheckpoint(image_start("a", made.clone()));
    assert_eq!(observed.plan(), std::slice::from_ref(&checkpoint));
    observed.queue = vec![queued(1, "a"), queued(2, "b")];
    assert_eq!(builds(&observed.plan()), [1, 2]);
    assert!(!observed.plan().contains(&checkpoint));
    observed.queue.clear();
    observed.jobs.images.insert(key_of("a"), made);
    assert_eq!(observed.plan(), []);
    observed.jobs.images.clear();
    // A new bootstrap makes a checkpoint as well.
    observed
        .toolchains
        .insert(toolchain("default"), digest('b'));
    assert!(
        !observed
            .plan()
            .iter()
            .any(|action| matches!(action, Action::StartCheckpoint(..)))
    );
    assert_eq!(bootstraps(&observed.plan()), 2);
}

#[test]
fn nothing_starts_on_a_volume_below_its_reserve_and_builds_say_so() {
    let mut observed = bootstrapped_machines(&["linux"]);
    observed
        .machines
        .insert("new".parse().unwrap(), machine("new"));
    observed.queue = vec![queued(1, "linux")];
    observed
        .halted_volumes
        .insert(VolumeId(0), "the volume is full".into());
    assert_eq!(
        observed.plan(),
        [Action::SetWaitReason(
            BuildId(1),
            "because the volume is full".into()
        )]
    );
    assert_eq!(observed.notices(), ["the volume is full"]);
    // Another volume is above its reserve.
    observed.halted_volumes = [(VolumeId(1), "the other is full".into())].into();
    assert_eq!(builds(&observed.plan()), [1]);
    // Without space for records and results nothing starts at all.
    observed.halt = Some("the state directory is full".into());
    assert_eq!(builds(&observed.plan()), Vec::<u64>::new());
}

proptest! {
    #[test]
    fn no_plan_starts_more_guests_than_there_are_slots(
        images in prop::collection::vec(any::<bool>(), 1..5),
        queue in prop::collection::vec(0usize..5, 0..8),
        running in 0u64..4,
        guests_max in 1usize..5,
    ) {
        let mut observed = some_bootstrapped(&images);
        observed.capacity.guests = Some(guests_max);
        observed.queue = queue.iter().zip(10..).map(|(m, id)| queued(id, &format!("m{m}"))).collect();
        observed.jobs.builds = (1..=running).map(|id| (BuildId(id), key_of("m0"))).collect();
        let actions = observed.plan();
        let started = builds(&actions).len() + bootstraps(&actions);
        let pool = guests_max.saturating_sub(usize::try_from(running).unwrap());
        prop_assert!(started <= pool);
        // No slot is wasted: a job waits only when all slots are used.
        let could = images.iter().filter(|has| !**has).count()
            + queue.iter().filter(|m| images.get(**m) == Some(&true)).count();
        prop_assert_eq!(started, pool.min(could));
    }
}
