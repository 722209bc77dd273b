//! The queue of a running agent: dependencies, priorities, coalescing, capacity and draining.

use config::builds::{Build, State};
use config::queue::Forecast;
use config::task::Outcome::{self, Error, Skip, Success};
use jiff::Timestamp;
use rusqlite::Connection;
use rustix::process::{Signal, kill_process};
use tests::agent::{AgentHost, ENDLESS_PROGRAM, GATED_PROGRAM, printing_program};
use tests::wait_until;

use crate::agent::script_worker;
use crate::guest_failures::guest_process;

const BROKEN_PROGRAM: &str = "int main(void) { return nonsense; }\n";

/// Submits a build with these options and returns its number. An equal build may be coalesced.
fn submit(host: &AgentHost, code: &str, options: &[&str]) -> u64 {
    let source = host.source(code);
    let answer = host.machinectl(&[&["build", "demo", &source], options].concat());
    answer.success().stdout.trim().parse().unwrap()
}

/// Returns the explanation of a build's wait.
fn explanation(host: &AgentHost, id: u64) -> String {
    let answer = host.machinectl(&["explain", &id.to_string()]);
    answer.success().stdout
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_drained_host_finishes_running_builds_and_starts_none_until_it_is_undrained() {
    let mut host = AgentHost::ready("");
    let running = host.submit("demo", "one");
    host.wait_for(running, State::Starting);
    let drain = ["drain", "--wait", "--reason", "new disks"];
    let answer = host.machinectl(&drain).success();
    assert!(answer.stderr.contains("no running guests"), "{answer:?}");
    let built = host.wait_for(running, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
    host.wait_until_torn_down();

    let queued = host.submit("demo", "two");
    // The drain outlives the agent.
    host.stop(Signal::KILL);
    host.start();
    wait_until("the build has the reason for its wait", || {
        explanation(&host, queued).contains("(new disks)")
    });
    let summary = host.machinectl(&["explain"]).success().stdout;
    assert!(summary.starts_with("1 waiting build"), "{summary}");
    let notice = host.machinectl(&["host", "status"]).success().stdout;
    assert!(notice.contains("`buildhost undrain` ends it"), "{notice}");
    assert!(host.guests().is_empty());
    host.machinectl(&["undrain"]).success();
    let built = host.wait_for(queued, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn dependencies_are_built_first_or_the_build_is_skipped_and_priorities_count() {
    let host = AgentHost::ready_with_container("guests.parallel_max = 1\n");
    host.machinectl(&["drain"]).success();
    let program = |text: &str| printing_program(text);
    let broken = submit(&host, BROKEN_PROGRAM, &[]);
    let good = submit(&host, &program("good"), &[]);
    let after = |id: u64| format!("--after={id}");
    let skipped = submit(&host, &program("skipped"), &[&after(broken)]);
    let skipped_too = submit(&host, &program("too"), &[&after(skipped), &after(good)]);
    let second = submit(&host, &program("second"), &[&after(good)]);
    let urgent = submit(&host, &program("urgent"), &["--priority=5"]);
    host.machinectl(&["build", "demo", &host.source(BROKEN_PROGRAM), "--after=99"])
        .refused(10, "there is no build 99");
    wait_until("the build has the reason for its wait", || {
        let reason = format!("build {second} waits for build {good}, which it is to come after; ");
        explanation(&host, second).starts_with(&reason)
    });
    host.machinectl(&["undrain"]).success();
    let finished = [broken, good, skipped, skipped_too, second, urgent]
        .map(|id| host.wait_for(id, State::Finished));
    assert_eq!(
        finished.each_ref().map(|build| build.outcome),
        [Error, Success, Skip, Skip, Success, Success].map(Some),
        "{finished:?}"
    );
    let started = |build: &Build| build.started;
    let [broken, good, skipped, _, second, urgent] = &finished;
    assert!(started(urgent) < started(broken) && started(urgent) < started(good));
    assert!(good.finished < second.started);
    assert_eq!(skipped.attempts, 0);
    let reason = format!("build {}, which it was to come after", broken.id);
    assert!(skipped.message.contains(&reason), "{skipped:?}");
    let followed = host.machinectl(&["log", "--follow", &skipped.id.to_string()]);
    assert_eq!(followed.code, Some(33), "{followed:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn equal_builds_are_coalesced_unless_the_request_forbids_it() {
    let host = AgentHost::ready_with_container("");
    host.machinectl(&["drain"]).success();
    let first = submit(&host, GATED_PROGRAM, &[]);
    assert_eq!(submit(&host, GATED_PROGRAM, &["--priority=3"]), first);
    assert_eq!(
        host.build(first).priority.0,
        3,
        "the higher priority counts"
    );
    let source = host.source(GATED_PROGRAM);
    let answer = host.machinectl(&["build", "demo", &source]).success();
    assert!(answer.stderr.contains("is equivalent"), "{answer:?}");
    let other = submit(&host, &printing_program("other"), &[]);
    assert_ne!(other, first);
    let duplicate = submit(&host, GATED_PROGRAM, &["--no-coalesce"]);
    assert_ne!(duplicate, first);
    host.machinectl(&["undrain"]).success();
    host.wait_for_gate(first);
    let later = submit(&host, GATED_PROGRAM, &[]);
    assert!(
        [first, duplicate].contains(&later),
        "running builds are coalesced, too"
    );
    for id in [first, duplicate] {
        host.wait_for_gate(id);
        host.open_gate("demo", id);
        let built = host.wait_for(id, State::Finished);
        assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
    }
    let new = submit(&host, GATED_PROGRAM, &[]);
    assert!(new > duplicate, "finished builds are not coalesced");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_waits_for_memory_and_the_reason_has_the_figures() {
    // The demo's machine takes 256 MiB.
    let host = AgentHost::ready("guests.memory_mib = 300\n");
    let first = host.submit_stopped("demo", "one");
    let second = host.submit("demo", "two");
    host.wait_for_breakpoint(first);
    let reason = format!(
        "build {second} waits for memory: 256 MiB wanted, 44 of 300 free; build {first} holds the rest; it is next in the queue"
    );
    wait_until("the build has the reason for its wait", || {
        explanation(&host, second).starts_with(&reason)
    });
    host.machinectl(&["cancel", &second.to_string()]).success();
    assert_eq!(host.build(second).outcome, Some(Outcome::Abort));
    host.resume(first);
    host.wait_for(first, State::Finished);
}

/// Checks that the deletion of a build is refused with a reason.
fn assert_not_deletable(host: &AgentHost, id: u64, reason: &str) {
    let answer = host.machinectl(&["builds", "delete", &id.to_string()]);
    assert_ne!(answer.code, Some(0), "{answer:?}");
    assert!(answer.stderr.contains(reason), "{answer:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn builds_that_wait_for_a_retry_or_a_dependency_cannot_be_deleted() {
    // A failed restore would start the same attempt again, cold.
    let host = AgentHost::ready("guests.frozen = \"off\"\n");
    let retried = host.submit_code("demo", ENDLESS_PROGRAM);
    host.wait_for(retried, State::Running);
    // The guest dies, which is a host failure. The drained host does not retry the build.
    host.machinectl(&["drain"]).success();
    kill_process(guest_process(&host, retried), Signal::KILL).unwrap();
    wait_until("the build is queued again", || {
        let build = host.build(retried);
        build.state == State::Queued && build.not_before.is_some()
    });
    let program = |text: &str| printing_program(text);
    let next = submit(&host, &program("next"), &[&format!("--after={retried}")]);
    let last = submit(&host, &program("last"), &[&format!("--after={next}")]);
    for id in [retried, next] {
        assert_not_deletable(&host, id, "has not ended yet; cancel it first");
    }
    host.machinectl(&["cancel", &retried.to_string()]).success();
    let canceled = host.build(retried);
    assert_eq!(
        (canceled.outcome, canceled.attempts),
        (Some(Outcome::Abort), 1)
    );
    // Its dependents are skipped, directly and indirectly.
    for id in [next, last] {
        assert_eq!(host.wait_for(id, State::Finished).outcome, Some(Skip));
    }
    let too_late = submit(&host, &program("late"), &[&format!("--after={retried}")]);
    host.wait_for(too_late, State::Finished);
    for id in [retried, next, last, too_late] {
        host.machinectl(&["builds", "delete", &id.to_string()])
            .success();
    }
    let builds = host.machinectl(&["builds", "--json"]).success().stdout;
    assert!(!builds.contains("\"id\""), "{builds}");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_bootstrap_that_no_build_needs_yields_to_a_build_and_is_repeated() {
    let host = AgentHost::ready_with_container("guests.parallel_max = 1\n");
    let first = host.wait_for(host.submit("demo", "first"), State::Finished);
    assert_eq!(first.outcome, Some(Success), "{first:?}");
    let slow = script_worker("until [ -e /gate ]; do sleep 0.1; done");
    host.add_worker("slow", &slow);
    let root = host
        .host
        .volume
        .path()
        .join("demo/demo-slow-bootstrap/root");
    wait_until("the bootstrap has begun", || root.exists());

    let build = submit(&host, GATED_PROGRAM, &[]);
    host.wait_for_gate(build);
    let reason = "its bootstrap waits for a guest: 1 of 1 run";
    wait_until("the bootstrap waits", || {
        let status = host.machinectl(&["host", "status"]).success().stdout;
        status.contains(reason)
    });
    let status = host.machinectl(&["status", "demo"]).success().stdout;
    let expected = format!("its image with toolchain slow is not made yet: {reason}");
    assert!(status.contains(&expected), "{status}");
    let findings = host.machinectl(&["doctor"]).stdout;
    assert!(findings.contains("bootstrap-waiting"), "{findings}");
    assert!(!findings.contains("bootstrap-failed"), "{findings}");
    host.open_gate("demo", build);
    let done = host.wait_for(build, State::Finished);
    assert_eq!(
        (done.outcome, done.attempts),
        (Some(Success), 1),
        "{done:?}"
    );

    wait_until("the bootstrap is repeated", || root.exists());
    tests::write_file(&root.join("gate"), "");
    let is_made = |image: &store::ImageView| image.toolchain.as_str() == "slow" && image.complete;
    wait_until("the image serves", || {
        host.host.view("demo").images.iter().any(is_made)
    });
    let log = host.log();
    assert!(
        log.contains("stopping a bootstrap that no build needs"),
        "{log}"
    );
    assert!(!log.contains("the image job failed"), "{log}");
}

/// Returns the forecast of a build, as `explain --json` prints it.
fn forecast(host: &AgentHost, id: u64) -> Option<Forecast> {
    let answer = host.machinectl(&["explain", &id.to_string(), "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer.success().stdout).unwrap();
    serde_json::from_value(answer["forecast"].clone()).unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn waiting_builds_know_their_places_and_estimate_their_starts_from_earlier_builds() {
    let mut host = AgentHost::ready_with_container("guests.parallel_max = 1\n");
    let running = submit(&host, GATED_PROGRAM, &[]);
    let first = submit(&host, &printing_program("first"), &[]);
    host.wait_for_gate(running);
    wait_until("nothing is known about durations", || {
        let reason = format!("because the duration of build {running} is not known");
        explanation(&host, first).contains(&reason)
    });
    host.open_gate("demo", running);
    for id in [running, first] {
        let built = host.wait_for(id, State::Finished);
        assert_eq!(built.outcome, Some(Success), "{built:?}");
    }
    // As if they had taken an hour each.
    host.stop(Signal::TERM);
    let path = host.state_directory().join("records.sqlite3");
    let records = Connection::open(path).unwrap();
    let changed = records.execute("UPDATE builds SET seconds = 3600", []);
    assert_eq!(changed.unwrap(), 2);
    drop(records);
    host.start();
    let running = submit(&host, GATED_PROGRAM, &[]);
    host.wait_for_gate(running);
    let last = submit(&host, &printing_program("last"), &[]);
    let urgent = submit(&host, &printing_program("urgent"), &["--priority=5"]);
    wait_until("both builds have a forecast", || {
        forecast(&host, urgent).is_some_and(|it| it.place == 1)
            && forecast(&host, last).is_some_and(|it| it.place == 2)
    });
    let [urgent_start, last_start] = [urgent, last].map(|id| {
        let forecast = forecast(&host, id).unwrap();
        assert_eq!((forecast.unknown, forecast.builds), (None, Some(2)));
        forecast.start
    });
    let apart = last_start.duration_since(urgent_start);
    assert!(urgent_start > Timestamp::now() && apart.as_secs() == 3600);
    let text = explanation(&host, urgent);
    assert!(text.contains("; it is next in the queue and starts in about "));
    assert!(text.contains("estimated from at least 2 earlier builds of each package"));
    let shown = host.machinectl(&["builds", &last.to_string()]).success();
    assert!(
        shown.stdout.contains("it is number 2 in the queue"),
        "{shown:?}"
    );
    // The drained host starts none of them.
    host.machinectl(&["drain"]).success();
    wait_until("a drained host has no forecasts", || {
        explanation(&host, last).contains("no estimate of its start is possible")
    });
    host.machinectl(&["undrain"]).success();
    host.open_gate("demo", running);
    let [urgent, last] = [urgent, last].map(|id| host.wait_for(id, State::Finished));
    assert!(urgent.started < last.started, "as their places said");
    host.wait_until_torn_down();
}
