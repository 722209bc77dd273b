//! Chaos with real programs: six kinds of faults, each with the rate of builds before and after it. Every
//! build has exactly one result.
//!
//! Rates are those of a second farm at the same time, which nothing happens to. So other work of the computer
//! changes both, and the recovery can be judged.

use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::processes::{COORDINATORS, HOSTS, Programs};

/// The builds that wait, more than are done.
const BUILDS: i64 = 400_000;

const FILL: &str = "
    WITH added AS (
        INSERT INTO builds (id, submitter, priority, machine, requirements, submitted)
        SELECT nextval('build_ids'), 's' || n % 10, 0, 'linux',
            '{\"machine\":\"linux\",\"toolchain\":\"default\",\"cpus\":1,\"memory_mib\":1}', now()
        FROM generate_series(1, 400000) n RETURNING 1)
    SELECT count(*) FROM added";
const DONE: &str = "SELECT count(*) FROM finished";
const KILL_CONNECTIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'buildhost-farm'";

/// A kind of fault, one round of it.
type Fault = fn(&mut Programs, &mut Rng);

const FAULTS: [(&str, Fault); 6] = [
    ("PostgreSQL restarts", |farm, _| farm.cluster.restart()),
    ("connections are killed", |farm, _| {
        farm.number(KILL_CONNECTIONS);
    }),
    ("no connection is free", exhaust),
    ("a host is killed", |farm, rng| {
        farm.start_host(rng.usize(0..HOSTS));
    }),
    ("everything is killed in turn", kill_in_turn),
    ("a host is cut off", |farm, rng| {
        let host = rng.usize(0..HOSTS);
        farm.set_link(host, "down");
        // Longer than a lease, so that its builds are rescued.
        sleep(Duration::from_secs(5));
        farm.set_link(host, "up");
    }),
];

/// Takes all connections that the server permits, for some time.
fn exhaust(farm: &mut Programs, _: &mut Rng) {
    let url = farm.cluster.url();
    let mut taken = Vec::new();
    farm.number(KILL_CONNECTIONS);
    for _ in 0..200 {
        match postgres::Client::connect(&url, postgres::NoTls) {
            Ok(mut client) => {
                let _ = client.batch_execute(KILL_CONNECTIONS);
                taken.push(client);
            }
            Err(_) => break,
        }
    }
    sleep(Duration::from_secs(1));
}

fn kill_in_turn(farm: &mut Programs, rng: &mut Rng) {
    for _ in 0..3 {
        match rng.usize(0..HOSTS + COORDINATORS) {
            host @ 0..HOSTS => farm.start_host(host),
            other => farm.start_coordinator(other - HOSTS),
        }
        sleep(Duration::from_millis(200));
    }
}

/// The builds that two farms finish in the same time.
#[derive(Debug, Clone, Copy)]
struct Rates {
    own: f64,
    peer: f64,
}

impl Rates {
    fn measure(farm: &Programs, peer: &Programs, window: Duration) -> Self {
        let done = |farm: &Programs| farm.number(DONE).unwrap();
        let (started, before) = (Instant::now(), [done(farm), done(peer)]);
        sleep(window);
        let after = [done(farm), done(peer)];
        let seconds = started.elapsed().as_secs_f64();
        let rate = |it: usize| f64::from(i32::try_from(after[it] - before[it]).unwrap()) / seconds;
        Self {
            own: rate(0),
            peer: rate(1),
        }
    }

    /// Returns the percentage of an earlier rate, as if the peer had its earlier rate still.
    fn percent_of(self, before: Self) -> f64 {
        100.0 * (self.own / self.peer) / (before.own / before.peer)
    }
}

/// Fills the queue of a farm, if few builds are left in it.
fn top_up(farm: &Programs) {
    let left = farm.number("SELECT count(*) FROM builds").unwrap();
    if left < BUILDS / 2 {
        assert_eq!(farm.number(FILL), Some(BUILDS));
    }
}

/// Waits until results come again.
fn wait_for_work(farm: &mut Programs) {
    let before = farm.number(DONE).unwrap();
    for _ in 0..600 {
        farm.revive();
        if farm.number(DONE).is_some_and(|it| it > before + 100) {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("no results after a fault");
}

/// Checks that all builds have one result, but for those that never started.
fn check(farm: &Programs) {
    let unstarted = "WITH gone AS (DELETE FROM builds WHERE state = 0 AND epoch = 0 RETURNING id)
        SELECT count(*) FROM gone";
    let mut left = 0;
    // A host may claim one meanwhile.
    for _ in 0..1_200 {
        left += farm.number(unstarted).unwrap_or(0);
        if farm.number("SELECT count(*) FROM builds") == Some(0) {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    assert_eq!(farm.number("SELECT count(*) FROM builds"), Some(0));
    let distinct = farm
        .number("SELECT count(DISTINCT id) FROM finished")
        .unwrap();
    assert_eq!(farm.number(DONE), Some(distinct), "one result per build");
    assert_eq!(distinct + left, BUILDS, "no build is lost");
    let false_results = "SELECT count(*) FROM finished
        WHERE NOT is_reported AND outcome <> 'abnormal' OR epoch < 1";
    assert_eq!(farm.number(false_results), Some(0));
}

#[test]
#[ignore = "needs PostgreSQL and network namespaces"]
fn programs_lose_no_build_in_any_storm() {
    let is_long = std::env::var_os("BUILDHOST_LONG").is_some();
    let [lasts, settle, window] =
        if is_long { [120, 10, 20] } else { [3, 1, 2] }.map(Duration::from_secs);
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [mut farm, peer] = directories.each_ref().map(|it| Programs::start(it.path()));
    assert_eq!(farm.number(FILL), Some(BUILDS));
    let mut rng = Rng::new();
    for (what, fault) in FAULTS {
        wait_for_work(&mut farm);
        top_up(&peer);
        let before = Rates::measure(&farm, &peer, window);
        let (started, mut rounds) = (Instant::now(), 0);
        while started.elapsed() < lasts {
            fault(&mut farm, &mut rng);
            farm.revive();
            rounds += 1;
            sleep(Duration::from_millis(500));
        }
        wait_for_work(&mut farm);
        // The leases of what was killed last end first.
        sleep(settle);
        let after = Rates::measure(&farm, &peer, window);
        println!(
            "{what:<30} {rounds:>4} rounds {:>6.0}/s before {:>6.0}/s after, peer {:>6.0}/s and {:>6.0}/s: \
             recovered to {:>4.0} %",
            before.own,
            after.own,
            before.peer,
            after.peer,
            after.percent_of(before)
        );
    }
    check(&farm);
}
