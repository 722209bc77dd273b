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

/// The seconds for which rates are measured.
const SECONDS: u64 = 20;

/// Prints a row of the table: a value, its bar, and the verdict.
#[expect(clippy::print_stdout, reason = "`scripts/bench` shows it")]
fn row(what: &str, value: f64, unit: &str, bar: Option<Bar>) {
    let bar = bar.map_or(String::new(), |bar| match bar {
        Bar::Least(least) => format!("at least {least:<6} {}", verdict(value >= least)),
        Bar::Most(most) => format!("at most {most:<7} {}", verdict(value <= most)),
    });
    println!("farm: {what:<48} {value:>9.1} {unit:<12} {bar}");
}

/// A bar for a value.
enum Bar {
    Least(f64),
    Most(f64),
}

fn verdict(is_good: bool) -> &'static str {
    if is_good { "pass" } else { "FAIL" }
}

/// Returns the results per second within some seconds.
async fn rate(cluster: &Cluster, seconds: u64) -> f64 {
    let (started, before) = (Instant::now(), number(cluster, DONE).unwrap());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let done = number(cluster, DONE).unwrap() - before;
    f64::from(i32::try_from(done).unwrap()) / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn cycles() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    let other = farm_store::Store::open(&cluster.url(), 8).await.unwrap();
    let coordinators = vec![coordinator(&store), coordinator(&other)];
    fill(&cluster, 400_000);
    let hosts = [1, 2].map(|it| host::start(it, coordinators.clone(), BTreeMap::new()));
    let before = rate(&cluster, SECONDS).await;
    row(
        "claim to finish",
        before,
        "cycles/s",
        Some(Bar::Least(300.0)),
    );
    let mut client =
        block_in_place(|| postgres::Client::connect(&cluster.url(), postgres::NoTls)).unwrap();
    block_in_place(|| client.batch_execute("BEGIN; SELECT txid_current()")).unwrap();
    let held = rate(&cluster, 60).await;
    block_in_place(|| drop(client));
    // The rate without it is that before and after, because others may use the computer.
    let after = rate(&cluster, SECONDS).await;
    let change = 200.0 * held / (before + after) - 100.0;
    row(
        "a BEGIN that is held for a minute",
        change,
        "%",
        Some(Bar::Least(-25.0)),
    );
    row("the rate after it", after, "cycles/s", None);
    block_in_place(|| year(&cluster));
    let late = rate(&cluster, SECONDS).await;
    row(
        "a year of 1.2 million results",
        100.0 * late / after - 100.0,
        "%",
        Some(Bar::Least(-10.0)),
    );
    hosts.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Adds a year of results, in a partition for each month.
fn year(cluster: &Cluster) {
    let mut client = postgres::Client::connect(&cluster.url(), postgres::NoTls).unwrap();
    for month in 1..=12 {
        let sql = format!(
            "DO $$
             DECLARE first date := date_trunc('month', now()) - interval '{month} months';
             BEGIN
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF finished FOR VALUES FROM (%L) TO (%L)',
                    'finished_' || to_char(first, 'YYYY_MM'), first, first + interval '1 month');
                INSERT INTO finished (id, submitter, machine, requirements, submitted, finished, epoch,
                    losses, revision, outcome, is_reported)
                SELECT nextval('build_ids'), 's' || n % 50, 'linux', '{{}}', first, first, 1, 0, 0,
                    'success', true FROM generate_series(1, 100000) n;
             END $$"
        );
        client.batch_execute(&sql).unwrap();
    }
    client.batch_execute("ANALYZE finished").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn rescues() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    super::chaos::lose_leases(&cluster);
    let other = farm_store::Store::open(&cluster.url(), 8).await.unwrap();
    let started = Instant::now();
    let _coordinators = [coordinator(&store), coordinator(&other)];
    let rescued = "SELECT count(*) FROM builds WHERE state = 0 AND losses = 1";
    wait_for(&cluster, rescued, |rescued| rescued == 1_000).await;
    // Coordinators that were just started wait for a whole lease.
    let lease = Duration::from_millis(super::farm::TERMS.lease_ms);
    let seconds = started.elapsed().saturating_sub(lease).as_secs_f64();
    row(
        "1,000 leases of 250 hosts that end at once",
        seconds,
        "s",
        Some(Bar::Most(5.0)),
    );
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
                message: None,
                lease: grant.lease,
                outcome: config::task::Outcome::Success,
            };
            coordinator.handle(Request::Report(HostId(1), report)).await;
        }
    }
    took.sort();
    for percent in [50, 99] {
        let time = took[took.len() * percent / 100];
        let bar = (percent == 99).then_some(Bar::Most(20.0));
        let what = format!("a poll that claims 8 of 6,000 builds, p{percent}");
        row(&what, time.as_secs_f64() * 1e3, "ms", bar);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn idle_hosts() {
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
    let percent = |ms: i64| f64::from(i32::try_from(ms).unwrap()) / 10.0 / 20.0;
    let (own, database) = (percent(after - before), percent(database_after - database));
    row(
        "1,000 idle hosts: coordinator and hosts",
        own,
        "% of a core",
        None,
    );
    row("1,000 idle hosts: database", database, "% of a core", None);
    let bar = Some(Bar::Most(5.0));
    row(
        "1,000 idle hosts: together",
        own + database,
        "% of a core",
        bar,
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
