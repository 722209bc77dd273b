//! Tests of order, wait reasons and fairness.

use std::collections::BTreeSet;

use proptest::prelude::*;
use store::VolumeId;

use super::*;
use crate::Capacity;
use config::ResourceName;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

fn submitter(name: &str) -> Submitter {
    name.parse().unwrap()
}

const SMALL: ResourceRequest = ResourceRequest {
    cpus: 1,
    memory: 1024,
    disk: 100,
    machine_max: None,
    counts: BTreeMap::new(),
};

fn capacity(guests: usize) -> Capacity {
    Capacity {
        guests: Some(guests),
        cpus: 8,
        memory: 4096,
        available: 1 << 20,
        disk: [(VolumeId(0), 1000)].into(),
        pressure: None,
        counts: [(license(), 2)].into(),
    }
}

fn license() -> ResourceName {
    "license".parse().unwrap()
}

/// Returns a small request with this many licenses.
fn licensed(count: u64) -> ResourceRequest {
    ResourceRequest {
        counts: (count > 0)
            .then(|| (license(), count))
            .into_iter()
            .collect(),
        ..SMALL
    }
}

fn candidate(id: u64, name: &str, priority: i32) -> Candidate {
    Candidate {
        id: BuildId(id),
        submitter: submitter(name),
        priority: Priority(priority),
        since: at(0),
        key: ImageKey {
            machine: "linux".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
        },
        volume: VolumeId(0),
        request: SMALL,
        auxiliaries: Vec::new(),
    }
}

fn build(id: u64, request: ResourceRequest) -> Allocation {
    Allocation {
        job: JobId::Build(BuildId(id)),
        machine: "linux".parse().unwrap(),
        volume: VolumeId(0),
        request,
    }
}

const RULES: Rules = Rules {
    aging: Some(Duration::from_mins(10)),
    backfill: Duration::from_mins(5),
};

/// The builds that start, and the words for the others, in the order of their turns.
fn decided(candidates: &[Candidate], pool: ResourcePool, now: u64) -> Vec<String> {
    let mut pool = pool;
    let verdicts = admit(candidates, &mut pool, &Shares::default(), &RULES, at(now));
    let told = verdicts.iter().map(|(id, verdict)| match verdict {
        Ok(()) => format!("{id} starts"),
        Err(unschedulable) => format!("{id} waits for {unschedulable}"),
    });
    told.collect()
}

#[test]
fn submitters_take_turns_within_a_priority() {
    let queue = [
        candidate(1, "ann", 0),
        candidate(2, "ann", 0),
        candidate(3, "bob", 0),
        candidate(4, "ann", 5),
        candidate(5, "cid", -1),
    ];
    assert_eq!(
        decided(&queue, ResourcePool::new(capacity(4), Vec::new()), 0),
        [
            "4 starts",
            "3 starts",
            "1 starts",
            "2 starts",
            "5 waits for a guest: 4 of 4 run"
        ]
    );
}

/// The allocation of a bootstrap of another machine than the candidates'.
fn bootstrap_of_another_machine() -> Allocation {
    let key = ImageKey {
        machine: "other".parse().unwrap(),
        toolchain: "default".parse().unwrap(),
    };
    Allocation {
        job: JobId::Bootstrap(key),
        ..build(0, SMALL)
    }
}

/// Returns the words for the only candidate, build 12.
fn ask(request: ResourceRequest, capacity: Capacity, allocations: Vec<Allocation>) -> String {
    let asked = Candidate {
        request,
        ..candidate(12, "ann", 0)
    };
    decided(&[asked], ResourcePool::new(capacity, allocations), 0).remove(0)
}

#[test]
fn every_wait_reason_states_its_numbers() {
    let large = ResourceRequest {
        memory: 3072,
        ..SMALL
    };
    let bootstrap = bootstrap_of_another_machine();
    let two = vec![build(9, SMALL), build(10, SMALL)];
    let many: Vec<_> = (1..=7)
        .map(|id| build(id, ResourceRequest { memory: 1, ..SMALL }))
        .collect();
    let told = [
        ask(large.clone(), capacity(9), two.clone()),
        ask(large, capacity(9), vec![build(9, SMALL), bootstrap]),
        ask(ResourceRequest { cpus: 2, ..SMALL }, capacity(9), many),
        ask(
            ResourceRequest { cpus: 64, ..SMALL },
            capacity(9),
            Vec::new(),
        ),
        ask(
            ResourceRequest {
                memory: 5000,
                ..SMALL
            },
            capacity(9),
            Vec::new(),
        ),
        ask(
            ResourceRequest { disk: 900, ..SMALL },
            capacity(9),
            two.clone(),
        ),
        ask(
            ResourceRequest {
                machine_max: Some(2),
                ..SMALL
            },
            capacity(9),
            two.clone(),
        ),
        ask(
            ResourceRequest {
                machine_max: Some(1),
                ..SMALL
            },
            capacity(9),
            vec![build(9, SMALL)],
        ),
        ask(
            SMALL,
            Capacity {
                available: 100,
                ..capacity(9)
            },
            Vec::new(),
        ),
        ask(SMALL, capacity(2), two),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn wait_reasons_for_countable_resources_state_their_numbers() {
    let told = [
        ask(licensed(1), capacity(9), vec![build(9, licensed(2))]),
        ask(
            licensed(2),
            capacity(9),
            vec![build(9, SMALL), build(10, licensed(1))],
        ),
        ask(licensed(3), capacity(9), Vec::new()),
        ask(
            licensed(1),
            Capacity {
                counts: BTreeMap::new(),
                ..capacity(9)
            },
            Vec::new(),
        ),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn small_builds_backfill_for_a_limited_time() {
    let large = ResourceRequest {
        memory: 4096,
        ..SMALL
    };
    let queue = [
        Candidate {
            request: large,
            ..candidate(1, "ann", 0)
        },
        candidate(2, "bob", 0),
    ];
    let pool = || ResourcePool::new(capacity(9), vec![build(9, SMALL)]);
    assert_eq!(decided(&queue, pool(), 299)[1], "2 starts");
    assert_eq!(
        decided(&queue, pool(), 300)[1],
        "2 waits for build 1, which has waited long for memory that is kept for it"
    );
}

#[test]
fn countable_resources_are_kept_for_a_build_that_waits_long() {
    let queue = [
        Candidate {
            request: licensed(2),
            ..candidate(1, "ann", 0)
        },
        Candidate {
            request: licensed(1),
            ..candidate(2, "bob", 0)
        },
        candidate(3, "cid", 0),
    ];
    let pool = || ResourcePool::new(capacity(9), vec![build(9, licensed(1))]);
    assert_eq!(decided(&queue, pool(), 299)[1..], ["2 starts", "3 starts"]);
    assert_eq!(
        decided(&queue, pool(), 300)[1..],
        [
            "2 waits for build 1, which has waited long for resource license that is kept for it",
            "3 starts"
        ]
    );
}

#[test]
fn priority_ages_only_without_service() {
    let queue = [candidate(1, "low", 0), candidate(2, "high", 2)];
    let first = |now| decided(&queue, ResourcePool::new(capacity(1), Vec::new()), now).remove(0);
    assert_eq!(first(0), "2 starts");
    // Both have waited equally long here.
    assert_eq!(first(100_000), "2 starts");
    let fresh = Candidate {
        since: at(1200),
        ..candidate(2, "high", 2)
    };
    let queue = [candidate(1, "low", 0), fresh];
    let first = |now| decided(&queue, ResourcePool::new(capacity(1), Vec::new()), now).remove(0);
    assert_eq!(first(1200), "1 starts", "older, and no longer lower");
    assert_eq!(first(1199), "2 starts");
}

/// A host on which builds come, run and end, second by second.
struct AgentState {
    now: u64,
    capacity: Capacity,
    shares: Shares,
    queue: Vec<Candidate>,
    running: BTreeMap<BuildId, (Candidate, u64, u64)>,
    /// The guest seconds of each submitter.
    had: BTreeMap<String, u64>,
    waited: BTreeMap<BuildId, u64>,
    /// The recorded usage.
    history: Vec<UsageInterval>,
    ids: u64,
}

impl AgentState {
    fn new(capacity: Capacity) -> Self {
        Self {
            now: 1,
            capacity,
            shares: Shares::default(),
            queue: Vec::new(),
            running: BTreeMap::new(),
            had: BTreeMap::new(),
            waited: BTreeMap::new(),
            history: Vec::new(),
            ids: 0,
        }
    }

    fn submit(&mut self, name: &str, priority: i32, request: ResourceRequest) -> BuildId {
        self.ids += 1;
        let since = at(self.now);
        let asked = Candidate {
            since,
            request,
            ..candidate(self.ids, name, priority)
        };
        self.queue.push(asked);
        BuildId(self.ids)
    }

    /// One second: what is over ends, what may start starts.
    fn tick(&mut self, lasts: impl Fn(&Candidate) -> u64) {
        let now = self.now;
        self.running.retain(|_, (_, _, end)| *end > now);
        let allocations = self
            .running
            .values()
            .map(|(candidate, _, _)| build(candidate.id.0, candidate.request.clone()));
        let mut pool = ResourcePool::new(self.capacity.clone(), allocations.collect());
        let run = |(candidate, since, _): &(Candidate, u64, u64)| RunningUsage {
            submitter: candidate.submitter.clone(),
            since: at(*since),
            request: candidate.request.clone(),
        };
        let running = self.running.iter().map(|(id, it)| (*id, run(it)));
        let queued: BTreeSet<_> = self.queue.iter().map(|it| it.submitter.clone()).collect();
        self.shares
            .observe(running.collect(), &queued, &pool, at(now));
        for (id, verdict) in admit(&self.queue, &mut pool, &self.shares, &RULES, at(now)) {
            if verdict.is_ok() {
                let place = self.queue.iter().position(|it| it.id == id).unwrap();
                let candidate = self.queue.remove(place);
                let waited = elapsed(candidate.since, at(now)).as_secs();
                self.waited.insert(id, waited);
                let end = now + lasts(&candidate);
                *self.had.entry(candidate.submitter.to_string()).or_default() += end - now;
                self.history.push(UsageInterval {
                    id,
                    submitter: candidate.submitter.clone(),
                    request: candidate.request.clone(),
                    waits: candidate.since,
                    runs: Some(at(now)),
                    ends: Some(at(end)),
                });
                let begun = (candidate, now, end);
                self.shares.begin(id, run(&begun));
                self.running.insert(id, begun);
            }
        }
        self.now += 1;
    }

    /// Another agent takes over: it knows the records alone.
    fn restart(&mut self) {
        let is_over = |time: &Timestamp| *time < at(self.now);
        let known = self.history.iter().map(|interval| UsageInterval {
            ends: interval.ends.filter(is_over),
            ..interval.clone()
        });
        let queued = self.queue.iter().map(|it| UsageInterval {
            id: it.id,
            submitter: it.submitter.clone(),
            request: it.request.clone(),
            waits: it.since,
            runs: None,
            ends: None,
        });
        let pool = ResourcePool::new(self.capacity.clone(), Vec::new());
        self.shares = Shares::of_history(&known.chain(queued).collect::<Vec<_>>(), &pool);
    }
}

#[test]
fn shares_survive_a_restart() {
    // Two short builds of ann and one long one of bob.
    let interval = |id, name, runs, ends| UsageInterval {
        id: BuildId(id),
        submitter: submitter(name),
        request: SMALL,
        waits: at(0),
        runs: Some(at(runs)),
        ends: Some(at(ends)),
    };
    let queued = |id, name| UsageInterval {
        runs: None,
        ends: None,
        ..interval(id, name, 0, 0)
    };
    let history = [
        interval(1, "ann", 1, 11),
        interval(2, "ann", 11, 21),
        interval(3, "bob", 1, 101),
        queued(4, "bob"),
        queued(5, "ann"),
    ];
    let mut pool = ResourcePool::new(capacity(1), Vec::new());
    let shares = Shares::of_history(&history, &pool);
    let had = |name| shares.usage(&submitter(name), &pool, at(101));
    let of_the_host = pool.weight(&SMALL);
    assert!((had("ann") - 20.0 * of_the_host).abs() < 1e-9, "{shares:?}");
    assert!(
        (had("bob") - 100.0 * of_the_host).abs() < 1e-9,
        "{shares:?}"
    );
    let queue = [candidate(4, "bob", 0), candidate(5, "ann", 0)];
    let verdicts = admit(&queue, &mut pool, &shares, &RULES, at(101));
    assert_eq!(verdicts[0], (BuildId(5), Ok(())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn resources_are_never_overcommitted(
        requests in prop::collection::vec((1..6u64, 1..3000u64, 0..600u64, prop::option::of(1..3usize), 0..3u64), 1..30),
        guests in 1..6usize,
    ) {
        let queue: Vec<_> = requests.iter().zip(1..).map(|((cpus, memory, disk, machine_max, licenses), id)| {
            let request = ResourceRequest { cpus: *cpus, memory: *memory, disk: *disk, machine_max: *machine_max, ..licensed(*licenses) };
            Candidate { request, ..candidate(id, ["ann", "bob"][usize::from(id % 2 == 0)], 0) }
        }).collect();
        let mut pool = ResourcePool::new(capacity(guests), Vec::new());
        let verdicts = admit(&queue, &mut pool, &Shares::default(), &RULES, at(1));
        let told: BTreeSet<_> = verdicts.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(told.len(), queue.len(), "everybody gets an answer, once");
        prop_assert!(pool.allocations().len() <= guests);
        for (what, most) in [(Resource::Cpus, 8), (Resource::Memory, 4096), (Resource::Disk(VolumeId(0)), 1000), (Resource::Count(license()), 2)] {
            prop_assert!(pool.allocated(&what) <= most);
        }
        prop_assert!(verdicts.iter().any(|(_, verdict)| verdict.is_ok()), "an idle host has work to do");
    }

    #[test]
    fn busy_submitters_get_equal_shares(
        lasts in prop::collection::vec(1..40u64, 2..6),
        guests in 1..5usize,
        latecomer in 0..500u64,
        restarts in prop::collection::btree_set(1..3000u64, 0..3),
    ) {
        // Each has builds of one length, the last one comes later; all of them want
        // more than there is. The agent is restarted now and then.
        let names: Vec<_> = (0..lasts.len()).map(|n| format!("s{n}")).collect();
        let mut agent = AgentState::new(capacity(guests));
        let mut before = BTreeMap::new();
        for second in 0..3000 {
            for name in &names[..names.len() - usize::from(second < latecomer)] {
                let own = agent.queue.iter().filter(|it| it.submitter.as_str() == name).count();
                for _ in own..guests {
                    agent.submit(name, 0, SMALL);
                }
            }
            if second == latecomer {
                before = agent.had.clone();
            }
            if restarts.contains(&second) {
                agent.restart();
            }
            agent.tick(|candidate| lasts[candidate.submitter.as_str()[1..].parse::<usize>().unwrap()]);
        }
        let since = |name: &String| agent.had.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
        let had: Vec<_> = names.iter().map(since).collect();
        let (least, most) = (*had.iter().min().unwrap(), *had.iter().max().unwrap());
        // Nobody is ahead by more than what all guests may do at once, and a guess.
        let bound = 3 * guests as u64 * lasts.iter().max().unwrap().max(&60);
        prop_assert!(most - least <= bound, "{had:?}, at most {bound} apart");
    }

    #[test]
    fn no_submitter_starves(
        large in 1..=4096u64,
        licenses in 0..=2u64,
        priority in -3..=0i32,
        lasts in 1..60u64,
    ) {
        let mut agent = AgentState::new(capacity(4));
        let mut modest = None;
        for second in 0..20_000 {
            for name in ["urgent", "greedy"] {
                while agent.queue.iter().filter(|it| it.submitter.as_str() == name).count() < 4 {
                    let number = agent.ids % 2;
                    agent.submit(name, if name == "urgent" { 3 } else { 0 }, licensed(number));
                }
            }
            if second == 100 {
                modest = Some(agent.submit("modest", priority, ResourceRequest { memory: large, ..licensed(licenses) }));
            }
            agent.tick(|candidate| 1 + (candidate.id.0 * 7) % lasts);
            let used = agent.running.values().map(|(it, ..)| it.request.counts.get(&license()).unwrap_or(&0));
            prop_assert!(used.sum::<u64>() <= 2);
            if modest.is_some_and(|id| agent.waited.contains_key(&id)) {
                break;
            }
        }
        let waited = modest.and_then(|id| agent.waited.get(&id).copied());
        // It rises by one each ten minutes, and then waits for room.
        let bound = u64::from((3 - priority).unsigned_abs() + 1) * 600 + 300 + 5 * 60;
        prop_assert!(waited.is_some_and(|waited| waited <= bound), "{waited:?} of {bound}");
    }
}
