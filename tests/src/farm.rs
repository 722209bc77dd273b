//! A build host with machines of both kinds, and tasks of many submitters for it.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeSet;
use std::ops::Range;

use config::builds::{Build, State};
use config::queue::Queue;
use config::task::Outcome;

use crate::agent::AgentHost;
use crate::wait_until;

/// The machines: two containers and a virtual machine, most of them first.
pub const MACHINES: [&str; 3] = ["demo", "virtual", "second"];
/// How many people submit tasks.
pub const SUBMITTERS: usize = 8;

/// Numbers that look random and are the same each time.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below this one.
    ///
    /// # Panics
    /// When there is none.
    pub fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).expect("a number below a usize")
    }
}

/// A host whose agent runs, with so many of [`MACHINES`], which are being bootstrapped.
pub fn started(settings: &str, machines: usize) -> AgentHost {
    let mut host = AgentHost::new(settings);
    for machine in &MACHINES[..machines] {
        match *machine {
            "virtual" => host.add(machine, |_| {}),
            machine => host.add_container(machine, |_| {}),
        }
    }
    host.add_toolchain("0.1.0");
    host.start();
    host
}

/// The same, but with all of [`MACHINES`], and they are bootstrapped.
pub fn ready(settings: &str) -> AgentHost {
    let host = started(settings, MACHINES.len());
    let serves = |machine: &&str| host.host.look(machine).images.iter().any(|it| it.complete);
    wait_until("all machines are bootstrapped", || {
        MACHINES.iter().all(serves)
    });
    host
}

/// Submits these tasks, in turn for each submitter; each has some for all of so many
/// machines.
///
/// # Panics
/// When one is refused.
pub fn submit(host: &AgentHost, tasks: Range<usize>, machines: usize) -> Vec<u64> {
    let one = |task: usize| {
        let says = format!("int main(void) {{ return puts(\"{task}\") < 0; }}\n");
        let source = host.source(&format!("#include <stdio.h>\n{says}"));
        let submitter = format!("--submitter=s{}", task % SUBMITTERS);
        let machine = MACHINES[(task % SUBMITTERS + task / SUBMITTERS) % machines];
        let answer = host.machinectl(&["build", machine, &source, &submitter]);
        answer.good().stdout.trim().parse().expect("a number")
    };
    tasks.map(one).collect()
}

/// How many builds have ended.
///
/// # Panics
/// When the agent does not answer.
pub fn finished(host: &AgentHost) -> usize {
    let answer = host.machinectl(&["builds", "--state", "finished", "-n", "1000", "--json"]);
    let builds: Vec<Build> = serde_json::from_str(&answer.good().stdout).expect("builds");
    builds.len()
}

/// The queue and what runs.
///
/// # Panics
/// When the agent does not answer.
pub fn queue(host: &AgentHost) -> Queue {
    let answer = host.machinectl(&["top", "--once", "--json"]).good();
    serde_json::from_str(&answer.stdout).expect("a queue")
}

/// Checks that each build ended once, well or because it was cancelled, and that no
/// two have a package of the same revision. Returns the builds.
///
/// # Panics
/// When it is not so.
#[expect(clippy::panic, reason = "a test cannot go on without it")]
pub fn assert_one_result_each(host: &AgentHost, ids: &[u64], cancelled: &[u64]) -> Vec<Build> {
    let builds: Vec<_> = ids.iter().map(|id| host.build(*id)).collect();
    let (log, mut revisions) = (host.log(), BTreeSet::new());
    for build in &builds {
        let is_end = |state| state == State::Finished;
        let ends = build.phases.iter().filter(|phase| is_end(phase.state));
        assert_eq!(ends.count(), 1, "one result: {build:?}");
        let told = format!("build finished build={} ", build.id);
        assert!(log.matches(&told).count() <= 1, "{build:?}");
        match (build.outcome, &build.packages[..]) {
            (Some(Outcome::Success), [package]) => {
                assert!(revisions.insert(package.revision.clone()), "{build:?}");
            }
            (Some(Outcome::Abort), []) if cancelled.contains(&build.id.0) => {}
            _ => panic!("{build:?}"),
        }
    }
    builds
}
