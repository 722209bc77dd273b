//! A database, coordinators in this process, and builds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::BuildId;
use config::builds::Priority;
use farm::coordinator::Coordinator;
use farm_core::messages::{Reply, Request, Subject, Submission};
use farm_core::{HostId, Requirements, Terms};
use farm_store::Store;
use server_tests::Cluster;

/// Short terms, so that a lost host is noticed while a test runs.
pub(crate) const TERMS: Terms = Terms {
    lease_ms: 2_000,
    hold_ms: 300,
    request_ms: 500,
    poll_ms: 10,
    attempts_max: 50,
};

/// Opens the store and enrols hosts.
pub(crate) async fn open(url: &str, hosts: u8) -> Store {
    let store = Store::open(url, 8).await.unwrap();
    for host in 1..=hosts {
        let name = format!("host{host}");
        store.invite([host; 32], &name, 60).await.unwrap();
        let enrolled = store.enrol([host; 32], [100 + host; 32]).await.unwrap();
        assert_eq!(enrolled, Some(HostId(host.into())));
    }
    store
}

/// Starts a coordinator, which watches the hosts until the runtime ends.
pub(crate) fn coordinator(store: &Store) -> Arc<Coordinator> {
    let coordinator = Arc::new(Coordinator::new(store.clone(), TERMS));
    let watched = Arc::clone(&coordinator);
    tokio::spawn(async move { watched.watch().await });
    coordinator
}

/// Returns a request for a build.
pub(crate) fn submission(key: &str) -> Submission {
    Submission {
        key: key.to_owned(),
        submitter: "ann".parse().unwrap(),
        priority: Priority(0),
        requirements: Requirements {
            machine: "linux".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            cpus: 1,
            memory_mib: 1,
            resources: std::collections::BTreeMap::new(),
            work: farm_core::Work::default(),
        },
        subject: Subject::default(),
    }
}

/// Submits a build, repeatedly until it is acknowledged.
pub(crate) async fn submit(coordinator: &Coordinator, key: &str) -> BuildId {
    loop {
        let reply = coordinator.handle(Request::Submit(submission(key))).await;
        if let Reply::Submitted(build) = reply {
            return build;
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until a query returns a number that satisfies a condition.
pub(crate) async fn wait_for(cluster: &Cluster, query: &str, holds: impl Fn(i64) -> bool) {
    let started = Instant::now();
    let mut last = None;
    while !last.is_some_and(&holds) {
        assert!(
            started.elapsed() < Duration::from_secs(90),
            "{query}: {last:?}"
        );
        last = number(cluster, query);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the number that a query returns, if the database answers.
pub(crate) fn number(cluster: &Cluster, query: &str) -> Option<i64> {
    let url = cluster.url();
    let answer = std::thread::spawn({
        let query = query.to_owned();
        move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).ok()?;
            Some(client.query_one(&query, &[]).ok()?.get(0))
        }
    });
    answer.join().unwrap()
}

/// Executes statements.
pub(crate) fn execute(cluster: &Cluster, statements: &str) {
    std::thread::scope(|scope| {
        let executed = scope.spawn(|| {
            let mut client = postgres::Client::connect(&cluster.url(), postgres::NoTls)?;
            client.batch_execute(statements)
        });
        executed.join().unwrap().unwrap();
    });
}

/// Adds builds of ten submitters to the queue.
pub(crate) fn fill(cluster: &Cluster, count: u32) {
    let fill = format!(
        "WITH added AS (
            INSERT INTO builds (id, submitter, priority, machine, requirements, submitted)
            SELECT nextval('build_ids'), 's' || n % 10, 0, 'linux',
                '{{\"machine\":\"linux\",\"toolchain\":\"default\",\"cpus\":1,\"memory_mib\":1}}', now()
            FROM generate_series(1, {count}) n RETURNING 1)
        SELECT count(*) FROM added"
    );
    assert_eq!(number(cluster, &fill), Some(count.into()));
}
