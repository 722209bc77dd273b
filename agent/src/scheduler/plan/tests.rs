//! What a plan must and must not hold, in worlds small and random.

use proptest::prelude::*;
use store::{RevisionView, SnapshotView, Subvolume, Uuid};

use super::*;

fn digest(digit: char) -> Digest {
    digit.to_string().repeat(64).parse().unwrap()
}

fn toolchain(name: &str) -> ToolchainName {
    name.parse().unwrap()
}

fn revision(number: u32, complete: bool) -> RevisionView {
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
            transaction: 1,
            read_only: complete,
            created: std::time::SystemTime::UNIX_EPOCH,
        },
    }
}

/// A machine at revision 1 with nothing else.
fn machine(name: &str) -> MachineState {
    let mut view = MachineView::new(name.parse().unwrap());
    view.current = Some(config::Revision(1));
    view.revisions = vec![revision(1, true)];
    MachineState { volume: 0, view }
}

pub(super) fn pair_of(machine: &str) -> ImageKey {
    ImageKey {
        machine: machine.parse().unwrap(),
        toolchain: toolchain("default"),
    }
}

fn world(machines: &[&str]) -> Observed {
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
        },
        retries_max: 1,
        newest: Some(BuildId(100)),
        ..Observed::default()
    }
}

/// Gives a machine an image; `None` makes one that is out of date.
fn bootstrapped(world: &mut Observed, machine: &str, provenance: Option<Provenance>) {
    let image = ImageView {
        toolchain: toolchain("default"),
        complete: true,
        provenance,
    };
    world
        .machines
        .get_mut(&pair_of(machine).machine)
        .unwrap()
        .view
        .images
        .push(image);
}

pub(super) fn ready(machines: &[&str]) -> Observed {
    let mut world = world(machines);
    for name in machines {
        let wanted = world.wanted(&pair_of(name));
        bootstrapped(&mut world, name, wanted);
    }
    world
}

fn waiting(id: u64, machine: &str) -> Waiting {
    Waiting {
        id: BuildId(id),
        pair: pair_of(machine),
        submitter: Submitter::root(),
        priority: Priority(0),
        since: Timestamp::UNIX_EPOCH,
        not_before: None,
        after: Vec::new(),
        message: String::new(),
    }
}

fn builds(steps: &[Action]) -> Vec<u64> {
    let number = |step: &Action| {
        if let Action::Build(id) = step {
            Some(id.0)
        } else {
            None
        }
    };
    steps.iter().filter_map(number).collect()
}

fn bootstraps(steps: &[Action]) -> usize {
    steps
        .iter()
        .filter(|step| matches!(step, Action::Bootstrap(..)))
        .count()
}

#[test]
fn a_world_in_which_all_is_done_needs_nothing() {
    assert_eq!(ready(&["linux", "hurd"]).plan(), []);
}

#[test]
fn a_new_machine_is_bootstrapped() {
    let world = world(&["linux"]);
    let wanted = world.wanted(&pair_of("linux")).unwrap();
    assert_eq!(world.plan(), [Action::Bootstrap(pair_of("linux"), wanted)]);
}

#[test]
fn a_change_of_the_toolchain_bootstraps_anew_while_the_old_image_serves() {
    let mut world = ready(&["linux"]);
    world.toolchains.insert(toolchain("default"), digest('b'));
    world.queue = vec![waiting(1, "linux")];
    let steps = world.plan();
    assert_eq!((bootstraps(&steps), builds(&steps)), (1, vec![1]));
}

#[test]
fn a_bootstrap_for_what_is_no_longer_wanted_is_cancelled_and_not_begun_twice() {
    let mut world = world(&["linux"]);
    let wanted = world.wanted(&pair_of("linux")).unwrap();
    world.jobs.bootstraps.insert(pair_of("linux"), wanted);
    assert_eq!(world.plan(), []);
    world.toolchains.insert(toolchain("default"), digest('b'));
    assert_eq!(world.plan(), [Action::CancelBootstrap(pair_of("linux"))]);
}

#[test]
fn builds_start_in_order_while_there_is_room_and_the_rest_is_told_why() {
    let mut world = ready(&["linux"]);
    world.queue = (1..=3).map(|id| waiting(id, "linux")).collect();
    let steps = world.plan();
    assert_eq!(builds(&steps), [1, 2]);
    assert_eq!(
        steps[2],
        Action::Say(BuildId(3), "for a guest: 2 of 2 run".into())
    );
}

/// What a plan says to the only build that waits.
fn said(world: &Observed) -> String {
    let said = world.plan().into_iter().find_map(|step| match step {
        Action::Say(_, words) => Some(words),
        _ => None,
    });
    said.unwrap_or_default()
}

#[test]
fn every_build_that_waits_is_told_for_what() {
    let drained = |world: &mut Observed| {
        world.drained = Some(Drained {
            since: Timestamp::UNIX_EPOCH,
            reason: "new disks".into(),
        });
    };
    let heavy = |world: &mut Observed| {
        let demand = ResourceRequest {
            memory: 4000,
            ..ResourceRequest::default()
        };
        world.demands.insert(pair_of("linux"), demand);
        world.jobs.builds.insert(BuildId(2), pair_of("linux"));
    };
    let after = |world: &mut Observed| {
        world.queue[0].after = vec![BuildId(5), BuildId(7), BuildId(8)];
        world.endings = [5, 7, 8]
            .map(|id| {
                (
                    BuildId(id),
                    if id == 5 { Ending::Good } else { Ending::Open },
                )
            })
            .into();
    };
    let no_image = |world: &mut Observed| clear_images(world);
    let heavy_bootstrap = |world: &mut Observed| {
        clear_images(world);
        heavy(world);
    };
    let no_toolchain = |world: &mut Observed| world.toolchains.clear();
    let changes: [&dyn Fn(&mut Observed); 6] = [
        &drained,
        &heavy,
        &after,
        &no_image,
        &heavy_bootstrap,
        &no_toolchain,
    ];
    let told = changes.map(|change| {
        let mut world = ready(&["linux"]);
        world.queue = vec![waiting(9, "linux")];
        change(&mut world);
        format!("build 9 waits {}", said(&world))
    });
    insta::assert_snapshot!(told.join("\n"));
}

fn clear_images(world: &mut Observed) {
    for seen in world.machines.values_mut() {
        seen.view.images.clear();
    }
}

#[test]
fn nothing_starts_on_a_drained_host_and_what_is_over_ends_all_the_same() {
    let mut world = ready(&["linux"]);
    world
        .machines
        .insert("new".parse().unwrap(), machine("new"));
    world.drained = Some(Drained {
        since: Timestamp::UNIX_EPOCH,
        reason: String::new(),
    });
    world.queue = vec![waiting(1, "linux"), waiting(2, "gone")];
    let steps = world.plan();
    assert_eq!((builds(&steps), bootstraps(&steps)), (vec![], 0));
    assert!(
        matches!(&steps[..], [Action::Say(..), Action::Abort(..)]),
        "{steps:?}"
    );
    assert!(world.notices()[0].contains("undrain"));
}

#[test]
fn a_build_is_skipped_when_one_before_it_did_not_end_well() {
    let mut world = ready(&["linux"]);
    let mut second = waiting(9, "linux");
    second.after = vec![BuildId(5), BuildId(6)];
    world.queue = vec![second];
    let mut with = |ending| {
        world.endings = [(BuildId(5), Ending::Good), (BuildId(6), ending)].into();
        world.plan()
    };
    assert_eq!(with(Ending::Good), [Action::Build(BuildId(9))]);
    assert!(matches!(&with(Ending::Open)[..], [Action::Say(..)]));
    let words = "build 6, which it was to come after, did not end well";
    assert_eq!(with(Ending::Bad), [Action::Skip(BuildId(9), words.into())]);
    world.endings.clear();
    assert!(
        matches!(&world.plan()[..], [Action::Skip(..)]),
        "it is forgotten"
    );
}

#[test]
fn a_build_rests_until_its_time_and_the_loop_wakes_then() {
    let mut world = ready(&["linux"]);
    let second = |second| Timestamp::from_second(second).unwrap();
    world.queue = vec![waiting(1, "linux")];
    world.queue[0].not_before = Some(second(10));
    world.now = second(9);
    assert_eq!((world.plan(), world.wake_at()), (vec![], Some(second(10))));
    world.now = second(10);
    assert_eq!(world.plan(), [Action::Build(BuildId(1))]);
    assert_eq!(world.wake_at(), None);
}

#[test]
fn a_reason_that_was_said_is_not_said_again() {
    let mut world = world(&["linux"]);
    world.capacity.guests = Some(1);
    world.queue = vec![waiting(1, "linux")];
    let said = world.plan().into_iter().find_map(|step| match step {
        Action::Say(_, reason) => Some(reason),
        _ => None,
    });
    world.queue[0].message = said.unwrap();
    assert!(
        !world
            .plan()
            .iter()
            .any(|step| matches!(step, Action::Say(..)))
    );
}

#[test]
fn builds_do_not_keep_bootstraps_waiting_for_ever_nor_the_other_way_round() {
    let mut world = ready(&["linux"]);
    for name in ["a", "b", "c"] {
        world.machines.insert(name.parse().unwrap(), machine(name));
    }
    world.queue = (1..=5).map(|id| waiting(id, "linux")).collect();
    let steps = world.plan();
    assert_eq!((bootstraps(&steps), builds(&steps)), (1, vec![1]));
}

#[test]
fn a_failed_bootstrap_is_tried_again_until_its_retries_are_used_up_or_something_changes() {
    let mut world = world(&["linux"]);
    let wanted = world.wanted(&pair_of("linux")).unwrap();
    let failed = |attempts| Failure {
        wanted: wanted.clone(),
        attempts,
        message: "no tar".into(),
    };
    world.failures.insert(pair_of("linux"), failed(1));
    assert_eq!(bootstraps(&world.plan()), 1);
    world.failures.insert(pair_of("linux"), failed(2));
    world.queue = vec![waiting(1, "linux")];
    let steps = world.plan();
    assert!(
        matches!(&steps[..], [Action::Say(_, why)] if why.contains("no tar")),
        "{steps:?}"
    );
    assert_eq!(world.readiness()[0].image, ImageState::Failed);
    world.toolchains.insert(toolchain("default"), digest('b'));
    assert_eq!(bootstraps(&world.plan()), 1);
}

#[test]
fn builds_of_a_machine_that_went_are_given_up() {
    let mut world = world(&[]);
    world.queue = vec![waiting(1, "linux")];
    assert_eq!(
        world.plan(),
        [Action::Abort(
            BuildId(1),
            "machine linux was deleted".into()
        )]
    );
}

#[test]
fn a_machine_on_its_way_out_gets_no_new_guests() {
    let mut world = ready(&["linux"]);
    let view = &mut world
        .machines
        .get_mut(&pair_of("linux").machine)
        .unwrap()
        .view;
    view.current = None;
    view.deleting = true;
    world.queue = vec![waiting(1, "linux")];
    let steps = world.plan();
    assert_eq!(steps[0], Action::FinishDeletions(0));
    assert!(matches!(steps[1], Action::Abort(..)));
    assert_eq!(steps.len(), 2);
}

#[test]
fn strays_of_ours_go_and_everything_else_stays() {
    let mut world = ready(&["linux"]);
    world.jobs.builds.insert(BuildId(7), pair_of("linux"));
    let snapshot = |tag: &str, in_use| SnapshotView {
        toolchain: toolchain("default"),
        tag: tag.parse().unwrap(),
        in_use,
    };
    let view = &mut world
        .machines
        .get_mut(&pair_of("linux").machine)
        .unwrap()
        .view;
    view.snapshots = vec![
        snapshot("5", false),         // a build that is over
        snapshot("6", true),          // a guest that outlived its agent
        snapshot("7", false),         // a build that runs, not locked yet
        snapshot("101", false),       // a build that never was
        snapshot("mine", false),      // made by a person
        snapshot("bootstrap", false), // a bootstrap that died
    ];
    let dropped = |tag: &str| Action::DropSnapshot(pair_of("linux"), tag.parse().unwrap());
    assert_eq!(world.plan(), [dropped("5"), dropped("bootstrap")]);
}

#[test]
fn the_image_of_a_toolchain_that_went_goes_too_unless_all_toolchains_went() {
    let mut world = ready(&["linux"]);
    world.toolchains = [(toolchain("other"), digest('a'))].into();
    assert_eq!(world.plan()[0], Action::DropImage(pair_of("linux")));
    world.toolchains.clear();
    assert_eq!(world.plan(), []);
}

#[test]
fn guests_are_frozen_in_images_that_serve_when_nothing_else_needs_the_room() {
    let mut world = ready(&["a", "b"]);
    let wanted = Starting {
        wanted: true,
        ..Starting::default()
    };
    world.starts.insert(pair_of("a"), wanted);
    let made = world.wanted(&pair_of("a")).unwrap();
    let freeze = Action::Freeze(pair_of("a"), made.clone());
    assert_eq!(world.plan(), std::slice::from_ref(&freeze));
    world.queue = vec![waiting(1, "a"), waiting(2, "b")];
    assert_eq!(builds(&world.plan()), [1, 2]);
    assert!(!world.plan().contains(&freeze));
    world.queue.clear();
    world.jobs.bootstraps.insert(pair_of("a"), made);
    assert_eq!(world.plan(), []);
    world.jobs.bootstraps.clear();
    // It is to be bootstrapped anew, which freezes a guest as well.
    world.toolchains.insert(toolchain("default"), digest('b'));
    assert!(
        !world
            .plan()
            .iter()
            .any(|step| matches!(step, Action::Freeze(..)))
    );
    assert_eq!(bootstraps(&world.plan()), 2);
}

#[test]
fn nothing_starts_where_the_disk_is_nearly_full_and_builds_say_so() {
    let mut world = ready(&["linux"]);
    world
        .machines
        .insert("new".parse().unwrap(), machine("new"));
    world.queue = vec![waiting(1, "linux")];
    world.halted.insert(0, "the volume is full".into());
    assert_eq!(
        world.plan(),
        [Action::Say(BuildId(1), "because the volume is full".into())]
    );
    assert_eq!(world.notices(), ["the volume is full"]);
    // Another volume has room.
    world.halted = [(1, "the other is full".into())].into();
    assert_eq!(builds(&world.plan()), [1]);
    // Without a place for records and results nothing goes at all.
    world.halt = Some("the state directory is full".into());
    assert_eq!(builds(&world.plan()), Vec::<u64>::new());
}

fn keeping(keep: usize, until_free: Option<u64>) -> Rule {
    Rule {
        keep,
        made_before: None,
        until_free,
    }
}

fn pruned(world: &Observed) -> Vec<u32> {
    let chosen = world.plan().into_iter().filter_map(|step| match step {
        Action::Prune(0, chosen) => Some(chosen),
        _ => None,
    });
    chosen.flatten().map(|(_, revision)| revision.0).collect()
}

/// `linux` with so many revisions, the last one current and bootstrapped.
fn upgraded(revisions: u32) -> Observed {
    let mut world = world(&["linux"]);
    let seen = world.machines.get_mut(&pair_of("linux").machine).unwrap();
    seen.view.revisions = (1..=revisions).map(|it| revision(it, true)).collect();
    seen.view.current = Some(Revision(revisions));
    let wanted = world.wanted(&pair_of("linux"));
    bootstrapped(&mut world, "linux", wanted);
    world
}

#[test]
fn old_revisions_go_after_an_upgrade_if_the_settings_say_so() {
    let mut world = upgraded(4);
    assert_eq!(world.plan(), []);
    world.retention = Some(keeping(2, None));
    let chosen = [1, 2].map(|it| (pair_of("linux").machine, Revision(it)));
    assert_eq!(world.plan(), [Action::Prune(0, chosen.to_vec())]);
    // One deletion at a time in a volume.
    world.jobs.pruning.insert(0);
    assert_eq!(world.plan(), []);
}

#[test]
fn revisions_go_one_by_one_until_there_is_room() {
    let mut world = upgraded(4);
    world.retention = Some(keeping(1, Some(1000)));
    world.free = [(0, 999)].into();
    assert_eq!(pruned(&world), [1]);
    world.free = [(0, 1000)].into();
    assert_eq!(world.plan(), []);
}

proptest! {
    #[test]
    fn no_plan_deletes_a_revision_that_is_needed(
        complete in prop::collection::vec(any::<bool>(), 1..7),
        current in 1u32..7,
        pin in 1u32..7,
        held in 1u32..7,
        origin in 1u32..7,
        building in 1u32..7,
        (keep, days, deleting) in (0usize..4, 0u64..7, any::<bool>()),
    ) {
        let mut world = world(&["linux"]);
        let view = &mut world.machines.get_mut(&pair_of("linux").machine).unwrap().view;
        view.revisions = (1..).zip(&complete).map(|(it, whole)| revision(it, *whole)).collect();
        for (view, age) in view.revisions.iter_mut().zip(0..) {
            view.subvolume.created += std::time::Duration::from_secs(age);
        }
        let whole = |number: u32| complete.get(number as usize - 1) == Some(&true);
        view.current = (whole(current) && !deleting).then_some(Revision(current));
        view.deleting = deleting;
        view.pins = [Revision(pin)].into();
        view.held = [Revision(held)].into();
        view.origins = [revision(origin, true).uuid].into();
        let mut making = world.wanted(&pair_of("linux"));
        if let Some(making) = &mut making {
            making.revision_uuid = revision(building, true).uuid.to_string();
            world.jobs.bootstraps.insert(pair_of("linux"), making.clone());
        }
        let youngest = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(days);
        world.retention = Some(Rule { keep, made_before: Some(youngest), until_free: None });
        let gone = pruned(&world);
        for needed in [current, pin, held, origin] {
            prop_assert!(!gone.contains(&needed), "{needed} of {gone:?}");
        }
        prop_assert!(making.is_none() || !gone.contains(&building));
        let newest = (1..7).rev().filter(|number| whole(*number)).take(keep);
        for number in newest {
            prop_assert!(!gone.contains(&number));
        }
        for number in &gone {
            prop_assert!(whole(*number) && u64::from(number - 1) < days);
        }
        if !gone.is_empty() {
            // What stays has a reason; and when it is done, nothing is left to do.
            let view = &mut world.machines.get_mut(&pair_of("linux").machine).unwrap().view;
            view.revisions.retain(|it| !gone.contains(&it.revision.0));
            prop_assert_eq!(pruned(&world), Vec::<u32>::new());
        }
        prop_assert!(gone.is_empty() || !deleting);
    }

    #[test]
    fn no_plan_starts_more_guests_than_there_is_room_for(
        images in prop::collection::vec(any::<bool>(), 1..5),
        queue in prop::collection::vec(0usize..5, 0..8),
        running in 0u64..4,
        guests_max in 1usize..5,
    ) {
        let names: Vec<_> = (0..images.len()).map(|i| format!("m{i}")).collect();
        let mut world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (name, has_image) in names.iter().zip(&images) {
            if *has_image {
                let wanted = world.wanted(&pair_of(name));
                bootstrapped(&mut world, name, wanted);
            }
        }
        world.capacity.guests = Some(guests_max);
        world.queue = queue.iter().zip(10..).map(|(m, id)| waiting(id, &format!("m{m}"))).collect();
        world.jobs.builds = (1..=running).map(|id| (BuildId(id), pair_of("m0"))).collect();
        let steps = world.plan();
        let started = builds(&steps).len() + bootstraps(&steps);
        let room = guests_max.saturating_sub(usize::try_from(running).unwrap());
        prop_assert!(started <= room);
        // Room is not wasted: something that could start stays back only when all of it is used.
        let could = images.iter().filter(|has| !**has).count()
            + queue.iter().filter(|m| images.get(**m) == Some(&true)).count();
        prop_assert_eq!(started, room.min(could));
    }
}
