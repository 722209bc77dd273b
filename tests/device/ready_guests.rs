//! Ready guests: builds take them, and they go where they are not needed or in the way.

use std::fs;

use config::builds::{Build, StartKind, State};
use config::task::Outcome;
use rustix::process::{Signal, kill_process};
use tests::agent::{AgentHost, printing_program};
use tests::wait_until;

use crate::checkpoints::wait_until_ready;
use crate::guest_failures::guest_process;

const TAKEN: &str = "a build takes a ready guest";

/// Returns the names of the ready guests: of their run directories and their snapshots.
fn ready_guests(host: &AgentHost) -> [Vec<String>; 2] {
    let names = |directory, prefix: &str| {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let numbers = names.filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned()));
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort();
        numbers
    };
    let machine = host.host.volume.path().join("demo");
    let snapshots = if machine.exists() {
        names(machine, "demo-default-r")
    } else {
        Vec::new()
    };
    [names(host.run_directory().join("guests"), "r"), snapshots]
}

fn wait_for_ready_guests(host: &AgentHost, count: usize) {
    wait_until(&format!("{count} guests are ready"), || {
        let [guests, snapshots] = ready_guests(host);
        // The record of its process is written when QEMU runs.
        let has_process = |number: &String| {
            let directory = host
                .run_directory()
                .join("guests")
                .join(format!("r{number}"));
            // Before that it rehearses.
            let is_made = format!("a guest is ready guest=r{number}");
            directory.join("process.json").exists() && host.log().contains(&is_made)
        };
        guests.len() == count && snapshots == guests && guests.iter().all(has_process)
    });
}

fn build(host: &AgentHost, text: &str) -> Build {
    let id = host.submit_code("demo", &printing_program(text));
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.attempts, 1, "{build:?}");
    assert_eq!(build.startup().unwrap().0, StartKind::Restored, "{build:?}");
    assert!(host.log_of(id).contains(text));
    build
}

/// Returns a host with a hot image and one ready guest.
fn hot_host() -> AgentHost {
    let host = AgentHost::ready("guests.ready_max = 2\n");
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    for text in ["first", "second"] {
        build(&host, text);
        assert!(!host.log().contains(TAKEN));
    }
    wait_for_ready_guests(&host, 1);
    host
}

fn takes(host: &AgentHost) -> usize {
    host.log().matches(TAKEN).count()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_takes_a_ready_guest_and_another_one_is_made() {
    let mut host = hot_host();
    for (number, text) in [(1, "third"), (2, "fourth")] {
        build(&host, text);
        assert_eq!(takes(&host), number);
        wait_for_ready_guests(&host, 1);
    }
    // The agent knows them: the doctor finds nothing to repair.
    let doctor = host.machinectl(&["doctor"]).success();
    assert!(!doctor.stdout.contains("leftover"), "{}", doctor.stdout);
    // A guest with its new name survives the agent.
    let id = host.submit_stopped("demo", "adopted");
    host.wait_for_breakpoint(id);
    assert_eq!(takes(&host), 3);
    host.stop(Signal::USR2);
    assert_eq!(ready_guests(&host), [vec![], vec![]] as [Vec<String>; 2]);
    host.start();
    host.resume(id);
    let adopted = host.wait_for(id, State::Finished);
    assert_eq!(adopted.outcome, Some(Outcome::Success), "{adopted:?}");
    assert_eq!(adopted.attempts, 1, "{adopted:?}");
    host.stop(Signal::TERM);
    let left = host.host.listing();
    assert!(
        !left.iter().any(|name| name.contains("demo-default-")),
        "{left:?}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn ready_guests_are_ended_with_a_drain_a_dead_agent_and_their_machine() {
    let mut host = hot_host();
    host.machinectl(&["drain"]).success();
    wait_for_ready_guests(&host, 0);
    host.machinectl(&["undrain"]).success();
    wait_for_ready_guests(&host, 1);
    host.stop(Signal::KILL);
    let [guests, snapshots] = ready_guests(&host);
    assert_eq!((guests.len(), snapshots.len()), (1, 1));
    host.start();
    wait_for_ready_guests(&host, 0);
    for text in ["third", "fourth"] {
        build(&host, text);
    }
    wait_for_ready_guests(&host, 1);
    host.machinectl(&["delete", "demo"]).success();
    wait_for_ready_guests(&host, 0);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_whose_ready_guest_has_died_starts_its_own() {
    let host = hot_host();
    let [guests, _] = ready_guests(&host);
    let pid = guest_process(&host, format_args!("r{}", guests[0]));
    kill_process(pid, Signal::KILL).unwrap();
    build(&host, "third");
    assert_eq!(takes(&host), 0);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_host_may_have_no_ready_guests() {
    let host = AgentHost::ready("guests.ready_max = 0\n");
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    for text in ["first", "second", "third"] {
        build(&host, text);
    }
    assert_eq!(takes(&host), 0);
    assert_eq!(ready_guests(&host), [vec![], vec![]] as [Vec<String>; 2]);
    // The second guest loads the memory that the third one shares.
    assert!(host.log().contains("loaded the memory of a hot image"));
}
