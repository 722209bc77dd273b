use config::builds::Priority;

use super::*;
use crate::messages::Grant;
use crate::{Lease, Requirements, Revision};

fn candidate(build: u64) -> Candidate {
    Candidate {
        build: BuildId(build),
        epoch: Epoch(0),
        submitter: "ann".parse().unwrap(),
        priority: Priority(0),
        requirements: Requirements {
            machine: "linux".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            cpus: 1,
            memory_mib: 1,
            resources: BTreeMap::new(),
            work: crate::Work::default(),
        },
        waited_ms: 0,
        usual_ms: None,
        may_be_on_trial: true,
    }
}

fn machines() -> Vec<MachineName> {
    vec!["linux".parse().unwrap()]
}

fn read(queue: &mut Queue, at: u64, builds: std::ops::Range<u64>) {
    let operation = queue.reading(&machines(), 32);
    let builds = builds.map(candidate).collect();
    let used_ms = BTreeMap::from([("ann".parse().unwrap(), 5)]);
    let answer = Answer::Candidates {
        builds,
        used_ms,
        vacancies: BTreeMap::from([(TrialNumber(1), 1)]),
    };
    queue.note(Moment(at), &operation, &answer);
}

fn pick(build: u64) -> Pick {
    Pick {
        build: BuildId(build),
        epoch: Epoch(0),
        content: None,
        revision: Revision(0),
        charge_ms: 100,
        trial: None,
    }
}

fn found(queue: &Queue, now: u64) -> Option<(Vec<u64>, u64)> {
    match queue.answer(Moment(now), &machines(), 32)? {
        Answer::Candidates {
            builds, used_ms, ..
        } => Some((
            builds.iter().map(|it| it.build.0).collect(),
            used_ms.values().sum(),
        )),
        _ => None,
    }
}

#[test]
fn a_queue_that_was_read_serves_polls_for_a_second() {
    let mut queue = Queue::new(0);
    assert_eq!(found(&queue, 0), None);
    read(&mut queue, 0, 1..4);
    assert_eq!(found(&queue, 999), Some((vec![1, 2, 3], 5)));
    assert_eq!(found(&queue, 1_000), None);
    assert!(queue.is_recent(Moment(499)) && !queue.is_recent(Moment(500)));
    assert_eq!(queue.answer(Moment(0), &["bsd".parse().unwrap()], 32), None);
}

#[test]
fn builds_that_are_being_claimed_are_not_offered_twice() {
    let mut queue = Queue::new(0);
    read(&mut queue, 0, 1..4);
    queue.claiming(Moment(1), &[pick(1), pick(2)]);
    assert_eq!(found(&queue, 2), Some((vec![3], 205)));
    let grant = Grant {
        lease: Lease {
            build: BuildId(1),
            epoch: Epoch(1),
        },
        requirements: candidate(1).requirements,
        canceled: false,
        trial: None,
    };
    queue.claimed(&[pick(1), pick(2)], &Answer::Claimed(vec![grant]));
    assert_eq!(found(&queue, 3), None, "others have claimed build 2");
    read(&mut queue, 4, 2..4);
    assert_eq!(found(&queue, 5), Some((vec![2, 3], 5)));
}

#[test]
fn a_build_that_is_placed_on_a_candidate_takes_its_vacancy() {
    let mut queue = Queue::new(0);
    read(&mut queue, 0, 1..4);
    let vacancies = |queue: &Queue| match queue.answer(Moment(0), &machines(), 32) {
        Some(Answer::Candidates { vacancies, .. }) => vacancies[&TrialNumber(1)],
        _ => panic!("the queue was read"),
    };
    assert_eq!(vacancies(&queue), 1);
    let tried = Pick {
        trial: Some(TrialNumber(1)),
        ..pick(1)
    };
    queue.claiming(Moment(0), &[tried, pick(2)]);
    assert_eq!(vacancies(&queue), 0);
}

#[test]
fn a_claim_that_was_overtaken_leaves_its_builds_in_the_queue() {
    let mut queue = Queue::new(0);
    read(&mut queue, 0, 1..4);
    queue.claiming(Moment(1), &[pick(1), pick(2)]);
    queue.claimed(&[pick(1), pick(2)], &Answer::Overtaken);
    assert_eq!(found(&queue, 2).unwrap().0, [1, 2, 3]);
}

#[test]
fn a_claim_without_an_answer_hides_its_builds_for_a_time() {
    let mut queue = Queue::new(0);
    read(&mut queue, 0, 1..3);
    queue.claiming(Moment(1), &[pick(1)]);
    read(&mut queue, 9_000, 1..3);
    assert_eq!(found(&queue, 9_000).unwrap().0, [2]);
    read(&mut queue, 11_000, 1..3);
    assert_eq!(found(&queue, 11_000).unwrap().0, [1, 2]);
}

#[test]
fn a_lane_that_was_not_read_to_its_end_is_read_again_when_it_is_used_up() {
    let mut queue = Queue::new(0);
    read(&mut queue, 0, 0..128);
    assert_eq!(found(&queue, 1).unwrap().0.len(), 32);
    let picks: Vec<_> = (0..128).map(pick).collect();
    queue.claiming(Moment(1), &picks[..127]);
    assert_eq!(found(&queue, 1).unwrap().0, [127]);
    queue.claiming(Moment(1), &picks[127..]);
    assert_eq!(found(&queue, 1), None);
}

#[test]
fn coordinators_begin_at_different_builds_of_a_long_queue() {
    let first = [0, 1, 2, 3].map(|number| {
        let mut queue = Queue::new(number);
        read(&mut queue, 0, 0..128);
        found(&queue, 0).unwrap().0[0]
    });
    assert_eq!(first, [0, 32, 64, 96]);
    // The one that loses builds to another one begins elsewhere.
    let mut queue = Queue::new(3);
    read(&mut queue, 0, 0..128);
    queue.claiming(Moment(0), &[pick(96)]);
    queue.claimed(&[pick(96)], &Answer::Claimed(Vec::new()));
    read(&mut queue, 1, 0..128);
    assert_eq!(found(&queue, 1).unwrap().0[0], 0);
    let mut queue = Queue::new(3);
    read(&mut queue, 0, 0..8);
    assert_eq!(found(&queue, 0).unwrap().0[0], 0);
}
