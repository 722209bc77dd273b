//! The queue of a running agent: what waits for what, who attaches to what, and a
//! host that is drained.

use config::builds::{Build, State};
use config::task::Outcome::{self, Error, Skip, Success};
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::wait_until;

use crate::guest_failures::guest;

const FAILS: &str = "int main(void) { return nonsense; }\n";

fn says(words: &str) -> String {
    format!("#include <stdio.h>\nint main(void) {{ return puts(\"{words}\") < 0; }}\n")
}

/// Asks for a build as one would by hand.
fn build(host: &AgentHost, code: &str, options: &[&str]) -> u64 {
    let source = host.source(code);
    let answer = host.machinectl(&[&["build", "demo", &source], options].concat());
    answer.success().stdout.trim().parse().unwrap()
}

fn why(host: &AgentHost, id: u64) -> String {
    let answer = host.machinectl(&["explain", &id.to_string()]);
    answer.success().stdout
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_drained_host_finishes_what_runs_and_starts_nothing_until_it_is_told_to() {
    let mut host = AgentHost::ready("");
    let runs = host.submit("demo", "one");
    host.wait_for(runs, State::Starting);
    let drain = ["drain", "--wait", "--reason", "new disks"];
    let answer = host.machinectl(&drain).success();
    assert!(answer.stderr.contains("no running guests"), "{answer:?}");
    assert_eq!(host.build(runs).outcome, Some(Outcome::Success));
    host.wait_until_torn_down();

    let waits = host.submit("demo", "two");
    // It outlives the agent.
    host.stop(Signal::KILL);
    host.start();
    wait_until("it is told why", || {
        why(&host, waits).contains("(new disks)")
    });
    let words = host.machinectl(&["explain"]).success().stdout;
    assert!(words.starts_with("1 waiting build"), "{words}");
    let notice = host.machinectl(&["host", "status"]).success().stdout;
    assert!(notice.contains("`buildhost undrain` ends it"), "{notice}");
    assert!(host.guests().is_empty());
    host.machinectl(&["undrain"]).success();
    let built = host.wait_for(waits, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn builds_come_after_others_or_are_skipped_and_urgent_ones_come_first() {
    let host = AgentHost::ready_with_container("guests.parallel_max = 1\n");
    host.machinectl(&["drain"]).success();
    let fails = build(&host, FAILS, &[]);
    let fine = build(&host, &says("fine"), &[]);
    let after = |id: u64| format!("--after={id}");
    let skipped = build(&host, &says("skipped"), &[&after(fails)]);
    let skipped_too = build(&host, &says("too"), &[&after(skipped), &after(fine)]);
    let second = build(&host, &says("second"), &[&after(fine)]);
    let urgent = build(&host, &says("urgent"), &["--priority=5"]);
    host.machinectl(&["build", "demo", &host.source(FAILS), "--after=99"])
        .refused(10, "there is no build 99");
    wait_until("it is told for what", || {
        why(&host, second)
            == format!("build {second} waits for build {fine}, which it is to come after\n")
    });
    host.machinectl(&["undrain"]).success();
    let ended = [fails, fine, skipped, skipped_too, second, urgent]
        .map(|id| host.wait_for(id, State::Finished));
    assert_eq!(
        ended.each_ref().map(|build| build.outcome),
        [Error, Success, Skip, Skip, Success, Success].map(Some),
        "{ended:?}"
    );
    let started = |build: &Build| build.started;
    let [fails, fine, skipped, _, second, urgent] = &ended;
    assert!(started(urgent) < started(fails) && started(urgent) < started(fine));
    assert!(fine.finished < second.started);
    assert_eq!(skipped.attempts, 0);
    let words = format!("build {}, which it was to come after", fails.id);
    assert!(skipped.message.contains(&words), "{skipped:?}");
    let followed = host.machinectl(&["log", "--follow", &skipped.id.to_string()]);
    assert_eq!(followed.code, Some(1), "{followed:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_is_under_way_already_is_not_built_twice_unless_somebody_wants_it() {
    let host = AgentHost::ready_with_container("");
    host.machinectl(&["drain"]).success();
    let first = build(&host, &says("same"), &[]);
    assert_eq!(build(&host, &says("same"), &["--priority=3"]), first);
    assert_eq!(
        host.build(first).priority.0,
        3,
        "the more urgent wish counts"
    );
    let source = host.source(&says("same"));
    let answer = host.machinectl(&["build", "demo", &source]).success();
    assert!(answer.stderr.contains("is equivalent"), "{answer:?}");
    assert_ne!(build(&host, &says("other"), &[]), first);
    assert_ne!(build(&host, &says("same"), &["--no-coalesce"]), first);
    host.machinectl(&["undrain"]).success();
    host.wait_for(first, State::Running);
    let later = build(&host, &says("same"), &[]);
    let built = host.wait_for(first, State::Finished);
    // Its twin, which was wanted beside it, would do as well.
    host.wait_for(first + 2, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success));
    assert!(
        later <= first + 2,
        "it runs from what a new one would run from"
    );
    // The one that was wanted twice does the same.
    host.wait_for(first + 2, State::Finished);
    assert!(build(&host, &says("same"), &[]) > first + 2, "it is over");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_too_large_for_what_is_free_waits_with_the_figures() {
    // The demo's machine takes 256 MiB.
    let host = AgentHost::ready("guests.memory_mib = 300\n");
    let first = host.submit("demo", "one");
    let second = host.submit("demo", "two");
    host.wait_for(first, State::Starting);
    let words = format!(
        "build {second} waits for memory: 256 MiB wanted, 44 of 300 free; build {first} holds the rest\n"
    );
    wait_until("it is told why", || why(&host, second) == words);
    host.machinectl(&["cancel", &second.to_string()]).success();
    assert_eq!(host.build(second).outcome, Some(Outcome::Abort));
    host.wait_for(first, State::Finished);
}

/// Deletes a build as one would by hand; it must be refused with these words.
fn is_kept(host: &AgentHost, id: u64, words: &str) {
    let answer = host.machinectl(&["builds", "delete", &id.to_string()]);
    assert_ne!(answer.code, Some(0), "{answer:?}");
    assert!(answer.stderr.contains(words), "{answer:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_rests_or_is_awaited_is_kept_until_it_is_cancelled() {
    // A guest that is woken would be given up, and the same attempt begin anew.
    let host = AgentHost::ready("guests.frozen = \"off\"\n");
    let rests = host.submit("demo", "rests");
    host.wait_for(rests, State::Starting);
    wait_until("there is a guest", || {
        host.run_directory()
            .join(format!("guests/{rests}/process.json"))
            .exists()
    });
    // Its guest dies, which is no fault of the package: it rests, and while the host is
    // drained nothing else becomes of it.
    host.machinectl(&["drain"]).success();
    kill_process(guest(&host, rests), Signal::KILL).unwrap();
    wait_until("it is in the queue again", || {
        let build = host.build(rests);
        build.state == State::Queued && build.not_before.is_some()
    });
    let after = build(&host, &says("after"), &[&format!("--after={rests}")]);
    let last = build(&host, &says("last"), &[&format!("--after={after}")]);
    for id in [rests, after] {
        is_kept(&host, id, "has not ended yet; cancel it first");
    }
    host.machinectl(&["cancel", &rests.to_string()]).success();
    let ended = host.build(rests);
    assert_eq!((ended.outcome, ended.attempts), (Some(Outcome::Abort), 1));
    // What was to come after it is given up, and what was to come after that.
    for id in [after, last] {
        assert_eq!(host.wait_for(id, State::Finished).outcome, Some(Skip));
    }
    let awaits = build(&host, &says("awaits"), &[&format!("--after={rests}")]);
    host.wait_for(awaits, State::Finished);
    for id in [rests, after, last, awaits] {
        host.machinectl(&["builds", "delete", &id.to_string()])
            .success();
    }
    let builds = host.machinectl(&["builds", "--json"]).success().stdout;
    assert!(!builds.contains("\"id\""), "{builds}");
    host.wait_until_torn_down();
}
