//! A PostgreSQL database that several servers share. Needs Debian's `postgresql`.

use std::collections::{HashMap, HashSet};
use std::thread;

use nix::sys::signal::Signal;
use server_tests::Cluster;

use super::crash::request_until_disconnected;
use super::harness::{Server, prserv, wait_until};

#[test]
#[ignore = "needs PostgreSQL"]
fn two_servers_on_one_database_stay_consistent_when_one_is_killed() {
    let cluster = Cluster::start();
    let url = cluster.url();
    let mut killed = Server::start(&url);
    let mut other = Server::start(&url);
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let client = if number % 2 == 0 {
                killed.client()
            } else {
                other.client()
            };
            thread::spawn(move || request_until_disconnected(client, number))
        })
        .collect();
    let mut observer = other.client();
    wait_until("many values are assigned", || observer.rows().len() > 200);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    let before = observer.rows().len();
    wait_until("the other server continues", || {
        observer.rows().len() > before + 100
    });
    other.signal(Signal::SIGTERM);
    assert!(other.wait().success());
    let answered: HashSet<_> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    let rows = Server::start(&url).client().rows();
    let stored: HashSet<_> = rows.iter().cloned().collect();
    assert!(answered.is_subset(&stored), "an answered value is lost");
    let mut owners = HashMap::new();
    for [version, checksum, value] in rows {
        let owner = owners.entry((version, value)).or_insert(checksum.clone());
        assert_eq!(*owner, checksum, "one value for two checksums");
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_value_assigned_by_one_server_is_visible_to_others_immediately() {
    let cluster = Cluster::start();
    let url = cluster.url();
    let servers = [Server::start(&url), Server::start(&url)];
    let mut clients = servers.each_ref().map(Server::client);
    let reader = Server::start_with(&url, &["--read-only"]);
    for round in 0..20_u32 {
        let [one, two] = &mut clients;
        assert_eq!(one.get("v", "a").unwrap(), (2 * round).to_string());
        assert_eq!(two.get("v", "b").unwrap(), (2 * round + 1).to_string());
        assert_eq!(
            reader.client().get("v", "b").unwrap(),
            (2 * round + 1).to_string()
        );
    }
    assert_eq!(reader.client().rows().len(), 40);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_query_that_the_database_rejects_fails_no_other() {
    let cluster = Cluster::start();
    let server = Server::start(cluster.url());
    let others: Vec<_> = (0..4)
        .map(|number| {
            let client = server.client();
            thread::spawn(move || request_until_disconnected(client, number).len())
        })
        .collect();
    // Longer than an index entry of PostgreSQL may be, and not compressible.
    let long: Vec<_> = (0..3000_u32)
        .map(|number| format!("{:x}", number.wrapping_mul(2_654_435_761)))
        .collect();
    let long = long.concat();
    for _ in 0..10 {
        assert!(server.client().get(&long, "c").is_err());
    }
    assert_eq!(server.client().get("fine", "c").unwrap(), "0");
    drop(server);
    for other in others {
        assert!(other.join().unwrap() > 0);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_commands_work_on_postgresql() {
    let cluster = Cluster::start();
    let url = cluster.url();
    assert_eq!(Server::start(&url).client().get("v", "a").unwrap(), "0");
    let output = prserv().args(["list", "--db", &url]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        table,
        "VERSION  PKGARCH  VALUE  ROWS\nv        all      0      1\n"
    );
    let output = prserv()
        .args(["list", "--db", "postgres://nobody@/none?host=/nowhere"])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(1));
}
