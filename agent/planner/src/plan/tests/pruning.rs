//! The revisions that a plan prunes.

use super::*;

fn keeping(keep: usize, free_target: Option<u64>) -> PrunePolicy {
    PrunePolicy {
        keep,
        created_before: None,
        free_target,
    }
}

fn pruned(observed: &Observed) -> Vec<u32> {
    let chosen = observed
        .plan()
        .into_iter()
        .filter_map(|action| match action {
            Action::Prune(VolumeId(0), chosen) => Some(chosen),
            _ => None,
        });
    chosen.flatten().map(|(_, revision)| revision.0).collect()
}

/// Observes `linux` with so many revisions, the last one current and bootstrapped.
fn upgraded(revisions: u32) -> Observed {
    let mut observed = observed(&["linux"]);
    let seen = observed.machines.get_mut(&key_of("linux").machine).unwrap();
    seen.view.revisions = (1..=revisions).map(|it| revision(it, true)).collect();
    seen.view.current = Some(Revision(revisions));
    let inputs = observed.inputs(&key_of("linux"));
    bootstrapped(&mut observed, "linux", inputs);
    observed
}

#[test]
fn old_revisions_are_pruned_after_an_upgrade_if_the_settings_say_so() {
    let mut observed = upgraded(4);
    assert_eq!(observed.plan(), []);
    observed.retention = Some(keeping(2, None));
    let chosen = [1, 2].map(|it| (key_of("linux").machine, Revision(it)));
    assert_eq!(
        observed.plan(),
        [Action::Prune(VolumeId(0), chosen.to_vec())]
    );
    // One deletion at a time in a volume.
    observed.jobs.pruning.insert(VolumeId(0));
    assert_eq!(observed.plan(), []);
}

#[test]
fn revisions_are_pruned_one_by_one_until_enough_space_is_free() {
    let mut observed = upgraded(4);
    observed.retention = Some(keeping(1, Some(1000)));
    observed.free = [(VolumeId(0), 999)].into();
    assert_eq!(pruned(&observed), [1]);
    observed.free = [(VolumeId(0), 1000)].into();
    assert_eq!(observed.plan(), []);
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
        let mut observed = observed(&["linux"]);
        let view = &mut observed.machines.get_mut(&key_of("linux").machine).unwrap().view;
        view.revisions = (1..).zip(&complete).map(|(it, whole)| revision(it, *whole)).collect();
        for (view, age) in view.revisions.iter_mut().zip(0..) {
            view.subvolume.created += std::time::Duration::from_secs(age);
        }
        let whole = |number: u32| complete.get(number as usize - 1) == Some(&true);
        view.current = (whole(current) && !deleting).then_some(Revision(current));
        view.deleting = deleting;
        view.pins = [Revision(pin)].into();
        view.revisions_in_use = [Revision(held)].into();
        view.origins = [revision(origin, true).uuid].into();
        let mut making = observed.inputs(&key_of("linux"));
        if let Some(making) = &mut making {
            making.revision_uuid = revision(building, true).uuid.to_string();
            observed.jobs.images.insert(key_of("linux"), making.clone());
        }
        let youngest = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(days);
        observed.retention = Some(PrunePolicy { keep, created_before: Some(youngest), free_target: None });
        let gone = pruned(&observed);
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
            // Once the plan is executed, there is nothing left to prune.
            let view = &mut observed.machines.get_mut(&key_of("linux").machine).unwrap().view;
            view.revisions.retain(|it| !gone.contains(&it.revision.0));
            prop_assert_eq!(pruned(&observed), Vec::<u32>::new());
        }
        prop_assert!(gone.is_empty() || !deleting);
    }
}
