//! Is the service linearizable? Many clients, a server that is killed, paused and started again,
//! and a check of everything that clients saw.
//!
//! Without history a package is a register that only grows: `get(checksum)` answers `v` only
//! between the moment when `v` was given to that checksum and the moment when `v + 1` was given.
//! So there must be moments, one for each value and in their order, that fit all intervals seen.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::harness::{Client, Server, wait_until};

/// One request as its client saw it; times in nanoseconds since the start.
#[derive(Debug, Clone)]
struct Seen {
    version: String,
    checksum: String,
    asked: u128,
    /// When which value came; `None` when no answer ever came.
    answered: Option<(u128, u64)>,
}

/// What is known of the moment when one value was given.
#[derive(Debug, Default)]
struct Moment {
    owner: Option<String>,
    /// The first answer with this value: it was given before.
    before: Option<u128>,
    /// The last request that was answered with it: the next one was given after.
    next_after: u128,
}

/// Looks for moments that fit; the fault says why there are none.
fn check(history: &[Seen]) -> Result<(), String> {
    let mut packages: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for seen in history {
        packages.entry(&seen.version).or_default().push(seen);
    }
    packages.into_iter().try_for_each(|(version, seen)| {
        check_package(&seen).map_err(|fault| format!("{version}: {fault}"))
    })
}

fn check_package(history: &[&Seen]) -> Result<(), String> {
    let mut moments: BTreeMap<u64, Moment> = BTreeMap::new();
    for Seen {
        checksum,
        asked,
        answered,
        ..
    } in history
    {
        let Some((time, value)) = answered else {
            continue;
        };
        let moment = moments.entry(*value).or_default();
        let owner = moment.owner.get_or_insert_with(|| checksum.clone());
        if owner != checksum {
            return Err(format!("{value} was given to {owner} and to {checksum}"));
        }
        moment.before = Some(moment.before.map_or(*time, |before| before.min(*time)));
        moment.next_after = moment.next_after.max(*asked);
    }
    let mut earliest = 0;
    for (value, moment) in &moments {
        let who = moment.owner.as_ref();
        let may_have_given = |seen: &&&Seen| {
            Some(&seen.checksum) == who && seen.answered.is_none_or(|(_, answer)| answer == *value)
        };
        let first_asked = history
            .iter()
            .filter(may_have_given)
            .map(|seen| seen.asked)
            .min();
        earliest = earliest.max(first_asked.unwrap_or(0));
        if moment.before.is_some_and(|before| before < earliest) {
            return Err(format!(
                "{value} was answered before it can have been given"
            ));
        }
        earliest = earliest.max(moment.next_after);
    }
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() {
    let seen = |checksum: &str, asked, answered, value| Seen {
        version: "v".into(),
        checksum: checksum.into(),
        asked,
        answered: Some((answered, value)),
    };
    let right = [seen("a", 0, 9, 0), seen("b", 1, 5, 1), seen("a", 6, 8, 2)];
    assert_eq!(check(&right), Ok(()));
    assert!(
        check(&[seen("a", 0, 1, 0), seen("b", 2, 3, 0)]).is_err(),
        "two owners"
    );
    assert!(
        check(&[seen("a", 0, 1, 1), seen("b", 2, 3, 0)]).is_err(),
        "down"
    );
    let stale = [seen("a", 0, 1, 0), seen("b", 2, 3, 1), seen("a", 4, 5, 0)];
    assert!(check(&stale).is_err(), "an answer from an outdated memory");
}

/// The world that clients and the one who disturbs it share.
#[derive(Debug)]
struct World {
    start: Instant,
    address: Mutex<SocketAddr>,
    is_over: AtomicBool,
    answers: AtomicUsize,
}

/// Asks until the world ends; a request without an answer is sent again, as BitBake does.
fn client(world: &World, mut dice: u64) -> Vec<Seen> {
    let mut history = Vec::new();
    let mut connection: Option<Client> = None;
    while !world.is_over.load(Ordering::SeqCst) {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut seen = Seen {
            version: format!("p{}", (dice >> 33) % 3),
            checksum: format!("c{}", (dice >> 40) % 12),
            asked: world.start.elapsed().as_nanos(),
            answered: None,
        };
        while seen.answered.is_none() && !world.is_over.load(Ordering::SeqCst) {
            let address = *world.address.lock().unwrap();
            let Some(mut open) = connection.take().or_else(|| Client::connect(address).ok()) else {
                thread::yield_now();
                continue;
            };
            if let Ok(value) = open.get(&seen.version, &seen.checksum) {
                seen.answered = Some((world.start.elapsed().as_nanos(), value.parse().unwrap()));
                world.answers.fetch_add(1, Ordering::SeqCst);
                connection = Some(open);
            }
        }
        history.push(seen);
    }
    history
}

#[test]
fn what_clients_see_of_a_server_that_is_killed_and_paused_is_linearizable() {
    let rounds = if env::var_os("BUILDHOST_LONG").is_some() {
        100
    } else {
        6
    };
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let mut server = Server::start(&db);
    let world = Arc::new(World {
        start: Instant::now(),
        address: Mutex::new(server.address),
        is_over: AtomicBool::new(false),
        answers: AtomicUsize::new(0),
    });
    let clients: Vec<_> = (0..8)
        .map(|seed| {
            let world = Arc::clone(&world);
            thread::spawn(move || client(&world, seed))
        })
        .collect();
    for round in 0..rounds {
        let before = world.answers.load(Ordering::SeqCst);
        wait_until("there are answers", || {
            world.answers.load(Ordering::SeqCst) > before + 200
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
            *world.address.lock().unwrap() = server.address;
        }
    }
    world.is_over.store(true, Ordering::SeqCst);
    let history: Vec<Seen> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    assert_eq!(check(&history), Ok(()));
    let rows = server.client().rows();
    for Seen {
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
