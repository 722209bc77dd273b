//! Measurements, which `scripts/bench farm` prints. They assert nothing about time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use farm::coordinator::Coordinator;
use farm_core::messages::{Poll, PollId, Reply, Report, Request};
use farm_core::{HostId, Terms};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::chaos::DONE;
use super::farm::{coordinator, fill, number, open, wait_for};
use super::host::{self, offer};

/// Prints a row of the table.
#[expect(clippy::print_stdout, reason = "`scripts/bench` shows it")]
fn row(what: &str, value: &str) {
    println!("{what:<44} {value:>16}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn cycles() {
    const BUILDS: u32 = 5_000;
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    let other = farm_store::Store::open(&cluster.url(), 8).await.unwrap();
    let coordinators = vec![coordinator(&store), coordinator(&other)];
    for held in [false, true] {
        let before = number(&cluster, DONE).unwrap();
        fill(&cluster, BUILDS);
        let mut client =
            block_in_place(|| postgres::Client::connect(&cluster.url(), postgres::NoTls)).unwrap();
        if held {
            block_in_place(|| client.batch_execute("BEGIN; SELECT txid_current()")).unwrap();
        }
        let started = Instant::now();
        let hosts = [1, 2].map(|it| host::start(it, coordinators.clone(), BTreeMap::new()));
        let all = before + i64::from(BUILDS);
        wait_for(&cluster, DONE, |done| done == all).await;
        let rate = f64::from(BUILDS) / started.elapsed().as_secs_f64();
        hosts.iter().for_each(tokio::task::JoinHandle::abort);
        block_in_place(|| drop(client));
        let what = if held {
            "claim to finish, beside a held BEGIN"
        } else {
            "claim to finish"
        };
        row(what, &format!("{rate:.0} cycles/s"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn claims() {
    const POLLS: u64 = 500;
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let coordinator = coordinator(&store);
    fill(&cluster, 6_000);
    let mut took = Vec::new();
    for poll in 0..POLLS {
        let id = PollId {
            incarnation: 1,
            number: poll,
        };
        let poll = Poll {
            id,
            held: Vec::new(),
            hold_ms: 0,
            offer: offer(0),
        };
        let started = Instant::now();
        let reply = coordinator.handle(Request::Poll(HostId(1), poll)).await;
        took.push(started.elapsed());
        let Reply::Leases(answer) = reply else {
            continue;
        };
        for grant in answer.leases {
            let report = Report {
                lease: grant.lease,
                outcome: config::task::Outcome::Success,
            };
            coordinator.handle(Request::Report(HostId(1), report)).await;
        }
    }
    took.sort();
    for percent in [50, 99] {
        let time = took[took.len() * percent / 100];
        row(
            &format!("poll that claims 8 of 6000, p{percent}"),
            &format!("{:.1} ms", time.as_secs_f64() * 1e3),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn idle_hosts() {
    const SECONDS: u64 = 20;
    const HOSTS: u64 = 1_000;
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let hosts = "WITH h AS (INSERT INTO hosts (id, name) SELECT n, 'h' || n
        FROM generate_series(1, 1000) n RETURNING 1) SELECT count(*) FROM h";
    assert_eq!(number(&cluster, hosts), Some(1_000));
    let coordinator = std::sync::Arc::new(Coordinator::new(store, Terms::default()));
    let watched = std::sync::Arc::clone(&coordinator);
    tokio::spawn(async move { watched.watch().await });
    let tasks: Vec<_> = (1..=HOSTS)
        .map(|host| {
            let coordinator = std::sync::Arc::clone(&coordinator);
            tokio::spawn(async move {
                // The polls of the hosts spread over the time for which they are held.
                tokio::time::sleep(Duration::from_millis(20 * host)).await;
                for number in 0.. {
                    let id = PollId {
                        incarnation: host,
                        number,
                    };
                    let poll = Poll {
                        id,
                        held: Vec::new(),
                        hold_ms: Terms::default().hold_ms,
                        offer: offer(0),
                    };
                    coordinator.handle(Request::Poll(HostId(host), poll)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(21)).await;
    let own = |who| {
        let usage = getrusage(who).unwrap();
        usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
    };
    let (before, database) = (own(UsageWho::RUSAGE_SELF), server_ms(&cluster));
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let (after, database_after) = (own(UsageWho::RUSAGE_SELF), server_ms(&cluster));
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let percent = |ms: i64| {
        format!(
            "{:.1} % of a core",
            f64::from(i32::try_from(ms).unwrap()) / 10.0 / 20.0
        )
    };
    row(
        "1,000 idle hosts: coordinator and hosts",
        &percent(after - before),
    );
    row(
        "1,000 idle hosts: database",
        &percent(database_after - database),
    );
}

/// Returns the time on processors of the database's connections.
fn server_ms(cluster: &Cluster) -> i64 {
    let pids = "SELECT string_agg(pid::text, ',') FROM pg_stat_activity";
    let url = cluster.url();
    let pids = std::thread::spawn(move || -> String {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client.query_one(pids, &[]).unwrap().get(0)
    });
    let pids = pids.join().unwrap();
    let ticks = |pid: &str| -> Option<i64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
        Some(fields[11].parse::<i64>().ok()? + fields[12].parse::<i64>().ok()?)
    };
    pids.split(',').filter_map(ticks).sum::<i64>() * 10
}
