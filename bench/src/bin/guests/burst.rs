//! The startup of many guests at once, and the responsiveness of the agent meanwhile: the time from
//! the release of all builds to each worker's request for its task, and the longest response to a
//! status request. Another build of the agent can be measured beside this one in the same run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bench::agent_process::{AgentProcess, Installation};
use bench::statistics::quantile;
use bench::table::print_title;
use jiff::Timestamp;

const GUESTS: usize = 16;
/// The number of bursts of each machine by each agent, in turn.
const ROUNDS: usize = 4;
/// The machines, with the kind of their starts.
const MACHINES: [(&str, &str); 3] = [
    ("cold", "virtual machines, cold start"),
    ("frozen", "virtual machines, warm start"),
    ("container", "containers"),
];
/// The interval of the status requests.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The interval at which the progress of the builds is checked.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The durations of all bursts of a machine by an agent.
#[derive(Default)]
struct Burst {
    /// The times from the release of the builds to the requests for their tasks.
    startups: Vec<Duration>,
    /// The response times of status requests during the bursts.
    responses: Vec<Duration>,
}

impl Burst {
    fn print(&self, agent: &str) {
        let startup = |fraction| quantile(self.startups.clone(), fraction).as_secs_f64();
        let response = |fraction| quantile(self.responses.clone(), fraction).as_secs_f64() * 1e3;
        println!(
            "{agent:<10} {:>7.2} s {:>7.2} s {:>7.2} s {:>10.1} ms {:>10.1} ms",
            startup(0.5),
            startup(0.95),
            startup(1.0),
            response(0.99),
            response(1.0)
        );
    }
}

/// Measures this build of the agent, and another build if a directory with its programs is given.
pub(crate) fn measure(work: &Path, other: Option<&Path>) {
    let mut agents = vec![("this build", None)];
    agents.extend(other.map(|programs| ("other", Some(programs.to_owned()))));
    let mut bursts: Vec<Vec<Burst>> = Vec::new();
    bursts.resize_with(agents.len(), || MACHINES.map(|_| Burst::default()).into());
    for _ in 0..ROUNDS {
        for ((name, programs), bursts) in agents.iter().zip(&mut bursts) {
            let agent = AgentProcess::start(Installation {
                programs: programs.clone(),
                name: name.replace(' ', "-"),
                settings: format!("guests.parallel_max = {GUESTS}\n"),
                ..Installation::new(work, "machines")
            });
            agent.wait_until_ready(&MACHINES.map(|(machine, _)| machine));
            for ((machine, _), burst) in MACHINES.iter().zip(bursts) {
                start_guests(&agent, machine, burst);
            }
        }
    }
    if let Some(programs) = other {
        println!("other: the programs in {}", programs.display());
    }
    for (number, (_, kind)) in MACHINES.iter().enumerate() {
        print_title(&format!("{GUESTS} guests at once, {kind}"));
        println!(
            "{:<10} {:>9} {:>9} {:>9} {:>13} {:>13}",
            "agent", "p50", "p95", "max", "p99 response", "max response"
        );
        for ((agent, _), bursts) in agents.iter().zip(&bursts) {
            bursts[number].print(agent);
        }
    }
}

/// Submits builds that stop at a breakpoint before they start, releases them at once, and waits
/// until all workers have asked for their tasks.
fn start_guests(agent: &AgentProcess, machine: &str, burst: &mut Burst) {
    agent.machinectl(&["--quiet", "drain"]);
    for _ in 0..GUESTS {
        agent.submit(machine, &["--interactive", "start"]);
    }
    let is_over = AtomicBool::new(false);
    let released = thread::scope(|scope| {
        let responses = scope.spawn(|| poll_status(agent, &is_over));
        let released = Timestamp::now();
        agent.machinectl(&["--quiet", "undrain"]);
        agent.wait("all workers have asked for their tasks", || {
            // Frequent requests would slow the guests down.
            thread::sleep(PROGRESS_INTERVAL);
            let records = agent.newest_records(GUESTS);
            records.iter().all(|build| build.first_contact().is_some())
        });
        is_over.store(true, Ordering::Relaxed);
        burst.responses.extend(responses.join().unwrap());
        released
    });
    for build in agent.newest_records(GUESTS) {
        let startup = build.first_contact().unwrap().duration_since(released);
        burst.startups.push(startup.try_into().unwrap());
        agent.machinectl(&["--quiet", "cancel", &build.id.to_string()]);
    }
    agent.wait("the guests have ended", || {
        let mut records = agent.newest_records(GUESTS).into_iter();
        records.all(|build| build.finished.is_some())
    });
}

/// Requests the agent's status at an interval, and returns the response times.
fn poll_status(agent: &AgentProcess, is_over: &AtomicBool) -> Vec<Duration> {
    let mut client = agent.connect();
    let mut responses = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.get("/api/v1/status");
        let response = began.elapsed();
        responses.push(response);
        thread::sleep(POLL_INTERVAL.saturating_sub(response));
    }
    responses
}
