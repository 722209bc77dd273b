//! Ready guests: made for hot images, and given up at once for everything that matters more.

use config::GuestTag;
use config::pressure::PressureKind;
use jiff::SignedDuration;

use super::*;
use crate::pressure::HighPressure;

const IMAGE: Uuid = Uuid::nil();

/// Returns a machine with a hot image whose builds start from a checkpoint.
fn hot(wanted: usize, ready: &[u64]) -> Observed {
    let mut observed = bootstrapped_machines(&["a"]);
    let mode = StartMode {
        start: StartKind::Restored,
        ..StartMode::default()
    };
    observed.start_modes.insert(key_of("a"), mode);
    let request = ResourceRequest {
        memory: 256,
        ..ResourceRequest::default()
    };
    observed.requests.insert(key_of("a"), request);
    observed.hot_images.insert(IMAGE, wanted);
    let ready = ready.iter().map(|number| (GuestTag::Ready(*number), IMAGE));
    observed.ready = ready.collect();
    observed
}

fn prepared(actions: &[Action]) -> usize {
    let is_it = |action: &&Action| matches!(action, Action::PrepareGuest(_));
    actions.iter().filter(is_it).count()
}

fn discarded(actions: &[Action]) -> usize {
    let is_it = |action: &&Action| matches!(action, Action::DiscardReadyGuest(_));
    actions.iter().filter(is_it).count()
}

#[test]
fn a_hot_image_has_as_many_as_wanted() {
    let start = ReadyStart {
        key: key_of("a"),
        volume: VolumeId(0),
        image: IMAGE,
    };
    assert_eq!(hot(1, &[]).plan(), [Action::PrepareGuest(start)]);
    assert_eq!(prepared(&hot(3, &[1]).plan()), 2);
    assert_eq!(hot(2, &[1, 2]).plan(), []);
    let surplus = hot(1, &[4, 5]).plan();
    assert_eq!(surplus, [Action::DiscardReadyGuest(GuestTag::Ready(5))]);
}

#[test]
fn none_is_made_while_a_build_starts() {
    for (age, count) in [(0, 0), (999, 0), (1000, 2)] {
        let mut observed = hot(3, &[1]);
        let build = RunningBuild {
            submitter: "alice".parse().unwrap(),
            since: observed.now - SignedDuration::from_millis(age),
            may_be_on_trial: false,
        };
        observed.running.insert(BuildId(9), build);
        let actions = observed.plan();
        assert_eq!(
            (prepared(&actions), discarded(&actions)),
            (count, 0),
            "{age} ms"
        );
    }
}

#[test]
fn none_stays_where_no_build_can_use_it() {
    let all_discarded = |change: &dyn Fn(&mut Observed)| {
        let mut observed = hot(2, &[1]);
        change(&mut observed);
        let actions = observed.plan();
        (prepared(&actions), discarded(&actions)) == (0, 1)
    };
    assert!(all_discarded(&|it| it.hot_images.clear()));
    let licensed = |it: &mut Observed| {
        let request = it.requests.get_mut(&key_of("a")).unwrap();
        request.counts.insert("license".parse().unwrap(), 1);
        it.capacity.counts.insert("license".parse().unwrap(), 1);
    };
    assert!(all_discarded(&licensed));
    assert!(all_discarded(
        &|it| it.halt = Some("the disk is full".to_owned())
    ));
    assert!(all_discarded(&|it| it.start_modes.clear()));
    assert!(all_discarded(&|it| it.machines.clear()));
    assert!(all_discarded(&|it| {
        it.drained = Some(Drained {
            since: Timestamp::UNIX_EPOCH,
            reason: String::new(),
        });
    }));
    // The machine is being deleted.
    assert!(all_discarded(&|it| {
        it.machines.values_mut().next().unwrap().view.current = None;
    }));
    // The image was replaced.
    assert!(all_discarded(&|it| {
        let view = &mut it.machines.values_mut().next().unwrap().view;
        view.images[0].uuid = Uuid::from_u128(7);
    }));
    assert!(all_discarded(&|it| it.capacity.available = 255));
    assert!(all_discarded(&|it| {
        it.capacity.pressure = Some(HighPressure {
            kind: PressureKind::Memory,
            percent_max: 20,
        });
    }));
}

#[test]
fn they_come_back_only_when_there_is_plenty_of_memory() {
    for (available, expected) in [(255, (0, 1)), (256, (0, 0)), (511, (0, 0)), (512, (1, 0))] {
        let mut observed = hot(2, &[1]);
        observed.capacity.available = available;
        let actions = observed.plan();
        let found = (prepared(&actions), discarded(&actions));
        assert_eq!(found, expected, "{available} MiB");
    }
}
