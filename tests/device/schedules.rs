//! Schedules of an agent that comes and goes: what was missed is made up for once, and
//! nothing is done twice.

use std::collections::BTreeSet;

use config::builds::{Build, State};
use config::schedule::{RunResult, Schedule};
use config::task::Outcome;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::wait_until;

const HELLO: &str = "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n";

fn schedule(host: &AgentHost, name: &str) -> Schedule {
    let answer = host.machinectl(&["schedule", "show", name, "--json"]);
    serde_json::from_str(&answer.success().stdout).unwrap()
}

/// The builds that a schedule has asked for.
fn builds(host: &AgentHost, name: &str) -> Vec<Build> {
    let answer = host.machinectl(&["builds", "--schedule", name, "--count", "1000", "--json"]);
    serde_json::from_str(&answer.success().stdout).unwrap()
}

fn pass(time: Timestamp) {
    wait_until("a time has passed", || Timestamp::now() > time);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_time_that_was_missed_makes_one_build_in_a_guest() {
    let mut host = AgentHost::ready_with_container("");
    let source = host.source(HELLO);
    let at = Timestamp::now() + SignedDuration::from_secs(5);
    let when = at.to_string();
    let add = [
        "schedule", "add", "once", "--at", &when, "--", "demo", &source,
    ];
    host.machinectl(&add).success();
    std::fs::remove_file(&source).unwrap();
    host.stop(Signal::KILL);
    pass(at);
    host.start();
    wait_until("it has run", || schedule(&host, "once").last.is_some());
    host.stop(Signal::KILL);
    host.start();
    let after = schedule(&host, "once");
    let last = after.last.unwrap();
    assert_eq!((last.due, last.result), (Some(at), RunResult::Submitted));
    assert_eq!(after.next, None, "it is over");
    let id = last.build.unwrap().0;
    let built = host.wait_for(id, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
    assert_eq!(builds(&host, "once"), [built]);
    let provenance = host
        .machinectl(&["provenance", &id.to_string()])
        .success()
        .stdout;
    assert!(
        provenance.contains("\"schedule\": \"once\""),
        "{provenance}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn no_beat_is_played_twice_by_an_agent_that_is_killed_again_and_again() {
    let mut host = AgentHost::ready_with_container("");
    host.machinectl(&["drain"]).success();
    let source = host.source(HELLO);
    let often = [
        "schedule", "add", "often", "--every", "1s", "--", "demo", &source,
    ];
    host.machinectl(&[&often[..], &["--no-coalesce"]].concat())
        .success();
    let added = schedule(&host, "often").added;
    for round in 1..=4 {
        wait_until("it has run", || builds(&host, "often").len() >= round * 2);
        host.stop(Signal::KILL);
        let known = Timestamp::now() + SignedDuration::from_secs(2);
        pass(known);
        host.start();
    }
    let made = builds(&host, "often");
    let beat = |build: &Build| build.submitted.duration_since(added).as_secs();
    let beats: BTreeSet<_> = made.iter().map(beat).collect();
    assert_eq!(beats.len(), made.len(), "{made:?}");
    let passed = Timestamp::now().duration_since(added).as_secs();
    assert!(
        i64::try_from(made.len()).unwrap() <= passed - 4,
        "those of {passed} that were missed are one run each"
    );

    // Without a machine it goes on, and says what is missing.
    host.machinectl(&["schedule", "remove", "often"]).success();
    let once = [
        "schedule", "add", "often", "--every", "1s", "--", "demo", &source,
    ];
    host.machinectl(&once).success();
    let attached = |it: &Schedule| {
        it.last
            .as_ref()
            .is_some_and(|run| run.result == RunResult::Coalesced)
    };
    wait_until("it finds its earlier builds", || {
        attached(&schedule(&host, "often"))
    });
    host.machinectl(&["delete", "demo"]).success();
    let says = || host.machinectl(&["schedule", "list"]).success().stdout;
    wait_until("it says why", || {
        says().contains("failed: there is no machine demo to build")
    });
}
