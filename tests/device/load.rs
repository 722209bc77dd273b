//! A loaded build farm: many submitters, machines of both kinds, canceled builds, killed guests,
//! killed and replaced agents, a full disk. At the end each task has one result and nothing leaks.
//! `BUILDHOST_LONG=1` runs many more tasks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Instant;

use config::builds::{Build, Phase, State};
use config::task::Outcome;
use jiff::Timestamp;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::farm::{self, MACHINES, SUBMITTERS};
use tests::footprint::{Difference, Footprint};
use tests::random::Xorshift;
use tests::wait_until;

const SETTINGS: &str =
    "builds.retries_max = 50\nbuilds.retry_seconds = 1\nbuilds.retry_seconds_max = 2\n";

/// A disturbance of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Disturbance {
    Cancel,
    GuestKilled,
    AgentKilled,
    AgentReplaced,
    AgentStopped,
    DiskFull,
}

const DISTURBANCES: [Disturbance; 6] = [
    Disturbance::Cancel,
    Disturbance::GuestKilled,
    Disturbance::AgentKilled,
    Disturbance::AgentReplaced,
    Disturbance::AgentStopped,
    Disturbance::DiskFull,
];

/// The disturbances so far.
#[derive(Debug, Default)]
struct History {
    counts: BTreeMap<Disturbance, usize>,
    canceled: Vec<u64>,
}

impl History {
    /// Disturbs the host, if there is a build or a guest to disturb.
    fn disturb(&mut self, kind: Disturbance, host: &mut AgentHost, random: &mut Xorshift) {
        let has_happened = match kind {
            Disturbance::Cancel => self.cancel(host, random),
            Disturbance::GuestKilled => {
                let guests = host.guests();
                let guest = guests.get(random.index(guests.len().max(1)));
                guest.is_some_and(|guest| kill_process(*guest, Signal::KILL).is_ok())
            }
            Disturbance::AgentKilled => restart(host, Signal::KILL),
            Disturbance::AgentReplaced => restart(host, Signal::USR2),
            Disturbance::AgentStopped => restart(host, Signal::TERM),
            Disturbance::DiskFull => fill_and_empty(host),
        };
        *self.counts.entry(kind).or_default() += usize::from(has_happened);
    }

    /// Cancels a running or a queued build.
    fn cancel(&mut self, host: &AgentHost, random: &mut Xorshift) -> bool {
        let queue = farm::queue(host);
        let running = queue.running.iter().filter_map(|guest| guest.build);
        let queued = queue.waiting.iter().map(|waiting| waiting.build);
        let mut builds: Vec<_> = running.collect();
        if builds.is_empty() || random.below(2) == 0 {
            builds.extend(queued);
        }
        let Some(id) = builds.get(random.index(builds.len().max(1))) else {
            return false;
        };
        let is_canceled = host.machinectl(&["cancel", &id.to_string()]).code == Some(0);
        self.canceled.extend(is_canceled.then_some(id.0));
        is_canceled
    }
}

fn restart(host: &mut AgentHost, signal: Signal) -> bool {
    host.stop(signal);
    host.start();
    true
}

/// Fills the volume beyond its reserve until the agent reports it, and empties it again.
fn fill_and_empty(host: &AgentHost) -> bool {
    let filler = host.host.volume.path().join("filler");
    let file = File::create(&filler).unwrap();
    let free = host.host.volume.free().unwrap();
    let size = free.saturating_sub(200 << 20);
    fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
    file.sync_all().unwrap();
    // A drain wakes the agent, which a full volume alone does not.
    wait_until("the agent reports the full volume", || {
        host.machinectl(&["drain"]).success();
        host.machinectl(&["undrain"]).success();
        host.machinectl(&["host", "status"])
            .stdout
            .contains("less room left")
    });
    file.set_len(0).unwrap();
    host.host.volume.commit().unwrap();
    fs::remove_file(filler).unwrap();
    true
}

/// The guest time of a submitter, in seconds.
#[derive(Debug, Default)]
struct Share {
    builds: usize,
    total: f64,
    /// The part of `total` during which every submitter had queued builds.
    contended: f64,
    /// The time of the longest guest.
    longest: f64,
}

/// Returns the intervals during which a build had a guest.
fn guest_intervals(build: &Build) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    let pairs = build.phases.iter().enumerate();
    let starts = pairs.filter(|(_, phase)| phase.state == State::Starting);
    starts.filter_map(|(number, start)| {
        let is_end = |phase: &&Phase| matches!(phase.state, State::Queued | State::Finished);
        let end = build.phases[number..].iter().find(is_end)?;
        Some((start.at, end.at))
    })
}

fn shares(builds: &[Build]) -> BTreeMap<String, Share> {
    let mut last_starts = BTreeMap::new();
    for build in builds {
        let last = last_starts.entry(&build.submitter).or_default();
        let start = guest_intervals(build).map(|(start, _)| start).next();
        *last = start.max(*last);
    }
    let contended_until = last_starts.into_values().flatten().min().unwrap();
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for build in builds {
        let share = shares.entry(build.submitter.to_string()).or_default();
        share.builds += 1;
        for (start, end) in guest_intervals(build) {
            share.total += seconds(start, end);
            share.contended += seconds(start, end.min(contended_until));
            share.longest = share.longest.max(seconds(start, end));
        }
    }
    shares
}

/// Prints the shares of all submitters and checks the bound of fair queueing: while all submitters
/// have queued builds, the shares of two differ by no more than the longest guest of each.
fn assert_fair(builds: &[Build]) {
    let shares = shares(builds);
    println!(
        "{:12} {:>8} {:>8} {:>8} {:>8}",
        "submitter", "builds", "seconds", "contended", "longest"
    );
    for (submitter, share) in &shares {
        println!(
            "{submitter:12} {:>8} {:>8.1} {:>8.1} {:>8.1}",
            share.builds, share.total, share.contended, share.longest
        );
    }
    for one in shares.values() {
        for other in shares.values() {
            let difference = one.contended - other.contended;
            let bound = one.longest + other.longest;
            assert!(
                difference <= bound,
                "the shares differ by {difference:.1} s, {bound:.1} s are allowed"
            );
        }
    }
    let contended = || shares.values().map(|share| share.contended);
    let difference = contended().fold(0.0, f64::max) - contended().fold(f64::MAX, f64::min);
    println!("largest difference of the contended shares: {difference:.1} s\n");
}

fn print_outcomes(builds: &[Build], history: &History) {
    let count = |outcome| {
        builds
            .iter()
            .filter(|it| it.outcome == Some(outcome))
            .count()
    };
    let retries = builds.iter().map(|build| build.attempts.saturating_sub(1));
    println!("{:24} {:>8}", "outcome", "builds");
    println!("{:24} {:>8}", "success", count(Outcome::Success));
    println!("{:24} {:>8}", "abort (canceled)", count(Outcome::Abort));
    println!("{:24} {:>8}\n", "retries", retries.sum::<u32>());
    println!("{:24} {:>8}", "disturbance", "count");
    for (kind, count) in &history.counts {
        println!("{:24} {count:>8}", format!("{kind:?}"));
    }
    println!();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_disturbed_farm_gives_each_task_one_result_and_leaks_nothing() {
    let (tasks, disturbances) = if tests::is_long_run() {
        (200, 48)
    } else {
        (24, 6)
    };
    let mut host = farm::start_and_bootstrap(SETTINGS);
    let before = Footprint::of(&host);
    host.machinectl(&["drain"]).success();
    let ids = farm::submit(&host, 0..tasks, MACHINES.len());
    let began = Instant::now();
    host.machinectl(&["undrain"]).success();
    let (mut random, mut history) = (Xorshift::new(0x5eed), History::default());
    for number in 1..=disturbances {
        let finished = tasks * number / (disturbances + 1);
        wait_until(&format!("{finished} builds are finished"), || {
            farm::count_finished(&host) >= finished
        });
        let kind = DISTURBANCES[(number - 1) % DISTURBANCES.len()];
        history.disturb(kind, &mut host, &mut random);
    }
    for id in &ids {
        host.wait_for(*id, State::Finished);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{tasks} tasks of {SUBMITTERS} submitters on {MACHINES:?}: {seconds:.0} s\n");
    let builds = farm::assert_one_result_each(&host, &ids, &history.canceled);
    print_outcomes(&builds, &history);
    assert_fair(&builds);
    host.wait_until_torn_down();
    let after = Footprint::of(&host);
    println!("{}", Difference(&before, &after));
    after.assert_no_leak(&before);
}
