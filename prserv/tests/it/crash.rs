//! `kill -9` at any time: no answered value is lost, and none is assigned to two checksums.

use std::collections::{HashMap, HashSet};
use std::thread;

use nix::sys::signal::Signal;

use super::harness::{Client, Server, wait_until};

const CLIENTS: usize = 8;
const ROUNDS: u64 = 4;

/// Requests values of a few packages until the connection ends. Returns the answers.
pub(crate) fn request_until_disconnected(mut client: Client, mut seed: u64) -> Vec<[String; 3]> {
    let mut answered = Vec::new();
    loop {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let version = format!("p{}", (seed >> 33) % 5);
        let checksum = format!("c{}", (seed >> 40) % 50);
        match client.get(&version, &checksum) {
            Ok(value) => answered.push([version, checksum, value]),
            Err(_) => return answered,
        }
    }
}

#[test]
fn kill_9_loses_no_answered_value_and_assigns_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let mut answered = HashSet::new();
    for round in 0..ROUNDS {
        let mut server = Server::start(&db);
        let seeds = (0..CLIENTS as u64).map(|client| round * 100 + client);
        let clients: Vec<_> = seeds
            .map(|seed| {
                let client = server.client();
                thread::spawn(move || request_until_disconnected(client, seed))
            })
            .collect();
        let mut observer = server.client();
        let before = answered.len();
        wait_until("many values are assigned", || {
            observer.rows().len() > before + 300
        });
        server.signal(Signal::SIGKILL);
        server.wait();
        for client in clients {
            answered.extend(client.join().unwrap());
        }
    }
    let rows = Server::start(&db).client().rows();
    let stored: HashSet<_> = rows.iter().cloned().collect();
    let lost: Vec<_> = answered.difference(&stored).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let mut owners = HashMap::new();
    for [version, checksum, value] in rows {
        let owner = owners.entry((version, value)).or_insert(checksum.clone());
        assert_eq!(*owner, checksum, "one value for two checksums");
    }
}
