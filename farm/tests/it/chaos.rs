//! Chaos: the database restarts, connections are killed, hosts and coordinators die. Every build has one
//! result all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{coordinator, fill, number, open, submit, wait_for};
use super::host;

/// Counts the results.
pub(crate) const DONE: &str = "SELECT count(*) FROM finished";
const KILL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'buildhost-farm'";

/// Checks that each of these builds has one result.
async fn check(cluster: &Cluster, builds: i64) {
    wait_for(cluster, "SELECT count(*) FROM builds", |left| left == 0).await;
    assert_eq!(number(cluster, DONE), Some(builds));
    let distinct = "SELECT count(DISTINCT id) FROM finished WHERE is_reported";
    assert_eq!(number(cluster, distinct), Some(builds));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn each_build_has_one_result_whatever_dies() {
    let mut cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 3).await;
    // Each coordinator has connections of its own, as two programs have.
    let other = farm_store::Store::open(&cluster.url(), 8).await.unwrap();
    let coordinators = vec![coordinator(&store), coordinator(&other)];
    let start = |number| host::start(number, coordinators.clone(), BTreeMap::new());
    let hosts = [start(1), start(2), start(3)];
    let rounds = if std::env::var_os("BUILDHOST_LONG").is_some() {
        60
    } else {
        6
    };
    let mut builds = BTreeSet::new();
    for round in 0..rounds {
        for build in 0..100 {
            let key = format!("{round}-{build}");
            let id = submit(&coordinators[build % 2], &key).await;
            assert!(builds.insert(id), "{id} belongs to two submissions");
        }
        match round % 3 {
            0 => assert!(number(&cluster, KILL).is_some_and(|killed| killed > 0)),
            1 => block_in_place(|| cluster.restart()),
            _ => {
                // A submission whose answer got lost is repeated.
                let again = submit(&coordinators[0], &format!("{round}-7")).await;
                assert!(builds.contains(&again));
            }
        }
        if round == 2 {
            hosts[2].abort();
        }
    }
    check(&cluster, i64::try_from(builds.len()).unwrap()).await;
    hosts.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn empty_builds_go_through_the_farm() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    let other = farm_store::Store::open(&cluster.url(), 8).await.unwrap();
    let coordinators = vec![coordinator(&store), coordinator(&other)];
    let count = if std::env::var_os("BUILDHOST_LONG").is_some() {
        10_000
    } else {
        1_000
    };
    fill(&cluster, u32::try_from(count).unwrap());
    let started = Instant::now();
    let hosts = [1, 2].map(|it| host::start(it, coordinators.clone(), BTreeMap::new()));
    wait_for(&cluster, DONE, |done| done == count).await;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{count} builds in {seconds:.1} s: {:.0} cycles/s",
        f64::from(u32::try_from(count).unwrap()) / seconds
    );
    check(&cluster, count).await;
    hosts.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Adds 1,000 leases of 250 hosts that give no sign of life.
pub(crate) fn lose_leases(cluster: &Cluster) {
    let fill = "WITH h AS (INSERT INTO hosts (id, name, beat) SELECT n, 'h' || n, 1
            FROM generate_series(1, 250) n),
        b AS (INSERT INTO builds (id, submitter, priority, machine, requirements, submitted, state,
                epoch, host, claimed)
            SELECT n, 's', 0, 'linux',
                '{\"machine\":\"linux\",\"toolchain\":\"default\",\"cpus\":1,\"memory_mib\":1}', now(), 1,
                1, 1 + n % 250, now() FROM generate_series(1, 1000) n RETURNING 1)
        SELECT count(*) FROM b";
    assert_eq!(number(cluster, fill), Some(1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_thousand_leases_of_dead_hosts_are_rescued_once() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    lose_leases(&cluster);
    let other = farm_store::Store::open(&cluster.url(), 8).await.unwrap();
    let _coordinators = [coordinator(&store), coordinator(&other)];
    let rescued = "SELECT count(*) FROM builds WHERE state = 0 AND losses = 1";
    wait_for(&cluster, rescued, |rescued| rescued == 1_000).await;
    assert_eq!(number(&cluster, "SELECT max(beat) FROM hosts"), Some(2));
}
