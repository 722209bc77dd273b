//! The overhead of a build over the time of its guest: the time from the submission to the outcome,
//! without the time from the start to the end of the guest's process.

use std::time::Duration;

use bench::agent_process::AgentProcess;
use bench::statistics::Timings;
use bench::table::{print_at_most, print_title};
use config::builds::State;

const ROUNDS: usize = 7;
const GOAL_MS: f64 = 50.0;

/// The messages in the agent's log about a guest's process.
const QEMU_STARTED: &str = "started QEMU";
const CONTAINER_STARTED: &str = "started nspawn";
const ENDED: &str = "the guest's process has ended";

/// The parts of a build in their order.
const PARTS: [&str; 4] = [
    "in the queue",
    "before the guest's process",
    GUEST,
    "after the guest's process",
];
const GUEST: &str = "the guest's process";
const OVERHEAD: &str = "overhead";

/// Measures builds, one after the other, on these machines.
pub(crate) fn measure(agent: &AgentProcess, machines: &[&str]) {
    let mut timings = Timings::default();
    for _ in 0..ROUNDS {
        for machine in machines {
            build(agent, machine, &mut timings);
        }
    }
    for machine in machines {
        print_title(&format!("a build on the machine `{machine}`"));
        for part in PARTS {
            timings.print_median(&row(machine, part));
        }
        let overhead = timings.median(&row(machine, OVERHEAD)).unwrap() * 1e3;
        let name = format!("{machine}: overhead over the guest's process");
        print_at_most(&name, overhead, GOAL_MS, " ms");
    }
}

fn build(agent: &AgentProcess, machine: &str, timings: &mut Timings) {
    let log_length = agent.log().len();
    let build = agent.build(machine);
    let logged_at = |message| agent.logged_at(log_length, message);
    let started = match machine {
        "container" => CONTAINER_STARTED,
        _ => QEMU_STARTED,
    };
    let starting = build.phases.iter().find(|it| it.state == State::Starting);
    let times = [
        build.submitted,
        starting.unwrap().at,
        logged_at(started),
        logged_at(ENDED),
        build.finished.unwrap(),
    ];
    let mut overhead = Duration::ZERO;
    for (part, interval) in PARTS.into_iter().zip(times.windows(2)) {
        let duration = interval[1].duration_since(interval[0]);
        let duration: Duration = duration.try_into().unwrap();
        timings.add(&row(machine, part), duration);
        if part != GUEST {
            overhead += duration;
        }
    }
    timings.add(&row(machine, OVERHEAD), overhead);
}

fn row(machine: &str, part: &str) -> String {
    format!("{machine}: {part}")
}
