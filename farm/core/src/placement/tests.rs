use std::collections::BTreeSet;

use config::BuildId;
use config::builds::Priority;
use config::task::Digest;
use proptest::prelude::*;

use super::*;
use crate::site::{HostState, Site};
use crate::{Epoch, OfferedMachine, Revision};

fn requirements(machine: &str, cpus: u64) -> Requirements {
    Requirements {
        machine: machine.parse().unwrap(),
        toolchain: "default".parse().unwrap(),
        cpus,
        memory_mib: 100 * cpus,
        resources: BTreeMap::new(),
        work: crate::Work::default(),
    }
}

fn candidate(build: u64, submitter: &str, cpus: u64) -> Candidate {
    Candidate {
        build: BuildId(build),
        epoch: Epoch(0),
        submitter: submitter.parse().unwrap(),
        priority: Priority(0),
        requirements: requirements("linux", cpus),
        waited_ms: 0,
        usual_ms: None,
        may_be_on_trial: true,
    }
}

fn offer(cpus: u64) -> Offer {
    let machine = OfferedMachine {
        revision: Revision(1),
        content: None,
        toolchains: BTreeSet::from(["default".parse().unwrap()]),
        frozen: false,
        cached: false,
        trial: None,
    };
    let total = Capacity {
        guests: 10,
        cpus,
        memory_mib: 1000,
        resources: BTreeMap::new(),
    };
    Offer {
        machines: [("linux".parse().unwrap(), machine)].into(),
        free: total.clone(),
        total,
        ..Offer::default()
    }
}

fn host(number: u64, offer: Offer) -> HostRow {
    HostRow {
        host: HostId(number),
        beat: 1,
        leases: 0,
        orders: 0,
        drained: false,
        offer,
    }
}

fn placed(offer: &Offer, builds: &[Candidate], hosts: &[HostRow]) -> Vec<u64> {
    placed_before(None, offer, builds, hosts)
}

fn placed_before(
    opens_in_ms: Option<u64>,
    offer: &Offer,
    builds: &[Candidate],
    hosts: &[HostRow],
) -> Vec<u64> {
    let hosts = hosts.iter().map(|it| (it.host, it.clone())).collect();
    let picks = place(&Placement {
        host: HostId(1),
        offer,
        published: &BTreeMap::new(),
        trials: &BTreeMap::new(),
        vacancies: &BTreeMap::new(),
        builds,
        used_ms: &BTreeMap::new(),
        hosts: &hosts,
        opens_in_ms,
    });
    picks.iter().map(|it| it.build.0).collect()
}

#[test]
fn submitters_take_turns_and_a_higher_priority_comes_first() {
    let mut builds = vec![
        candidate(1, "ann", 1),
        candidate(2, "ann", 1),
        candidate(3, "ann", 1),
        candidate(4, "bob", 1),
        candidate(5, "bob", 1),
    ];
    builds[2].priority = Priority(1);
    assert_eq!(placed(&offer(4), &builds, &[]), [3, 4, 1, 5]);
}

#[test]
fn a_new_build_waits_for_the_host_with_its_checkpoint() {
    let mut warm = offer(4);
    warm.machines
        .values_mut()
        .for_each(|machine| machine.frozen = true);
    let mut builds = [candidate(1, "ann", 1)];
    assert!(placed(&offer(4), &builds, &[host(2, warm.clone())]).is_empty());
    assert_eq!(placed(&warm, &builds, &[host(2, offer(4))]), [1]);
    builds[0].waited_ms = LOCALITY_MS;
    assert_eq!(placed(&offer(4), &builds, &[host(2, warm)]), [1]);
}

#[test]
fn before_a_window_only_builds_start_that_usually_end_in_time() {
    let mut builds = [
        candidate(1, "ann", 1),
        candidate(2, "ann", 1),
        candidate(3, "ann", 1),
    ];
    (builds[0].usual_ms, builds[1].usual_ms) = (Some(60_000), Some(60_001));
    let placed = |opens_in_ms| placed_before(opens_in_ms, &offer(4), &builds, &[]);
    assert_eq!(placed(None), [1, 2, 3]);
    assert_eq!(placed(Some(60_000)), [1]);
    // A build of which no duration is known counts as ten minutes.
    assert_eq!(placed(Some(599_999)), [1, 2]);
    assert_eq!(placed(Some(600_000)), [1, 2, 3]);
}

/// Returns the builds that a host with a candidate gets, and those of them that run on it.
fn tried(offer: &Offer, builds: &[Candidate], terms: &str, vacancies: usize) -> (usize, Vec<u64>) {
    let trial = Trial {
        number: TrialNumber(7),
        candidate: Published {
            revision: Revision(2),
            content: "a".repeat(64).parse().ok(),
        },
        terms: terms.parse().unwrap(),
        end: None,
    };
    let picks = place(&Placement {
        host: HostId(1),
        offer,
        published: &BTreeMap::new(),
        trials: &BTreeMap::from([("linux".parse().unwrap(), trial)]),
        vacancies: &BTreeMap::from([(TrialNumber(7), vacancies)]),
        builds,
        used_ms: &BTreeMap::new(),
        hosts: &BTreeMap::new(),
        opens_in_ms: None,
    });
    let on_trial = picks.iter().filter(|it| it.trial.is_some());
    assert!(on_trial.clone().all(|it| it.revision == Revision(2)));
    (picks.len(), on_trial.map(|it| it.build.0).collect())
}

#[test]
fn builds_of_the_share_run_on_a_candidate_that_the_host_has_ready() {
    let mut builds: Vec<_> = (1..=6).map(|it| candidate(it, "ann", 1)).collect();
    let mut ready = offer(6);
    let trial = crate::OfferedTrial {
        revision: Revision(2),
        content: "a".repeat(64).parse().ok(),
        toolchains: BTreeSet::from(["default".parse().unwrap()]),
        ..crate::OfferedTrial::default()
    };
    assert_eq!(tried(&ready, &builds, "2 of 2", 2), (6, vec![]));
    let mut offered = |change: fn(&mut crate::OfferedTrial)| {
        let mut trial = trial.clone();
        change(&mut trial);
        ready
            .machines
            .values_mut()
            .for_each(|it| it.trial = Some(trial.clone()));
        tried(&ready, &builds, "2 of 2", 2)
    };
    assert_eq!(offered(|it| it.content = None), (6, vec![]));
    assert_eq!(offered(|it| it.revision = Revision(3)), (6, vec![]));
    assert_eq!(offered(|it| it.toolchains.clear()), (6, vec![]));
    assert_eq!(offered(|_| ()), (6, vec![1, 2]));
    assert_eq!(tried(&ready, &builds, "2 of 2", 0), (6, vec![]));
    let share = tried(&ready, &builds, "1 of 2", 6).1;
    assert!((1..6).contains(&share.len()), "{share:?}");
    builds[0].may_be_on_trial = false;
    assert_eq!(tried(&ready, &builds, "2 of 2", 2), (6, vec![2, 3]));
}

#[test]
fn a_host_with_an_older_revision_fetches_the_published_one() {
    let second = Published {
        revision: Revision(2),
        content: None,
    };
    let published = [("linux".parse().unwrap(), second)].into();
    let offer = offer(4);
    let found = refusal(&offer, &offer.free, &requirements("linux", 1), &published);
    assert_eq!(
        found.unwrap().to_string(),
        "has revision 1 of linux and fetches 2"
    );
}

#[test]
fn a_host_with_another_revision_than_the_published_one_gets_nothing() {
    let digest = |digit: &str| digit.repeat(64).parse().ok();
    let first = Published {
        revision: Revision(1),
        content: digest("a"),
    };
    let published = [("linux".parse().unwrap(), first)].into();
    let mut offer = offer(4);
    let mut refused = |revision, content: Option<Digest>| {
        for machine in offer.machines.values_mut() {
            (machine.revision, machine.content) = (Revision(revision), content.clone());
        }
        refusal(&offer, &offer.free, &requirements("linux", 1), &published)
    };
    let linux = || "linux".parse().unwrap();
    assert_eq!(refused(1, digest("a")), None);
    let other = Refusal::OtherContent(linux(), Revision(1));
    assert_eq!(refused(1, digest("b")), Some(other));
    let unknown = Refusal::Unknown(linux(), Revision(1));
    assert_eq!(refused(1, None), Some(unknown));
    let newer = Refusal::Newer {
        machine: linux(),
        has: Revision(2),
        published: Revision(1),
    };
    assert_eq!(refused(2, None), Some(newer));
}

#[test]
fn one_sentence_says_why_a_build_waits() {
    let say = |wanted: &Requirements, hosts: &[&Site]| {
        let hosts = hosts.iter().map(|site| (*site, None));
        why(wanted, hosts, &BTreeMap::new())
    };
    let site = |name: &str, state, offer: Offer| Site {
        name: name.to_owned(),
        state,
        offer: offer.into(),
    };
    let mut used = offer(4);
    used.free.cpus = 1;
    let busy = site("a", HostState::Alive, used);
    let drained = site("b", HostState::Drained, offer(4));
    let small = site("c", HostState::Alive, offer(1));
    let free = site("d", HostState::Alive, offer(4));
    let silent = site("e", HostState::Silent, offer(4));
    let wanted = requirements("linux", 2);
    let sentences = [
        say(&wanted, &[]),
        say(&wanted, &[&drained, &busy]),
        say(&wanted, &[&drained]),
        say(&wanted, &[&small]),
        say(&requirements("bsd", 1), &[&busy]),
        say(&wanted, &[&free]),
        say(&wanted, &[&silent]),
    ];
    let expected = [
        "no host can ever start it, because the farm has no hosts",
        "host a is busy: processors (2 wanted, 1 there); another host could take it as well",
        "host b is drained",
        "no host can ever start it, because the nearest, host c, is too small: processors (2 wanted, 1 there)",
        "no host can ever start it, because none has machine bsd",
        "host d can start it now",
        "host e starts nothing: it gives no sign of life",
    ];
    assert_eq!(sentences, expected);
}

proptest! {
    #[test]
    fn a_placement_never_exceeds_what_is_free(
        needs in prop::collection::vec(1..6u64, 0..20),
        cpus in 0..12u64,
    ) {
        let builds: Vec<_> = (1..).zip(&needs).map(|(n, cpus)| candidate(n, "ann", *cpus)).collect();
        let offer = offer(cpus);
        let picks = placed(&offer, &builds, &[]);
        let taken: u64 = picks.iter().map(|it| needs[usize::try_from(*it - 1).unwrap()]).sum();
        prop_assert!(taken <= cpus);
        let left = cpus - taken;
        let fits = |it: &Candidate| it.requirements.cpus <= left && !picks.contains(&it.build.0);
        prop_assert!(picks.len() == 10 || taken * 100 > 1000 - 600 || !builds.iter().any(fits));
    }
}
