//! A day of a farm in a minute: many submitters, machines of both kinds, cancels,
//! guests that die, an agent that dies or is replaced, a disk that fills; and in the
//! end one result for each task and nothing left. `BUILDHOST_LONG=1` makes it a long day.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Instant;

use config::builds::{Build, Phase, State};
use config::task::Outcome;
use jiff::Timestamp;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::farm::{self, Dice, MACHINES, SUBMITTERS};
use tests::footprint::{Difference, Footprint};
use tests::wait_until;

const SETTINGS: &str =
    "builds.retries_max = 50\nbuilds.retry_seconds = 1\nbuilds.retry_seconds_max = 2\n";

/// What can happen to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mishap {
    Cancel,
    GuestKilled,
    AgentKilled,
    AgentReplaced,
    AgentStopped,
    DiskFull,
}

const MISHAPS: [Mishap; 6] = [
    Mishap::Cancel,
    Mishap::GuestKilled,
    Mishap::AgentKilled,
    Mishap::AgentReplaced,
    Mishap::AgentStopped,
    Mishap::DiskFull,
];

/// What happened to the host meanwhile.
#[derive(Debug, Default)]
struct Happened {
    times: BTreeMap<Mishap, usize>,
    cancelled: Vec<u64>,
}

impl Happened {
    /// Lets something happen, if there is something for it to happen to.
    fn one(&mut self, mishap: Mishap, host: &mut AgentHost, dice: &mut Dice) {
        let has_happened = match mishap {
            Mishap::Cancel => self.cancel(host, dice),
            Mishap::GuestKilled => {
                let guests = host.guests();
                let guest = guests.get(dice.below(guests.len().max(1)));
                guest.is_some_and(|guest| kill_process(*guest, Signal::KILL).is_ok())
            }
            Mishap::AgentKilled => restart(host, Signal::KILL),
            Mishap::AgentReplaced => restart(host, Signal::HUP),
            Mishap::AgentStopped => restart(host, Signal::TERM),
            Mishap::DiskFull => fill_and_empty(host),
        };
        *self.times.entry(mishap).or_default() += usize::from(has_happened);
    }

    /// Cancels a build that runs, or one that waits.
    fn cancel(&mut self, host: &AgentHost, dice: &mut Dice) -> bool {
        let queue = farm::queue(host);
        let running = queue.running.iter().filter_map(|guest| guest.build);
        let waiting = queue.waiting.iter().map(|waits| waits.build);
        let mut open: Vec<_> = running.collect();
        if open.is_empty() || dice.below(2) == 0 {
            open.extend(waiting);
        }
        let Some(id) = open.get(dice.below(open.len().max(1))) else {
            return false;
        };
        let is_cancelled = host.machinectl(&["cancel", &id.to_string()]).code == Some(0);
        self.cancelled.extend(is_cancelled.then_some(id.0));
        is_cancelled
    }
}

fn restart(host: &mut AgentHost, signal: Signal) -> bool {
    host.end(signal);
    host.start();
    true
}

/// Leaves the volume less room than its reserve until a build has said so.
fn fill_and_empty(host: &AgentHost) -> bool {
    let filler = host.host.volume.path().join("filler");
    let file = File::create(&filler).unwrap();
    let free = host.host.volume.free().unwrap();
    let most = free.saturating_sub(200 << 20);
    fallocate(&file, FallocateFlags::empty(), 0, most).unwrap();
    file.sync_all().unwrap();
    let is_told = || host.machinectl(&["host"]).stdout.contains("less room left");
    // Only a change of the volume, or of what runs, wakes the agent.
    wait_until("the agent sees it", || {
        host.machinectl(&["drain"]).good();
        host.machinectl(&["undrain"]).good();
        is_told()
    });
    file.set_len(0).unwrap();
    host.host.volume.commit().unwrap();
    fs::remove_file(filler).unwrap();
    true
}

/// What one submitter has had.
#[derive(Debug, Default)]
struct Share {
    builds: usize,
    /// The seconds of its guests, and of those the ones while everybody had builds
    /// waiting.
    seconds: f64,
    early: f64,
    /// Those of the guest that lasted longest.
    longest: f64,
}

/// When a build had a guest.
fn guests(build: &Build) -> impl Iterator<Item = (Timestamp, Timestamp)> {
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
        let start = guests(build).map(|(start, _)| start).next();
        *last = start.max(*last);
    }
    let crowded = last_starts.into_values().flatten().min().unwrap();
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for build in builds {
        let share = shares.entry(build.submitter.to_string()).or_default();
        share.builds += 1;
        for (start, end) in guests(build) {
            share.seconds += seconds(start, end);
            share.early += seconds(start, end.min(crowded));
            share.longest = share.longest.max(seconds(start, end));
        }
    }
    shares
}

/// Prints what everybody has had. While all have builds waiting, no two of them are
/// further apart than a guest of each, which is what fair queueing promises.
fn assert_fair(builds: &[Build]) {
    let shares = shares(builds);
    println!(
        "{:12} {:>8} {:>8} {:>8} {:>8}",
        "submitter", "builds", "seconds", "early", "longest"
    );
    for (submitter, share) in &shares {
        println!(
            "{submitter:12} {:>8} {:>8.1} {:>8.1} {:>8.1}",
            share.builds, share.seconds, share.early, share.longest
        );
    }
    for one in shares.values() {
        for other in shares.values() {
            let (apart, bound) = (one.early - other.early, one.longest + other.longest);
            assert!(apart <= bound, "{apart:.1} s apart, {bound:.1} s allowed");
        }
    }
    let early = || shares.values().map(|share| share.early);
    let apart = early().fold(0.0, f64::max) - early().fold(f64::MAX, f64::min);
    println!("while all had builds waiting: {apart:.1} s apart at most\n");
}

fn print_outcomes(builds: &[Build], happened: &Happened) {
    let count = |outcome| {
        builds
            .iter()
            .filter(|it| it.outcome == Some(outcome))
            .count()
    };
    let again = builds.iter().map(|build| build.attempts.saturating_sub(1));
    println!("{:24} {:>8}", "outcome", "builds");
    println!("{:24} {:>8}", "success", count(Outcome::Success));
    println!("{:24} {:>8}", "abort, as was asked", count(Outcome::Abort));
    println!("{:24} {:>8}\n", "attempts repeated", again.sum::<u32>());
    println!("{:24} {:>8}", "mishap", "times");
    for (mishap, times) in &happened.times {
        println!("{:24} {times:>8}", format!("{mishap:?}"));
    }
    println!();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_day_of_a_farm_ends_with_one_result_for_each_task_and_nothing_left() {
    let (tasks, mishaps) = if tests::is_long() { (200, 48) } else { (24, 6) };
    let mut host = farm::ready(SETTINGS);
    let before = Footprint::of(&host);
    host.machinectl(&["drain"]).good();
    let ids = farm::submit(&host, 0..tasks, MACHINES.len());
    let began = Instant::now();
    host.machinectl(&["undrain"]).good();
    let (mut dice, mut happened) = (Dice(0x5eed), Happened::default());
    for number in 1..=mishaps {
        let some = tasks * number / (mishaps + 1);
        wait_until("some more are finished", || farm::finished(&host) >= some);
        let mishap = MISHAPS[(number - 1) % MISHAPS.len()];
        happened.one(mishap, &mut host, &mut dice);
    }
    for id in &ids {
        host.wait_for(*id, State::Finished);
    }
    let took = began.elapsed().as_secs_f64();
    println!("load: {tasks} tasks of {SUBMITTERS} submitters on {MACHINES:?}: {took:.0} s\n");
    let builds = farm::assert_one_result_each(&host, &ids, &happened.cancelled);
    print_outcomes(&builds, &happened);
    assert_fair(&builds);
    wait_until("all is torn down", || host.belongings().is_empty());
    let after = Footprint::of(&host);
    println!("{}", Difference(&before, &after));
    after.assert_no_leak(&before);
}
