//! Two controllers of different priority while agents and controllers are killed, requests and answers
//! are lost, tasks interrupt each other, and clocks are wrong: each task is done once.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::Build;
use config::controllers::ControllerStatus;
use config::task::Outcome;
use jiff::Unit;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::controller::{Misbehavior, RequestKind, TestController};
use tests::random::Xorshift;
use tests::wait_until;

use crate::guest_failures::worker;

/// A worker that takes a second for a package whose name begins with `slow`.
const WORKER: &str = "
tftp -g -r task.manifest $host
name=$(sed -n 's/^name: //p' task.manifest)
case $name in slow*) sleep 1 ;; esac
mkdir -p upload/archive/one
echo content of $name >upload/archive/one/file
tar -cf upload.tar upload
tftp -p -l upload.tar $host
printf ': 1\\nname: %s\\nversion: 1.0.0\\nstatus: success\\nupdate-status: success\\n' $name >result.manifest
tftp -p -l result.manifest $host
";

/// The library that gives a program another time, from the package `faketime`.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// The names of the controllers, the lower priority first.
const NAMES: [&str; 2] = ["slow", "urgent"];

/// A host with two controllers.
struct Day {
    host: AgentHost,
    controllers: [TestController; 2],
    clock: PathBuf,
    random: Xorshift,
    tasks: u32,
}

impl Day {
    fn new(seed: u64) -> Self {
        let controllers = [TestController::start(), TestController::start()];
        let settings = [
            "guests.parallel_max = 1\n".to_owned(),
            controllers[0].settings(NAMES[0], "priority = 90"),
            controllers[1].settings(NAMES[1], "priority = 100"),
        ];
        let host = AgentHost::new(&settings.concat());
        host.add_container("demo", |_| {});
        host.add_worker("default", &worker(WORKER));
        let clock = host.state_directory().with_file_name("clock");
        let mut day = Self {
            host,
            controllers,
            clock,
            random: Xorshift::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            tasks: 0,
        };
        day.set_clock(0);
        day.start_agent();
        day
    }

    /// Starts an agent whose wall clock has the offset in the file.
    fn start_agent(&mut self) {
        let clock = self.clock.clone();
        self.host.start_in_environment(&[
            ("LD_PRELOAD", OsStr::new(FAKETIME)),
            ("FAKETIME_TIMESTAMP_FILE", clock.as_os_str()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", OsStr::new("1")),
            ("FAKETIME_NO_CACHE", OsStr::new("1")),
        ]);
    }

    fn set_clock(&self, minutes: i64) {
        tests::write_file(&self.clock, &format!("{minutes:+}m\n"));
    }

    /// Lets something happen.
    fn step(&mut self) {
        let which = self.random.index(2);
        match self.random.below(20) {
            0..=8 => {
                self.tasks += 1;
                let kind = ["slow", "quick"][self.random.index(2)];
                let package = format!("{kind}-{}", self.tasks);
                self.controllers[which].add(&package, "demo");
            }
            9..=12 => {
                let kinds = [RequestKind::Task, RequestKind::Upload, RequestKind::Result];
                let ways = [
                    Misbehavior::LostRequest,
                    Misbehavior::LostAnswer,
                    Misbehavior::Status(503),
                    Misbehavior::Garbage,
                    Misbehavior::Slow(Duration::from_millis(300)),
                ];
                let (kind, way) = (kinds[self.random.index(3)], self.random.index(ways.len()));
                self.controllers[which].misbehave(kind, &ways[way..=way]);
            }
            13 => {
                self.host.stop(Signal::KILL);
                self.start_agent();
            }
            14 => {
                self.controllers[which].kill();
                self.host.stop(Signal::KILL);
                self.start_agent();
                self.controllers[which].restart();
            }
            15 => {
                self.controllers[which].kill();
                self.controllers[which].restart();
            }
            16 | 17 => {
                let minutes = self.random.below(121).cast_signed() - 60;
                self.set_clock(minutes);
            }
            _ => self.wait_for_a_result(),
        }
    }

    fn accepted(&self) -> usize {
        let sum = |controller: &TestController| {
            let state = controller.state();
            state
                .sessions
                .values()
                .map(|it| it.accepted.len())
                .sum::<usize>()
        };
        self.controllers.iter().map(sum).sum()
    }

    /// Waits until one more result has arrived, or nothing is open.
    fn wait_for_a_result(&self) {
        let before = self.accepted();
        wait_until("a result arrives", || {
            self.accepted() > before || self.is_quiet()
        });
    }

    fn open(&self) -> Vec<ControllerStatus> {
        let answer = self.host.machinectl(&["controllers", "--json"]).success();
        serde_json::from_str(&answer.stdout).unwrap()
    }

    /// Returns true if no task waits and no result is missing.
    fn is_quiet(&self) -> bool {
        let waits = |it: &TestController| !it.state().tasks.is_empty();
        !self.controllers.iter().any(waits) && self.open().iter().all(|it| it.open.is_empty())
    }

    /// Waits until each task has its result. A session whose task got lost on its way to the agent
    /// expires, as it does after hours.
    fn finish(&self) {
        wait_until("all results have arrived", || {
            if !self.is_quiet() {
                return false;
            }
            let expired = self.controllers.iter().map(TestController::expire);
            expired.sum::<usize>() == 0
        });
    }
}

fn builds(host: &AgentHost) -> Vec<Build> {
    let answer = host
        .machinectl(&["builds", "--json", "--count", "10000"])
        .success();
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
#[ignore = "needs root: real btrfs and network namespaces"]
fn each_task_is_done_once_whatever_is_killed_lost_or_wrong() {
    assert!(
        Path::new(FAKETIME).exists(),
        "the package faketime is installed"
    );
    let (seeds, steps) = if tests::is_long_run() {
        (1..5, 100)
    } else {
        (1..2, 40)
    };
    for seed in seeds {
        let mut day = Day::new(seed);
        for _ in 0..steps {
            day.step();
        }
        day.finish();
        assert_done(&day, seed);
    }
}

/// Checks that each task has one success, and that its other sessions were interrupted or lost.
fn assert_done(day: &Day, seed: u64) {
    let mut done = 0;
    for controller in &day.controllers {
        let state = controller.state();
        assert_eq!(state.bad_requests, [""; 0], "seed {seed}");
        let packages: BTreeSet<_> = state
            .sessions
            .values()
            .map(|it| it.task.package.clone())
            .collect();
        for package in packages {
            let mut accepted = state.accepted(&package);
            accepted.retain(|status| status != "interrupt");
            assert_eq!(accepted, ["success"], "seed {seed}: {package}");
            done += 1;
        }
    }
    assert_eq!(done, day.tasks, "seed {seed}");
    let builds = builds(&day.host);
    let times = builds.iter().map(|it| it.submitted);
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    let minutes = (last - first).total(Unit::Minute).unwrap();
    assert!(minutes > 10.0, "seed {seed}: the clock was not changed");
    for build in builds {
        let ended = [Some(Outcome::Success), Some(Outcome::Interrupt)];
        assert!(ended.contains(&build.outcome), "seed {seed}: {build:?}");
    }
}
