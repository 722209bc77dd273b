//! Linearizability: many clients, a server that is killed, paused and restarted, and a check of all
//! answers.
//!
//! Without history a package is a register that only grows: `get(checksum)` may return `v` only
//! between the time when `v` was assigned to that checksum and the time when `v + 1` was assigned.
//! The answers are linearizable if each value has an assignment time that fits all observations,
//! and if these times are in the order of the values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::harness::{Client, Server, is_long_run, wait_until};

/// One request as its client observed it. Times are in nanoseconds since the start of the test.
#[derive(Debug, Clone)]
struct Observation {
    version: String,
    checksum: String,
    requested: u128,
    /// The time and the value of the answer; `None` if there was none.
    answered: Option<(u128, u64)>,
}

/// The bounds of the time when one value was assigned.
#[derive(Debug, Default)]
struct Assignment {
    owner: Option<String>,
    /// The time of the first answer with this value, which was assigned before.
    before: Option<u128>,
    /// The time of the last request that returned this value. The next value was assigned later.
    next_after: u128,
}

/// Checks that assignment times exist that fit all observations. The error is the reason why not.
fn check(history: &[Observation]) -> Result<(), String> {
    let mut packages: BTreeMap<&str, Vec<&Observation>> = BTreeMap::new();
    for observation in history {
        packages
            .entry(&observation.version)
            .or_default()
            .push(observation);
    }
    packages
        .into_iter()
        .try_for_each(|(version, observations)| {
            check_package(&observations).map_err(|reason| format!("{version}: {reason}"))
        })
}

fn check_package(history: &[&Observation]) -> Result<(), String> {
    let mut assignments: BTreeMap<u64, Assignment> = BTreeMap::new();
    for Observation {
        checksum,
        requested,
        answered,
        ..
    } in history
    {
        let Some((time, value)) = answered else {
            continue;
        };
        let assignment = assignments.entry(*value).or_default();
        let owner = assignment.owner.get_or_insert_with(|| checksum.clone());
        if owner != checksum {
            return Err(format!("{value} was assigned to {owner} and to {checksum}"));
        }
        assignment.before = Some(assignment.before.map_or(*time, |before| before.min(*time)));
        assignment.next_after = assignment.next_after.max(*requested);
    }
    let mut earliest = 0;
    for (value, assignment) in &assignments {
        let owner = assignment.owner.as_ref();
        let may_have_assigned = |observation: &&&Observation| {
            Some(&observation.checksum) == owner
                && observation
                    .answered
                    .is_none_or(|(_, answer)| answer == *value)
        };
        let first_requested = history
            .iter()
            .filter(may_have_assigned)
            .map(|observation| observation.requested)
            .min();
        earliest = earliest.max(first_requested.unwrap_or(0));
        if assignment.before.is_some_and(|before| before < earliest) {
            return Err(format!(
                "{value} was returned before its earliest possible assignment"
            ));
        }
        earliest = earliest.max(assignment.next_after);
    }
    Ok(())
}

#[test]
fn the_check_detects_violations() {
    let observed = |checksum: &str, requested, answered, value| Observation {
        version: "v".into(),
        checksum: checksum.into(),
        requested,
        answered: Some((answered, value)),
    };
    let valid = [
        observed("a", 0, 9, 0),
        observed("b", 1, 5, 1),
        observed("a", 6, 8, 2),
    ];
    assert_eq!(check(&valid), Ok(()));
    assert!(
        check(&[observed("a", 0, 1, 0), observed("b", 2, 3, 0)]).is_err(),
        "two owners"
    );
    assert!(
        check(&[observed("a", 0, 1, 1), observed("b", 2, 3, 0)]).is_err(),
        "a decrease"
    );
    let stale = [
        observed("a", 0, 1, 0),
        observed("b", 2, 3, 1),
        observed("a", 4, 5, 0),
    ];
    assert!(check(&stale).is_err(), "an answer from an outdated cache");
}

/// The state that the clients share with the test.
#[derive(Debug)]
struct Shared {
    start: Instant,
    address: Mutex<SocketAddr>,
    is_finished: AtomicBool,
    answers: AtomicUsize,
}

/// Sends requests until the test is finished. Repeats unanswered requests, as BitBake does.
fn client(shared: &Shared, mut random: u64) -> Vec<Observation> {
    let mut history = Vec::new();
    let mut connection: Option<Client> = None;
    while !shared.is_finished.load(Ordering::SeqCst) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut observation = Observation {
            version: format!("p{}", (random >> 33) % 3),
            checksum: format!("c{}", (random >> 40) % 12),
            requested: shared.start.elapsed().as_nanos(),
            answered: None,
        };
        while observation.answered.is_none() && !shared.is_finished.load(Ordering::SeqCst) {
            let address = *shared.address.lock().unwrap();
            let Some(mut open) = connection.take().or_else(|| Client::connect(address).ok()) else {
                thread::yield_now();
                continue;
            };
            if let Ok(value) = open.get(&observation.version, &observation.checksum) {
                let time = shared.start.elapsed().as_nanos();
                observation.answered = Some((time, value.parse().unwrap()));
                shared.answers.fetch_add(1, Ordering::SeqCst);
                connection = Some(open);
            }
        }
        history.push(observation);
    }
    history
}

#[test]
fn answers_of_a_server_that_is_killed_and_paused_are_linearizable() {
    let rounds = if is_long_run() { 100 } else { 6 };
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let mut server = Server::start(&db);
    let shared = Arc::new(Shared {
        start: Instant::now(),
        address: Mutex::new(server.address),
        is_finished: AtomicBool::new(false),
        answers: AtomicUsize::new(0),
    });
    let clients: Vec<_> = (0..8)
        .map(|seed| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || client(&shared, seed))
        })
        .collect();
    for round in 0..rounds {
        let before = shared.answers.load(Ordering::SeqCst);
        wait_until("there are more answers", || {
            shared.answers.load(Ordering::SeqCst) > before + 200
        });
        if round % 2 == 0 {
            server.signal(Signal::SIGSTOP);
            let paused = Instant::now();
            wait_until("the pause is over", || {
                paused.elapsed() > Duration::from_millis(20)
            });
            server.signal(Signal::SIGCONT);
        } else {
            server.signal(Signal::SIGKILL);
            server.wait();
            server = Server::start(&db);
            *shared.address.lock().unwrap() = server.address;
        }
    }
    shared.is_finished.store(true, Ordering::SeqCst);
    let history: Vec<Observation> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    assert_eq!(check(&history), Ok(()));
    let rows = server.client().rows();
    for Observation {
        version,
        checksum,
        answered,
        ..
    } in history
    {
        let Some((_, value)) = answered else { continue };
        let row = [version, checksum, value.to_string()];
        assert!(rows.contains(&row), "{row:?} was answered and is lost");
    }
}
