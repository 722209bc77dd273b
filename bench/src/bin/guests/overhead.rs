//! What a build costs over the guest's own time: from its submission to its outcome,
//! less what lies between the start of the guest's process and its end.

use std::time::Duration;

use config::builds::State;

use crate::host::Agent;
use crate::table::{Table, at_most, title};

const ROUNDS: usize = 7;
const GOAL_MS: f64 = 50.0;

/// What the agent's log says of a guest's process.
const STARTED: &str = "the guest's process was started";
const ENDED: &str = "the guest's process has ended";

/// From its submission to its outcome, in order; the guest's own time is the third.
const PARTS: [&str; 4] = [
    "waits for its turn",
    "before the guest's process",
    "the guest's own time",
    "after the guest's process",
];
const OVERHEAD: &str = "overhead";

/// Measures builds one after the other on machines whose agent logs in JSON.
pub(crate) fn measure(agent: &Agent, machines: &[&str]) {
    let mut all = Table::default();
    for _ in 0..ROUNDS {
        for machine in machines {
            one(agent, machine, &mut all);
        }
    }
    for machine in machines {
        title(&format!("a build on the machine `{machine}`"));
        for part in PARTS {
            all.print(&row(machine, part));
        }
        let overhead = all.median(&row(machine, OVERHEAD)).unwrap() * 1e3;
        let what = format!("{machine}: overhead over the guest's own time");
        at_most(&what, overhead, GOAL_MS, " ms");
    }
}

fn one(agent: &Agent, machine: &str, all: &mut Table) {
    let seen = agent.log().len();
    let build = agent.build(machine);
    let of = |message| agent.logged(seen, message);
    let starting = build.phases.iter().find(|it| it.state == State::Starting);
    let times = [
        build.submitted,
        starting.unwrap().at,
        of(STARTED),
        of(ENDED),
        build.finished.unwrap(),
    ];
    let mut overhead = Duration::ZERO;
    for (number, part) in PARTS.into_iter().enumerate() {
        let time = times[number + 1].duration_since(times[number]);
        let time: Duration = time.try_into().unwrap();
        all.add(&row(machine, part), time);
        if number != 2 {
            overhead += time;
        }
    }
    all.add(&row(machine, OVERHEAD), overhead);
}

fn row(machine: &str, part: &str) -> String {
    format!("{machine}: {part}")
}
