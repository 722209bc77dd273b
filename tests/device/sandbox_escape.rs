//! A hostile build in a real guest of a real agent: root in there, it tries all that it
//! must not be able to do, reaches nothing, and holds nobody up.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use ::sys::command;
use config::builds::State;
use config::task::{GATEWAY, Outcome};
use guest::network::Network;
use rustix::process::Pid;
use tests::agent::AgentHost;
use tests::wait_until;

const ATTACK: &str = include_str!("sandbox_escape/attack.c");
/// What the kinds of attempts are; each is told in one line of the build's log.
const KINDS: usize = 16;
const MIB: u64 = 1024;
/// So much may the agent grow while it is attacked, and QEMU beyond the guest's memory.
const AGENT_GROWTH_MAX: u64 = 32 * MIB;
const QEMU_OVERHEAD_MAX: u64 = 160 * MIB;
/// What the demo's machine has.
const GUEST_MEMORY: u64 = 256 * MIB;

/// The number in KiB of a line in `/proc/PID/status`; 0 when it has ended.
fn status(pid: Pid, name: &str) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.map_or(0, |word| word.parse().unwrap())
}

/// Every address of this host, with a port at which something of ours listens.
fn addresses(port: u16) -> String {
    let mut ip = command::prepare("ip");
    ip.args(["-4", "-oneline", "address", "show"]);
    let said = command::run(ip, Duration::from_mins(1)).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    let words = said
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    // A loopback that it reaches is its own.
    let words = words.filter(|word| !word.starts_with("127."));
    let address = |word: &str| format!("{}:{port}", word.split('/').next().unwrap_or(word));
    let all: Vec<_> = words
        .map(address)
        .chain(["192.0.2.1:80".to_owned()])
        .collect();
    all.join(" ")
}

/// What the build says that it tried and reached.
fn attempts(log: &str) -> Vec<(u64, u64, String)> {
    let lines = log
        .lines()
        .filter_map(|line| line.trim().strip_prefix("attempt "));
    let attempt = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        (number(), number(), words.next().unwrap().to_owned())
    };
    lines.map(attempt).collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_hostile_build_reaches_nothing_and_holds_nobody_up() {
    let host = AgentHost::ready(
        "builds.artifacts_mib_max = 8\nbuilds.retries_max = 0\nbuilds.total_seconds_max = 100\n",
    );
    host.wait_for(host.submit("demo", "hello"), State::Finished);
    let secret = TcpListener::bind("0.0.0.0:0").unwrap();
    let attack = ATTACK
        .replace(
            "ADDRESSES",
            &format!("{:?}", addresses(secret.local_addr().unwrap().port())),
        )
        // More than a build may give out, and more than a result may have.
        .replace("LIMIT", &(17 << 20).to_string());
    let id = host.submit_code("demo", &attack);
    host.wait_for(id, State::Running);
    let network = Network::open(&format!("{}-{id}", host.name())).unwrap();
    let _inside = network
        .enter(|| TcpListener::bind((GATEWAY, 9000)))
        .unwrap();
    let guest = host.guests()[0];
    let before = status(host.pid(), "VmRSS:");
    let (mut most, mut threads, mut largest) = (before, 0, 0);
    let other = host.submit("demo", "meanwhile");
    let mut meanwhile = false;
    let mut look = || {
        most = most.max(status(host.pid(), "VmRSS:"));
        threads = threads.max(status(host.pid(), "Threads:"));
        largest = largest.max(status(guest, "VmHWM:"));
        let is_over = host.build(id).state == State::Finished;
        meanwhile |= !is_over && host.build(other).state == State::Finished;
        is_over
    };
    let half = || attempts(&host.log_of(id)).len() > KINDS / 2;
    wait_until("half of it is tried", || look() || half());
    wait_until("the hostile build is over", look);
    let log = host.log_of(id);
    let table = attempts(&log);
    for (tried, reached, what) in &table {
        println!("{tried:>6} tried {reached:>3} reached  {what}");
    }
    println!("agent: {before} KiB before, {most} KiB at most, {threads} threads at most");
    println!("QEMU: {largest} KiB at most, {GUEST_MEMORY} KiB of them the guest's");
    assert_eq!(table.len(), KINDS, "{log}");
    assert!(table.iter().all(|(_, reached, _)| *reached == 0), "{log}");
    assert!(most - before < AGENT_GROWTH_MAX, "the agent has grown");
    assert!(largest < GUEST_MEMORY + QEMU_OVERHEAD_MAX, "QEMU has grown");

    assert!(meanwhile, "the other build did not end meanwhile");
    check_outcomes(&host, id, other);
    host.wait_until_torn_down();
}

/// The other build is a success, and of the hostile one there is nothing.
fn check_outcomes(host: &AgentHost, id: u64, other: u64) {
    let build = host.build(other);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    let build = host.build(id);
    assert_eq!(build.outcome, Some(Outcome::Abnormal), "{build:?}");
    assert!(build.message.contains("which it has not put"), "{build:?}");
    assert_eq!(build.packages, []);
    let artifacts = host
        .state_directory()
        .join(format!("builds/{id}/artifacts"));
    assert_eq!(fs::read_dir(artifacts).unwrap().count(), 0);
}
