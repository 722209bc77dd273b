//! A day of a farm in a minute: many submitters, machines of both kinds, cancels,
//! guests that die, an agent that is killed, a disk that fills; and in the end one
//! result for each task and nothing left. `BUILDHOST_LONG=1` makes it a long day.

use std::collections::BTreeMap;
use std::fs::{self, File};

use config::builds::{Build, State};
use config::task::Outcome;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::wait_until;

const MACHINES: [&str; 3] = ["demo", "second", "virtual"];
const SUBMITTERS: usize = 8;
const SETTINGS: &str =
    "builds.retries_max = 50\nbuilds.retry_seconds = 1\nbuilds.retry_seconds_max = 2\n";

fn is_long() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).unwrap()
    }
}

fn says(number: usize) -> String {
    format!("#include <stdio.h>\nint main(void) {{ return puts(\"{number}\") < 0; }}\n")
}

/// What happened to the host meanwhile.
#[derive(Debug, Default)]
struct Mishaps {
    cancels: Vec<u64>,
    guests: usize,
    agents: usize,
    full: usize,
}

impl Mishaps {
    /// One of each kind in turn.
    fn one(&mut self, number: usize, host: &mut AgentHost, dice: &mut Dice, ids: &[u64]) {
        match number % 4 {
            0 => {
                let id = ids[dice.below(ids.len())];
                if host.machinectl(&["cancel", &id.to_string()]).code == Some(0) {
                    self.cancels.push(id);
                }
            }
            1 => {
                let guests = host.guests();
                if let Some(guest) = guests.get(dice.below(guests.len().max(1))) {
                    let _ = kill_process(*guest, Signal::KILL);
                    self.guests += 1;
                }
            }
            2 => {
                host.end(Signal::KILL);
                host.start();
                self.agents += 1;
            }
            _ => {
                fill_and_empty(host);
                self.full += 1;
            }
        }
    }
}

/// Leaves the volume less room than its reserve until a build has said so.
fn fill_and_empty(host: &AgentHost) {
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
}

fn finished(host: &AgentHost) -> usize {
    let answer = host.machinectl(&["builds", "--state", "finished", "-n", "1000", "--json"]);
    let builds: Vec<Build> = serde_json::from_str(&answer.good().stdout).unwrap();
    builds.len()
}

/// Submits tasks, in turn for each submitter and each machine.
fn submit(host: &AgentHost, tasks: usize) -> Vec<u64> {
    let one = |task: usize| {
        let source = host.source(&says(task));
        let submitter = format!("--submitter=s{}", task % SUBMITTERS);
        // Each submitter has tasks for all machines.
        let machine = MACHINES[(task / SUBMITTERS) % MACHINES.len()];
        let answer = host
            .machinectl(&["build", machine, &source, &submitter])
            .good();
        answer.stdout.trim().parse().unwrap()
    };
    (0..tasks).map(one).collect()
}

fn host_with_all_machines(settings: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add_container("demo", |_| {});
    host.add_container("second", |_| {});
    host.add("virtual", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let serves = |machine| {
        host.host
            .look(machine)
            .images
            .iter()
            .any(|image| image.complete)
    };
    wait_until("all machines are bootstrapped", || {
        MACHINES.iter().all(|it| serves(it))
    });
    host
}

/// How many builds of each submitter were among the first half that started.
fn first_half(builds: &[Build]) -> BTreeMap<String, usize> {
    let begun = |build: &Build| {
        let start = build
            .phases
            .iter()
            .find(|phase| phase.state == State::Starting)?;
        Some((start.at, build.submitter.to_string()))
    };
    let mut begun: Vec<_> = builds.iter().filter_map(begun).collect();
    begun.sort();
    let mut counts = BTreeMap::new();
    for (_, submitter) in begun.iter().take(begun.len() / 2) {
        *counts.entry(submitter.clone()).or_default() += 1;
    }
    counts
}

fn assert_one_result_each(host: &AgentHost, ids: &[u64], cancelled: &[u64]) -> Vec<Build> {
    let builds: Vec<_> = ids.iter().map(|id| host.build(*id)).collect();
    for build in &builds {
        let ends = build
            .phases
            .iter()
            .filter(|phase| phase.state == State::Finished);
        assert_eq!(ends.count(), 1, "one result: {build:?}");
        let told = format!("build finished build={} ", build.id);
        assert!(host.log().matches(&told).count() <= 1, "{build:?}");
        match build.outcome {
            Some(Outcome::Success) => assert_eq!(build.packages.len(), 1, "{build:?}"),
            Some(Outcome::Abort) => assert!(cancelled.contains(&build.id.0), "{build:?}"),
            _ => panic!("{build:?}"),
        }
    }
    builds
}

#[test]
fn a_day_of_a_farm_ends_with_one_result_for_each_task_and_nothing_left() {
    if !tests::may_use_devices() {
        return;
    }
    let (tasks, mishaps) = if is_long() { (200, 40) } else { (24, 6) };
    let mut host = host_with_all_machines(SETTINGS);
    host.machinectl(&["drain"]).good();
    let ids = submit(&host, tasks);
    host.machinectl(&["undrain"]).good();
    let (mut dice, mut happened) = (Dice(0x5eed), Mishaps::default());
    for number in 1..=mishaps {
        let some = tasks * number / (mishaps + 1);
        wait_until("some more are finished", || finished(&host) >= some);
        happened.one(number, &mut host, &mut dice, &ids);
    }
    for id in &ids {
        host.wait_for(*id, State::Finished);
    }
    let builds = assert_one_result_each(&host, &ids, &happened.cancels);
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();

    let retried: u32 = builds
        .iter()
        .map(|build| build.attempts.saturating_sub(1))
        .sum();
    let counts = first_half(&builds);
    println!(
        "load: {tasks} tasks of {SUBMITTERS} submitters on {} machines: {} cancelled, {} guests and {} agents killed, disk full {} times, {retried} attempts repeated",
        MACHINES.len(),
        happened.cancels.len(),
        happened.guests,
        happened.agents,
        happened.full,
    );
    println!("load: of the first half to start, builds by submitter: {counts:?}");
    let most = counts.values().max().unwrap();
    let least = (0..SUBMITTERS)
        .map(|n| counts.get(&format!("s{n}")).unwrap_or(&0))
        .min()
        .unwrap();
    let bound = 3 + tasks / SUBMITTERS / 4;
    println!("load: {} apart, at most {bound} allowed", most - least);
    assert!(most - least <= bound);
}

/// After a start nothing runs but for a build that is under way, or a bootstrap.
fn assert_everything_has_a_build(host: &AgentHost) {
    wait_until("every network has its build", || {
        let open = host.machinectl(&["top", "--once", "--json"]).good().stdout;
        let queue: config::queue::Queue = serde_json::from_str(&open).unwrap();
        let is_open = |tag: &str| {
            tag.starts_with('b')
                || queue
                    .running
                    .iter()
                    .any(|guest| guest.build.is_some_and(|id| id.to_string() == tag))
        };
        let prefix = format!("{}-", host.name());
        host.networks()
            .iter()
            .all(|name| is_open(name.trim_start_matches(&prefix)))
    });
}

#[test]
fn an_agent_killed_at_any_moment_gives_each_build_one_result() {
    if !tests::may_use_devices() {
        return;
    }
    // Each kill may cost a guest half a minute of waiting for its host.
    if !is_long() {
        return;
    }
    let tasks = 50;
    let mut host = host_with_all_machines(SETTINGS);
    let ids = submit(&host, tasks);
    let (mut dice, mut kills) = (Dice(0xdead), 0);
    while finished(&host) < tasks {
        let so_far = host.log().len() + 100 + dice.below(1000);
        wait_until("something has happened", || {
            host.log().len() >= so_far || finished(&host) == tasks
        });
        host.end(Signal::KILL);
        host.start();
        kills += 1;
        assert_everything_has_a_build(&host);
    }
    assert_one_result_each(&host, &ids, &[]);
    wait_until("all is torn down", || {
        let is_clean = |machine| host.host.look(machine).snapshots.is_empty();
        host.networks().is_empty() && MACHINES.iter().all(|it| is_clean(it))
    });
    host.assert_nothing_is_left();
    println!("kill -9: {kills} agents killed while {tasks} builds ran, each has one result");
}
