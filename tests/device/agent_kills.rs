//! `kill -9` of the agent at any moment while builds run and images are made: the next agent adopts
//! or cleans up everything, each build has one result, and nothing leaks. `BUILDHOST_LONG=1` kills
//! many more agents.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use config::builds::State;
use rusqlite::Connection;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::farm::{self, MACHINES};
use tests::footprint::{Difference, Footprint};
use tests::random::Xorshift;
use tests::wait_until;

const SETTINGS: &str =
    "builds.retries_max = 50\nbuilds.retry_seconds = 1\nbuilds.retry_seconds_max = 2\n";

/// The activity that makes the agent log a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Every build logs the message.
    Build,
    /// Every new toolchain logs the message.
    Toolchain,
}

/// A moment at which the agent is killed: after it has logged a message, and a random delay of at
/// least `delay_min` and less than `delay_min + delay_range` milliseconds.
struct Moment {
    message: &'static str,
    cause: Cause,
    delay_min: u64,
    delay_range: u64,
}

const fn moment(cause: Cause, message: &'static str, delay_min: u64, delay_range: u64) -> Moment {
    Moment {
        message,
        cause,
        delay_min,
        delay_range,
    }
}

const MOMENTS: [Moment; 8] = [
    moment(Cause::Toolchain, "starting the bootstrap", 0, 2000),
    moment(Cause::Build, "starting a build", 0, 100),
    moment(Cause::Build, "a file name=\"sources/", 0, 150),
    moment(Cause::Build, "a file name=\"log\"", 30, 200),
    moment(
        Cause::Toolchain,
        "booting a guest for a checkpoint",
        0,
        3000,
    ),
    moment(Cause::Toolchain, "made a checkpoint in the image", 0, 20),
    moment(Cause::Build, "the guest has requested its task", 0, 400),
    moment(Cause::Build, "starting a build", 0, 1500),
];
/// The number of moments that the short run tries. A kill at a later one may interrupt a transfer,
/// after which the guest waits half a minute for the host.
const SAMPLE: usize = 6;

/// The number of kills by what the agent was doing.
#[derive(Debug, Default)]
struct KillsByPhase(BTreeMap<String, usize>);

impl KillsByPhase {
    fn add(&mut self, phases: &[String]) {
        for phase in phases {
            *self.0.entry(phase.clone()).or_default() += 1;
        }
    }
}

/// Returns what a killed agent was doing, judged by its records and files.
fn interrupted_phases(host: &AgentHost) -> Vec<String> {
    let mut phases = states_of_started_builds(host);
    for machine in MACHINES {
        let snapshot = format!("{machine}/{machine}-default-bootstrap");
        let snapshot = host.host.volume.path().join(snapshot);
        let has = |name: &str| snapshot.join(name).exists();
        let phase = match (has("frozen.state"), has("frozen.memory")) {
            (true, _) => "publishing",
            (false, true) => "freezing",
            (false, false) if snapshot.exists() => "bootstrapping",
            _ => continue,
        };
        phases.push(phase.to_owned());
    }
    phases
}

impl fmt::Display for KillsByPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (phase, count) in &self.0 {
            writeln!(f, "killed while {phase:14} {count:>4}")?;
        }
        Ok(())
    }
}

/// Returns the states of the builds that a killed agent had started. Reads a copy of the database,
/// because opening it would replay its log, which is the task of the next agent.
fn states_of_started_builds(host: &AgentHost) -> Vec<String> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["records.sqlite3", "records.sqlite3-wal"] {
        let from = host.state_directory().join(name);
        if from.exists() {
            fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let records = Connection::open(copy.path().join("records.sqlite3")).unwrap();
    let sql = "SELECT state FROM builds WHERE state NOT IN ('queued', 'finished')";
    let mut select = records.prepare(sql).unwrap();
    let states = select.query_map([], |row| row.get(0)).unwrap();
    states.map(Result::unwrap).collect()
}

/// Waits until every guest belongs to a running build or to a bootstrap, and every running build
/// has a guest.
fn wait_until_guests_match_builds(host: &AgentHost) {
    wait_until("the guests match the running builds", || {
        let running = farm::queue(host).running.into_iter();
        let builds: Vec<_> = running
            .filter_map(|guest| Some(guest.build?.to_string()))
            .collect();
        let guests = host.guest_tags();
        let is_known = |tag: &String| tag.starts_with('b') || builds.contains(tag);
        guests.iter().all(is_known) && builds.iter().all(|build| guests.contains(build))
    });
}

/// Waits for a moment and kills the agent. The caller has caused the activity after the log had
/// `log_length` bytes, so that the message follows however fast the agent is.
fn kill_at(moment: &Moment, host: &mut AgentHost, log_length: usize, random: &mut Xorshift) {
    wait_until(moment.message, || {
        host.log()[log_length..].contains(moment.message)
    });
    let delay = Duration::from_millis(moment.delay_min + random.below(moment.delay_range));
    let logged = Instant::now();
    wait_until("the delay has passed", || logged.elapsed() >= delay);
    host.stop(Signal::KILL);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn each_build_has_one_result_although_agents_are_killed_at_any_moment() {
    let (kills, tasks, machines) = if tests::is_long_run() {
        (6 * MOMENTS.len(), 50, 3)
    } else {
        (SAMPLE, 7, 2)
    };
    let mut host = farm::start(SETTINGS, machines);
    let before = Footprint::of(&host);
    let began = Instant::now();
    let mut ids = farm::submit(&host, 0..tasks - kills, machines);
    let (mut random, mut kills_by_phase) = (Xorshift::new(0xdead), KillsByPhase::default());
    for kill in 0..kills {
        let moment = &MOMENTS[kill % MOMENTS.len()];
        let log_length = host.log().len();
        if moment.cause == Cause::Toolchain {
            host.add_toolchain(&format!("0.2.{kill}"));
        }
        let task = ids.len();
        ids.extend(farm::submit(&host, task..task + 1, machines));
        kill_at(moment, &mut host, log_length, &mut random);
        let phases = interrupted_phases(&host);
        let seconds = began.elapsed().as_secs_f64();
        let message = moment.message;
        println!("{seconds:>6.1} s: killed after `{message}`: {phases:?}");
        kills_by_phase.add(&phases);
        host.start();
        wait_until_guests_match_builds(&host);
    }
    for id in &ids {
        host.wait_for(*id, State::Finished);
    }
    farm::assert_one_result_each(&host, &ids, &[]);
    host.wait_until_torn_down();
    let after = Footprint::of(&host);
    let seconds = began.elapsed().as_secs_f64();
    println!("killed {kills} agents, {tasks} builds, one result each, {seconds:.0} s");
    println!("{kills_by_phase}");
    println!("{}", Difference(&before, &after));
    after.assert_no_leak(&before);
}
