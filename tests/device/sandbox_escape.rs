//! A hostile build in a real guest of a real agent: as root in the guest it tries everything that
//! it must not be able to do. It reaches nothing and does not delay other builds.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use ::sys::command;
use config::builds::State;
use config::task::{GATEWAY, Outcome};
use guest::network::Network;
use tests::agent::AgentHost;
use tests::attacks::refused;
use tests::process_status::number;
use tests::wait_until;

use crate::guest_failures::guest_process;

const ATTACK: &str = include_str!("sandbox_escape/attack.c");
/// The number of kinds of attacks. The build's log has one line for each.
const ATTACKS: usize = 16;
const MIB: u64 = 1024;
/// The growth of the attacked agent that is tolerated.
const AGENT_GROWTH_KIB_MAX: u64 = 32 * MIB;
/// The memory of QEMU beyond that of its guest that is tolerated.
const QEMU_OVERHEAD_KIB_MAX: u64 = 160 * MIB;
/// The memory of the demo's machine.
const GUEST_MEMORY_KIB: u64 = 256 * MIB;

/// Returns all addresses of this host with a port, and an address outside of it.
fn addresses(port: u16) -> String {
    let mut ip = command::prepare("ip");
    ip.args(["-4", "-oneline", "address", "show"]);
    let output = command::run(ip, Duration::from_mins(1)).unwrap();
    let output = String::from_utf8_lossy(&output).into_owned();
    let mut addresses = vec!["192.0.2.1:80".to_owned()];
    for line in output.lines() {
        let network = line.split_whitespace().nth(3).unwrap();
        let address = network.split('/').next().unwrap();
        // A loopback address would lead to the guest itself.
        if !address.starts_with("127.") {
            addresses.push(format!("{address}:{port}"));
        }
    }
    addresses.join(" ")
}

/// Returns the attacks in the log of the build: how many attempts it made, how many of them
/// succeeded, and their kind.
fn attacks(log: &str) -> Vec<(u64, u64, String)> {
    let lines = log
        .lines()
        .filter_map(|line| line.trim().strip_prefix("attempt "));
    let attack = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        (number(), number(), words.next().unwrap().to_owned())
    };
    lines.map(attack).collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_hostile_build_reaches_nothing_and_does_not_delay_others() {
    let host = AgentHost::ready(
        "builds.artifacts_mib_max = 8\nbuilds.retries_max = 0\nbuilds.total_seconds_max = 240\n",
    );
    host.wait_for(host.submit("demo", "hello"), State::Finished);
    let secret = TcpListener::bind("0.0.0.0:0").unwrap();
    let attack = ATTACK
        .replace(
            "ADDRESSES",
            &format!("{:?}", addresses(secret.local_addr().unwrap().port())),
        )
        // More than the artifacts and the result of a build may have.
        .replace("LIMIT", &(17 << 20).to_string());
    let id = host.submit_code("demo", &attack);
    host.wait_for(id, State::Running);
    let network = Network::open(&format!("{}-{id}", host.name())).unwrap();
    let _listener = network
        .enter(|| TcpListener::bind((GATEWAY, 9000)))
        .unwrap();
    let guest = guest_process(&host, id);
    let before = number(host.pid(), "VmRSS:");
    let (mut agent, mut threads, mut qemu) = (before, 0, 0);
    let other = host.submit("demo", "meanwhile");
    let mut observe = || {
        agent = agent.max(number(host.pid(), "VmRSS:"));
        threads = threads.max(number(host.pid(), "Threads:"));
        qemu = qemu.max(number(guest, "VmHWM:"));
        host.build(id).state == State::Finished
    };
    let half = || attacks(&host.log_of(id)).len() > ATTACKS / 2;
    wait_until("half of the attacks were tried", || observe() || half());
    wait_until("the hostile build has finished", observe);
    let log = host.log_of(id);
    let attacks = attacks(&log);
    for (tried, reached, kind) in &attacks {
        println!("{tried:>6} tried {reached:>3} reached  {kind}");
        if *reached == 0 {
            refused("build -> host", kind, &format!("{tried} tries, no effect"));
        }
    }
    println!("agent: {before} KiB before, at most {agent} KiB and {threads} threads");
    println!("QEMU: at most {qemu} KiB, including {GUEST_MEMORY_KIB} KiB of the guest");
    assert_eq!(attacks.len(), ATTACKS, "{log}");
    assert!(attacks.iter().all(|(_, reached, _)| *reached == 0), "{log}");
    assert!(agent - before < AGENT_GROWTH_KIB_MAX, "the agent has grown");
    assert!(
        qemu < GUEST_MEMORY_KIB + QEMU_OVERHEAD_KIB_MAX,
        "QEMU has grown"
    );
    check_outcomes(&host, id, other);
    host.wait_until_torn_down();
}

/// Checks that the other build succeeded before the hostile one finished, and that the hostile one
/// failed and has no results.
fn check_outcomes(host: &AgentHost, hostile: u64, other: u64) {
    let other = host.build(other);
    assert_eq!(other.outcome, Some(Outcome::Success), "{other:?}");
    let build = host.build(hostile);
    assert!(other.finished < build.finished, "{other:?} {build:?}");
    assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
    assert!(
        build.message.contains("which the guest has not put"),
        "{build:?}"
    );
    assert_eq!(build.packages, []);
    let artifacts = host
        .state_directory()
        .join(format!("builds/{hostile}/artifacts"));
    assert_eq!(fs::read_dir(artifacts).unwrap().count(), 0);
}
