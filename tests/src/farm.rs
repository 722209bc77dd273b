//! A build host with machines of both kinds, and tasks of many submitters.

use std::collections::BTreeSet;
use std::ops::Range;

use config::builds::{Build, State};
use config::queue::Queue;
use config::task::Outcome;

use crate::agent::{AgentHost, printing_program};
use crate::wait_until;

/// The machines: a container, a virtual machine and another container.
pub const MACHINES: [&str; 3] = ["demo", "virtual", "second"];
/// The number of submitters.
pub const SUBMITTERS: usize = 8;

/// Starts a host with this number of [`MACHINES`], whose images are still missing.
pub fn start(settings: &str, machines: usize) -> AgentHost {
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

/// Starts a host with all [`MACHINES`] and waits until they have images.
pub fn start_and_bootstrap(settings: &str) -> AgentHost {
    let host = start(settings, MACHINES.len());
    let has_image = |machine: &&str| host.host.view(machine).images.iter().any(|it| it.complete);
    wait_until("all machines are bootstrapped", || {
        MACHINES.iter().all(has_image)
    });
    host
}

/// Submits these tasks, distributed over the submitters and this number of machines, and returns
/// the numbers of the builds.
pub fn submit(host: &AgentHost, tasks: Range<usize>, machines: usize) -> Vec<u64> {
    let submit_task = |task: usize| {
        let source = host.source(&printing_program(&task.to_string()));
        let submitter = format!("--submitter=s{}", task % SUBMITTERS);
        let machine = MACHINES[(task % SUBMITTERS + task / SUBMITTERS) % machines];
        let answer = host.machinectl(&["build", machine, &source, &submitter]);
        answer.success().stdout.trim().parse().expect("a number")
    };
    tasks.map(submit_task).collect()
}

/// Returns the number of finished builds.
pub fn count_finished(host: &AgentHost) -> usize {
    let answer = host.machinectl(&["builds", "--state", "finished", "-n", "1000", "--json"]);
    let builds: Vec<Build> = serde_json::from_str(&answer.success().stdout).expect("builds");
    builds.len()
}

/// Returns the queue with the running builds.
pub fn queue(host: &AgentHost) -> Queue {
    let answer = host.machinectl(&["top", "--once", "--json"]).success();
    serde_json::from_str(&answer.stdout).expect("a queue")
}

/// Checks that each build finished once, as a success or because it was canceled, and that no two
/// packages have the same revision. Returns the builds.
pub fn assert_one_result_each(host: &AgentHost, ids: &[u64], canceled: &[u64]) -> Vec<Build> {
    let builds: Vec<_> = ids.iter().map(|id| host.build(*id)).collect();
    let (log, mut revisions) = (host.log(), BTreeSet::new());
    for build in &builds {
        let is_end = |state| state == State::Finished;
        let ends = build.phases.iter().filter(|phase| is_end(phase.state));
        assert_eq!(ends.count(), 1, "one result: {build:?}");
        let message = format!("build finished build={} ", build.id);
        assert!(log.matches(&message).count() <= 1, "{build:?}");
        match (build.outcome, &build.packages[..]) {
            (Some(Outcome::Success), [package]) => {
                assert!(revisions.insert(package.revision.clone()), "{build:?}");
            }
            (Some(Outcome::Abort), []) if canceled.contains(&build.id.0) => {}
            _ => panic!("{build:?}"),
        }
    }
    builds
}
