use config::BuildId;

use super::*;
use crate::Epoch;
use crate::messages::Grant;

const TERMS: Terms = Terms {
    lease_ms: 1_000,
    hold_ms: 100,
    request_ms: 200,
    poll_ms: 10,
    attempts_max: 3,
};

fn lease(build: u64) -> Lease {
    Lease {
        build: BuildId(build),
        epoch: Epoch(1),
    }
}

fn grant(lease: Lease) -> Grant {
    Grant {
        lease,
        requirements: Requirements {
            machine: "linux".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            cpus: 1,
            memory_mib: 1,
            resources: BTreeMap::new(),
            work: crate::Work::default(),
        },
        canceled: false,
        trial: None,
    }
}

fn answer(id: PollId, leases: &[Lease]) -> Input {
    Input::Answered(PollAnswer {
        id,
        leases: leases.iter().copied().map(grant).collect(),
        published: BTreeMap::new(),
        trials: BTreeMap::new(),
        transfers: Vec::new(),
    })
}

pub(super) fn agent() -> HostAgent {
    HostAgent::new(TERMS, 7, Moment(0), Recovered::default()).0
}

/// Lets the host poll, and returns the identity of the poll.
pub(super) fn poll(agent: &mut HostAgent, now: u64) -> PollId {
    let effects = agent.step(Moment(now), Input::Tick);
    let poll = effects.iter().find_map(|effect| match effect {
        Effect::Poll { id, .. } => Some(*id),
        _ => None,
    });
    poll.unwrap()
}

#[test]
fn the_deadline_counts_from_the_poll_and_not_from_its_answer() {
    let mut agent = agent();
    let id = poll(&mut agent, 0);
    agent.step(Moment(150), answer(id, &[lease(1)]));
    let started = agent.step(Moment(160), Input::Recorded(lease(1)));
    assert_eq!(started, [Effect::Start(lease(1), Moment(500))]);
    let id = poll(&mut agent, 170);
    let moved = agent.step(Moment(180), answer(id, &[lease(1)]));
    assert_eq!(moved, [Effect::Guard(lease(1), Moment(670))]);
    let ended = agent.step(Moment(670), Input::Tick);
    assert_eq!(ended[0], Effect::Stop(lease(1)));
}

#[test]
fn a_lease_that_was_settled_during_a_poll_is_not_taken_again() {
    let mut agent = agent();
    let id = poll(&mut agent, 0);
    agent.step(Moment(10), answer(id, &[lease(1)]));
    agent.step(Moment(11), Input::Recorded(lease(1)));
    agent.step(Moment(12), Input::Ended(lease(1), Outcome::Success));
    let id = poll(&mut agent, 20);
    agent.step(Moment(21), Input::Stored(lease(1)));
    agent.step(Moment(22), Input::Settled(lease(1)));
    // The coordinator read the leases before it recorded the result.
    assert_eq!(agent.step(Moment(23), answer(id, &[lease(1)])), []);
    assert!(!agent.has_results() && agent.busy().next().is_none());
}

#[test]
fn an_answer_to_an_earlier_poll_is_ignored() {
    let mut agent = agent();
    let first = poll(&mut agent, 0);
    let second = poll(&mut agent, 300);
    assert_ne!(first, second);
    assert_eq!(agent.step(Moment(301), answer(first, &[lease(1)])), []);
}

#[test]
fn a_lost_guest_gives_its_lease_back_until_the_farm_has_it() {
    check_release(OnDisk::Lease, false);
    check_release(OnDisk::Unused, true);
}

fn check_release(on_disk: OnDisk, is_unused: bool) {
    let disk = BTreeMap::from([(lease(1), on_disk)]);
    let release = Effect::Release(Release {
        lease: lease(1),
        is_unused,
    });
    let recovered = Recovered {
        disk,
        ..Recovered::default()
    };
    let (mut agent, effects) = HostAgent::new(TERMS, 7, Moment(0), recovered);
    assert_eq!(effects, []);
    for now in [0, 200] {
        let effects = agent.step(Moment(now), Input::Tick);
        assert!(effects.contains(&release), "{effects:?}");
    }
    let settled = agent.step(Moment(210), Input::Settled(lease(1)));
    assert_eq!(settled, [Effect::Forget(lease(1))]);
}

#[test]
fn a_lease_is_unused_only_if_its_guest_did_not_start() {
    for (ended, is_unused) in [
        (Input::Gone(lease(1)), false),
        (Input::Unused(lease(1)), true),
    ] {
        let mut agent = agent();
        let id = poll(&mut agent, 0);
        agent.step(Moment(10), answer(id, &[lease(1)]));
        agent.step(Moment(11), Input::Recorded(lease(1)));
        agent.step(Moment(12), ended);
        let effects = agent.step(Moment(20), Input::Tick);
        let release = Release {
            lease: lease(1),
            is_unused,
        };
        assert!(effects.contains(&Effect::Release(release)), "{effects:?}");
    }
}

#[test]
fn a_lease_that_was_recorded_too_late_is_unused() {
    let mut agent = agent();
    let id = poll(&mut agent, 0);
    agent.step(Moment(10), answer(id, &[lease(1)]));
    agent.step(Moment(600), Input::Recorded(lease(1)));
    let release = Release {
        lease: lease(1),
        is_unused: true,
    };
    let effects = agent.step(Moment(600), Input::Tick);
    assert!(effects.contains(&Effect::Release(release)), "{effects:?}");
}

fn limits(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Poll { hold_ms, .. } => Some(*hold_ms),
        _ => None,
    })
}

#[test]
fn a_poll_is_held_for_a_quarter_of_what_is_left_of_a_lease() {
    let mut agent = agent();
    assert_eq!(limits(&agent.step(Moment(0), Input::Tick)), Some(100));
    let id = PollId {
        incarnation: 7,
        number: 1,
    };
    // The answer comes late: 300 of 500 milliseconds are gone.
    agent.step(Moment(290), answer(id, &[lease(1)]));
    agent.step(Moment(290), Input::Recorded(lease(1)));
    assert_eq!(limits(&agent.step(Moment(300), Input::Tick)), Some(50));
    // It is repeated after one half of what is left.
    assert_eq!(agent.wake(), Moment(400));
    assert_eq!(limits(&agent.step(Moment(400), Input::Tick)), Some(25));
}

#[test]
fn a_poll_that_is_refused_is_soon_repeated_and_then_less_often() {
    let mut agent = agent();
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..7 {
        let id = poll(&mut agent, now);
        agent.step(Moment(now), Input::Unanswered(id));
        pauses.push(agent.wake().0 - now);
        now = agent.wake().0;
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 200, 200]);
    let id = poll(&mut agent, now);
    agent.step(Moment(now), answer(id, &[]));
    assert_eq!(agent.wake().0 - now, 10);
    let next = poll(&mut agent, now + 10);
    // An earlier poll says nothing about the one that is under way.
    agent.step(Moment(now + 11), Input::Unanswered(id));
    agent.step(Moment(now + 12), Input::Unanswered(next));
    assert_eq!(agent.wake().0, now + 22);
}

#[test]
fn a_change_of_the_offer_replaces_a_poll_that_is_held() {
    let mut agent = agent();
    let first = poll(&mut agent, 0);
    agent.step(Moment(4), Input::OfferChanged);
    agent.step(Moment(5), Input::OfferChanged);
    assert_eq!(agent.wake(), Moment(10), "many changes make one poll");
    assert_ne!(poll(&mut agent, 10), first);
}

#[test]
fn a_lease_whose_source_does_not_arrive_is_given_back_unused() {
    let mut agent = agent();
    let id = poll(&mut agent, 0);
    agent.step(Moment(1), answer(id, &[lease(1)]));
    assert_eq!(agent.step(Moment(5), Input::NotRecorded(lease(1))), []);
    assert!(agent.wake() <= Moment(5));
    let effects = agent.step(Moment(5), Input::Tick);
    let release = Release {
        lease: lease(1),
        is_unused: true,
    };
    assert!(effects.contains(&Effect::Release(release)), "{effects:?}");
    let effects = agent.step(Moment(6), Input::Settled(lease(1)));
    assert_eq!(effects, [Effect::Forget(lease(1))]);
    // A lease that is over meanwhile stays so.
    assert_eq!(agent.step(Moment(7), Input::NotRecorded(lease(1))), []);
}
