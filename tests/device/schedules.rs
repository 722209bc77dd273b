//! Schedules of an agent that is killed and restarted: missed runs collapse into one, and no run is
//! repeated.

use config::builds::{Build, State};
use config::schedule::{RunResult, Schedule};
use config::task::Outcome;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use tests::agent::{AgentHost, printing_program};
use tests::wait_until;

fn schedule(host: &AgentHost, name: &str) -> Schedule {
    let answer = host.machinectl(&["schedule", "show", name, "--json"]);
    serde_json::from_str(&answer.success().stdout).unwrap()
}

/// Returns the builds that a schedule has submitted.
fn builds(host: &AgentHost, name: &str) -> Vec<Build> {
    let answer = host.machinectl(&["builds", "--schedule", name, "--count", "1000", "--json"]);
    serde_json::from_str(&answer.success().stdout).unwrap()
}

fn wait_until_time(time: Timestamp) {
    wait_until(&format!("it is {time}"), || Timestamp::now() > time);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_missed_run_is_made_up_for_once() {
    let mut host = AgentHost::ready_with_container("");
    let source = host.source(&printing_program("hello"));
    // The schedule must be added, and the agent killed, before this time.
    let at = Timestamp::now() + SignedDuration::from_secs(20);
    let when = at.to_string();
    let add = [
        "schedule", "add", "once", "--at", &when, "--", "demo", &source,
    ];
    host.machinectl(&add).success();
    std::fs::remove_file(&source).unwrap();
    host.stop(Signal::KILL);
    wait_until_time(at);
    host.start();
    wait_until("the schedule has run", || {
        schedule(&host, "once").last.is_some()
    });
    host.stop(Signal::KILL);
    host.start();
    let after = schedule(&host, "once");
    let last = after.last.unwrap();
    assert_eq!((last.due, last.result), (Some(at), RunResult::Submitted));
    assert_eq!(after.next, None, "no run is left");
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
fn no_run_is_repeated_by_agents_that_are_killed() {
    let mut host = AgentHost::ready_with_container("");
    host.machinectl(&["drain"]).success();
    let source = host.source(&printing_program("hello"));
    let often = [
        "schedule", "add", "often", "--every", "1s", "--", "demo", &source,
    ];
    host.machinectl(&[&often[..], &["--no-coalesce"]].concat())
        .success();
    let added = schedule(&host, "often").added;
    let mut gaps = Vec::new();
    for round in 1..=4 {
        wait_until("the schedule has run twice more", || {
            builds(&host, "often").len() >= round * 2
        });
        host.stop(Signal::KILL);
        let killed = Timestamp::now();
        wait_until_time(killed + SignedDuration::from_secs(2));
        gaps.push((killed, Timestamp::now()));
        host.start();
    }
    assert_no_run_is_repeated(&builds(&host, "often"), added, &gaps);

    // Without its machine the schedule keeps running and reports the reason of its failure.
    host.machinectl(&["schedule", "remove", "often"]).success();
    let once = [
        "schedule", "add", "often", "--every", "1s", "--", "demo", &source,
    ];
    host.machinectl(&once).success();
    wait_until("a run is coalesced with an earlier build", || {
        let last = schedule(&host, "often").last;
        last.is_some_and(|run| run.result == RunResult::Coalesced)
    });
    let deleted = host.machinectl(&["delete", "demo"]).success();
    let note = "demo: note: still submitting builds for it: schedule often; ";
    assert!(deleted.stderr.contains(note), "{deleted:?}");
    let examined = host.machinectl(&["doctor", "--json"]);
    let finding = "\"id\": \"schedule-without-machine\"";
    assert!(examined.stdout.contains(finding), "{examined:?}");
    wait_until("the schedule reports its failure", || {
        let list = host.machinectl(&["schedule", "list"]).success().stdout;
        list.contains("failed: there is no machine demo to build")
    });
}

/// Checks that a schedule that runs every second has submitted at most one build for each second
/// since it was added, and at most one for each gap during which no agent ran.
fn assert_no_run_is_repeated(builds: &[Build], added: Timestamp, gaps: &[(Timestamp, Timestamp)]) {
    let due_until = |time: Timestamp| time.duration_since(added).as_secs();
    let mut submitted: Vec<_> = builds.iter().map(|build| build.submitted).collect();
    submitted.sort();
    for (number, time) in (1..).zip(submitted) {
        let mut allowed: i64 = due_until(time);
        for (killed, started) in gaps.iter().filter(|(_, started)| *started < time) {
            allowed -= (due_until(*started) - due_until(*killed) - 1).max(0);
        }
        assert!(number <= allowed, "{allowed} runs until {time}: {builds:?}");
    }
}
