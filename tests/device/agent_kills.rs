//! `kill -9` of the agent at any moment while builds run and images are made: the next
//! agent finds everything, each build has one result, and nothing is left.
//! `BUILDHOST_LONG=1` kills many more.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use config::builds::State;
use rusqlite::Connection;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::farm::{self, Dice, MACHINES};
use tests::footprint::{Difference, Footprint};
use tests::wait_until;

const SETTINGS: &str =
    "builds.retries_max = 50\nbuilds.retry_seconds = 1\nbuilds.retry_seconds_max = 2\n";

/// After these words of the agent it is killed: not before, and within, so many
/// milliseconds.
const MOMENTS: [(&str, usize, usize); 8] = [
    ("bootstrap begins", 0, 2000),
    ("build begins", 0, 100),
    ("a file name=\"sources/", 0, 150),
    ("a file name=\"log\"", 30, 200),
    ("a guest is being frozen", 0, 3000),
    ("a guest is frozen in the image", 0, 20),
    ("the guest has asked for its task", 0, 400),
    ("build begins", 0, 1500),
];
/// The first of them are tried in the normal run. A kill at another one may cut off a
/// transfer, and then the guest waits half a minute for its host.
const SAMPLE: usize = 6;

/// What an agent was doing when it was killed, each with how often.
#[derive(Debug, Default)]
struct Hits(BTreeMap<String, usize>);

impl Hits {
    /// Takes in what an agent was doing.
    fn note(&mut self, phases: &[String]) {
        for phase in phases {
            *self.0.entry(phase.clone()).or_default() += 1;
        }
    }
}

/// What a dead agent was doing, by what it has left.
fn interrupted(host: &AgentHost) -> Vec<String> {
    let mut phases = states(host);
    for machine in MACHINES {
        let half = format!("{machine}/{machine}-default-bootstrap");
        let half = host.host.volume.path().join(half);
        let is_there = |name: &str| half.join(name).exists();
        let phase = match (is_there("frozen.state"), is_there("frozen.memory")) {
            (true, _) => "publishing",
            (false, true) => "freezing",
            (false, false) if half.exists() => "bootstrapping",
            _ => continue,
        };
        phases.push(phase.to_owned());
    }
    phases
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (phase, times) in &self.0 {
            writeln!(f, "killed while {phase:14} {times:>4}")?;
        }
        Ok(())
    }
}

/// The states of the builds that a dead agent had begun, of a copy of its records:
/// its own are for the next agent.
fn states(host: &AgentHost) -> Vec<String> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["records.sqlite3", "records.sqlite3-wal"] {
        let from = host.state().join(name);
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

/// After a start nothing is there but for a build that is under way, or a bootstrap,
/// and whatever is under way has its guest.
fn assert_all_have_a_build(host: &AgentHost) {
    let mut told = String::new();
    wait_until("everything has its build", || {
        let open = farm::queue(host).running.into_iter();
        let open: Vec<_> = open.filter_map(|guest| guest.build).collect();
        let open: Vec<_> = open.iter().map(ToString::to_string).collect();
        let belongings = host.belongings();
        let is_known = |tag: &String| tag.starts_with('b') || open.contains(tag);
        let has_guest = |tag: &String| belongings.contains(tag);
        told = format!("{belongings:?} for {open:?}");
        belongings.iter().all(is_known) && open.iter().all(has_guest)
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_killed_at_any_moment_gives_each_build_one_result() {
    let (kills, tasks, machines) = if tests::is_long() {
        (6 * MOMENTS.len(), 50, 3)
    } else {
        (SAMPLE, 7, 2)
    };
    let mut host = farm::started(SETTINGS, machines);
    let before = Footprint::of(&host);
    let began = Instant::now();
    let mut ids = farm::submit(&host, 0..tasks - kills, machines);
    let (mut dice, mut hits, mut so_far) = (Dice(0xdead), Hits::default(), 0);
    for kill in 0..kills {
        let (words, from, within) = MOMENTS[kill % MOMENTS.len()];
        // One that is new is what images are made for again.
        if kill > 0 && kill % MOMENTS.len() == 0 {
            host.add_toolchain(&format!("0.2.{kill}"));
        }
        let task = ids.len();
        ids.extend(farm::submit(&host, task..task + 1, machines));
        wait_until(words, || host.log()[so_far..].contains(words));
        let moment = Duration::from_millis((from + dice.below(within)) as u64);
        let heard = Instant::now();
        wait_until("the moment has come", || heard.elapsed() >= moment);
        host.end(Signal::KILL);
        let phases = interrupted(&host);
        let at = began.elapsed().as_secs_f64();
        println!("{at:>6.1} s: killed {moment:.0?} after `{words}`: {phases:?}");
        hits.note(&phases);
        so_far = host.log().len();
        host.start();
        assert_all_have_a_build(&host);
    }
    for id in &ids {
        host.wait_for(*id, State::Finished);
    }
    farm::assert_one_result_each(&host, &ids, &[]);
    wait_until("all is torn down", || host.belongings().is_empty());
    let after = Footprint::of(&host);
    let took = began.elapsed().as_secs_f64();
    println!("kill -9: {kills} agents, {tasks} builds, one result each, {took:.0} s\n{hits}");
    println!("{}", Difference(&before, &after));
    after.assert_no_leak(&before);
}
