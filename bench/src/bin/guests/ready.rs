//! The starts of builds in ready guests, compared with warm starts in the same run, and the memory of
//! the guests of a hot image, compared with guests that share none.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use bench::agent_process::{AgentProcess, Installation};
use bench::statistics::quantile;
use bench::table::print_title;
use config::builds::Build;
use jiff::Timestamp;

/// The number of agents of each kind, in turn, and of builds with each.
const ROUNDS: usize = 3;
const BUILDS: usize = 10;
/// The builds after which an image is hot.
const WARM_UP: usize = 2;
/// The time in which a ready guest is made and has rehearsed.
const SETTLE: Duration = Duration::from_secs(4);
/// The guests whose memory is measured at once.
const GUESTS: u64 = 6;

/// The kinds of agents, with the largest number of their ready guests.
const KINDS: [(&str, usize); 2] = [("warm start", 0), ("ready guest", 4)];
const GOAL_P50_MS: f64 = 80.0;
const GOAL_P99_MS: f64 = 150.0;
const GOAL_MEMORY_MIB: u64 = 40;

/// The durations from the submission of builds.
#[derive(Default)]
struct Starts {
    to_first_packet: Vec<Duration>,
    to_first_line: Vec<Duration>,
}

/// Measures both kinds of agents in turn, on the machine `frozen`.
pub(crate) fn measure(work: &Path) {
    let mut starts = KINDS.map(|_| Starts::default());
    for _ in 0..ROUNDS {
        for ((name, ready_max), starts) in KINDS.iter().zip(&mut starts) {
            let agent = AgentProcess::start(Installation {
                name: name.replace(' ', "-"),
                settings: format!("guests.ready_max = {ready_max}\n"),
                ..Installation::new(work, "machines")
            });
            agent.wait_until_ready(&["frozen"]);
            for number in 0..WARM_UP + BUILDS {
                let build = agent.build("frozen");
                if number >= WARM_UP {
                    starts.add(&agent, &build);
                }
                sleep(SETTLE);
            }
        }
    }
    print_title("from the submission of a build");
    println!("      p50        p99");
    for ((name, _), starts) in KINDS.iter().zip(&starts) {
        starts.print(name);
    }
    let lines = &starts[1].to_first_line;
    for (fraction, goal) in [(0.5, GOAL_P50_MS), (0.99, GOAL_P99_MS)] {
        let found = milliseconds(lines, fraction);
        let verdict = if found <= goal { "pass" } else { "FAIL" };
        println!(
            "{verdict}  first line, p{:.0}: {found:.0} ms of {goal:.0}",
            fraction * 100.0
        );
    }
    memory(work);
}

impl Starts {
    fn add(&mut self, agent: &AgentProcess, build: &Build) {
        let since = |end: Timestamp| end.duration_since(build.submitted).try_into().unwrap();
        self.to_first_packet
            .push(since(build.first_contact().unwrap()));
        let log = agent.machinectl(&["log", &build.id.to_string(), "--timestamps"]);
        let first = log.split_whitespace().next().unwrap();
        self.to_first_line.push(since(first.parse().unwrap()));
    }

    fn print(&self, name: &str) {
        for (what, durations) in [
            ("worker's first packet", &self.to_first_packet),
            ("toolchain's first line", &self.to_first_line),
        ] {
            let (p50, p99) = (milliseconds(durations, 0.5), milliseconds(durations, 0.99));
            println!("{p50:>9.1} {p99:>10.1} ms  {name}, to the {what}");
        }
    }
}

fn milliseconds(durations: &[Duration], fraction: f64) -> f64 {
    quantile(durations.to_vec(), fraction).as_secs_f64() * 1e3
}

/// Measures the memory of guests that wait at a breakpoint: the first ones of an image have memory
/// of their own, those of a hot image share it.
fn memory(work: &Path) {
    let agent = AgentProcess::start(Installation {
        name: "memory".to_owned(),
        settings: "guests.ready_max = 0\n".to_owned(),
        ..Installation::new(work, "machines")
    });
    agent.wait_until_ready(&["frozen"]);
    let guests = work.join("run-memory/guests");
    print_title("memory of the processes of guests (PSS)");
    let own = hold(&agent, 2);
    let of_two = proportional_memory(&guests);
    end(&agent, &own);
    println!(
        "{:>7} MiB  of 2 guests with memory of their own",
        of_two >> 10
    );
    let first = hold(&agent, 1);
    let of_one = proportional_memory(&guests);
    let others = hold(&agent, GUESTS - 1);
    let of_all = proportional_memory(&guests);
    end(&agent, &[first, others].concat());
    println!("{:>7} MiB  of 1 guest of a hot image", of_one >> 10);
    println!("{:>7} MiB  of {GUESTS} guests of a hot image", of_all >> 10);
    let each = of_all.saturating_sub(of_one) / (GUESTS - 1) / 1024;
    let verdict = if each <= GOAL_MEMORY_MIB {
        "pass"
    } else {
        "FAIL"
    };
    println!("{verdict}  each further guest: {each} MiB of {GOAL_MEMORY_MIB}");
}

/// Starts builds that wait at a breakpoint, and returns their numbers.
fn hold(agent: &AgentProcess, count: u64) -> Vec<String> {
    let submit = |_| agent.submit("frozen", &["--interactive", "start"]);
    let builds: Vec<_> = (0..count).map(submit).collect();
    agent.wait("the guests stop at their breakpoints", || {
        let mut records = builds.iter().map(|id| agent.record(id));
        records.all(|build| build.interactive.held.is_some())
    });
    builds
}

fn end(agent: &AgentProcess, builds: &[String]) {
    for id in builds {
        agent.machinectl(&["--quiet", "cancel", id]);
    }
    agent.wait("the guests have ended", || {
        let mut records = builds.iter().map(|id| agent.record(id));
        records.all(|build| build.finished.is_some())
    });
}

/// Returns the memory of the processes of all guests in KiB. Pages that several map are shared out
/// among them.
fn proportional_memory(guests: &Path) -> u64 {
    let records = fs::read_dir(guests).unwrap();
    let memory = records.map(|entry| {
        let record = fs::read_to_string(entry.unwrap().path().join("process.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", record["pid"])).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse::<u64>().unwrap()
    });
    memory.sum()
}
