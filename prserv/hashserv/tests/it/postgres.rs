//! A PostgreSQL database that several servers share. Needs Debian's `postgresql`.

use std::thread;

use serde_json::json;
use server_tests::Cluster;

use super::harness::{Server, hash};

#[test]
fn everything_works_on_postgresql_too() {
    let cluster = Cluster::start();
    let server = Server::start(cluster.url());
    let mut client = server.client();
    for number in 0..20 {
        client.report(number, number % 4).unwrap();
    }
    for number in 0..20 {
        assert_eq!(client.get(number).unwrap(), Some(hash(number % 4)));
    }
    let all = json!({"get": {"method": "m", "taskhash": hash(5), "all": true}});
    let report = client.request(&all).unwrap();
    assert_eq!(report["outhash"], hash(1));
    assert!(
        report["created"].as_str().unwrap().contains('T'),
        "{report}"
    );
    let mark = json!({"gc-mark": {"mark": "A", "where": {"unihash": hash(1), "method": "m"}}});
    assert_eq!(client.request(&mark).unwrap(), json!({"count": 5}));
    let status = client.request(&json!({"gc-status": {}})).unwrap();
    assert_eq!(status, json!({"keep": 5, "remove": 15, "mark": "A"}));
    let sweep = json!({"gc-sweep": {"mark": "A"}});
    assert_eq!(client.request(&sweep).unwrap(), json!({"count": 15}));
    assert_eq!(client.get(2).unwrap(), None);
    let clean = |age: u64| json!({"clean-unused": {"max_age_seconds": age}});
    assert_eq!(client.request(&clean(3600)).unwrap(), json!({"count": 0}));
    assert_eq!(client.request(&clean(0)).unwrap(), json!({"count": 15}));
    let columns = client
        .request(&json!({"get-db-query-columns": {}}))
        .unwrap();
    for column in columns["columns"].as_array().unwrap() {
        let name = column.as_str().unwrap();
        let remove = json!({"remove": {"where": {name: "nothing"}}});
        assert_eq!(
            client.request(&remove).unwrap(),
            json!({"count": 0}),
            "{name}"
        );
    }
    let usage = client.request(&json!({"get-db-usage": {}})).unwrap();
    assert_eq!(usage["usage"]["unihashes_v3"]["rows"], 5);
    drop(server);
    let again = Server::start_with(cluster.url(), &["--keep-days", "1"]);
    assert_eq!(again.client().get(1).unwrap(), Some(hash(1)));
}

#[test]
fn servers_that_share_a_database_miss_no_equivalence() {
    let cluster = Cluster::start();
    let servers = [Server::start(cluster.url()), Server::start(cluster.url())];
    let answers: Vec<Vec<String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let server = &servers[usize::try_from(worker % 2).unwrap()];
                scope.spawn(move || {
                    let mut client = server.client();
                    let report = |number| client.report(worker * 1000 + number, number).unwrap();
                    (0..50).map(report).collect()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    for others in &answers[1..] {
        assert_eq!(others, &answers[0]);
    }
}
