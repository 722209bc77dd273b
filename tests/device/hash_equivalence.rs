//! The hash equivalence service at the gateway of real guests: who reports, who only reads, and
//! agents that are killed.

use config::builds::{Build, State};
use config::hashserv::HashservMode;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;

/// A toolchain that runs the source, a shell script, with functions for the service.
const RUNNER: &str = r#"#!/bin/sh
set -u
# Prints the answer to a request, after a word.
ask() {
    printf 'OEHASHEQUIV 1.1\n\n%s\n' "$2" | nc "${BB_HASHSERVE%:*}" "${BB_HASHSERVE#*:}" |
        sed -n "s/^..*/$1 &/p"
}
# Reports a task with its outhash and the unihash that it proposes, a digit.
report() {
    ask "$1" "{\"report\": {\"method\": \"m\", \"taskhash\": \"$1\", \"outhash\": \"$2\", \
\"unihash\": \"$(printf '%064d' "$3")\", \"owner\": \"nobody\"}}"
}
get() { ask "$1" "{\"get\": {\"method\": \"m\", \"taskhash\": \"$1\"}}"; }
# Waits until the test opens the gate of the container.
gate() {
    echo waiting at the gate
    while [ ! -e /gate ]; do sleep 1; done
}
. "$BUILDHOST_SOURCES/script"
"#;

const SETTINGS: &str =
    "[hashserv]\nenabled = true\ntoolchains = [\"default\"]\nreporters = [\"root\"]\n";

fn host() -> AgentHost {
    let mut host = AgentHost::new(SETTINGS);
    host.add_build_program("default", RUNNER);
    host.add_build_program("other", RUNNER);
    host.add_container("demo", |_| {});
    host.start();
    host
}

fn submit(host: &AgentHost, options: &[&str], script: &str) -> u64 {
    host.submit_script(script, options)
}

/// Waits for the end of a build that succeeds, and returns its record and its log.
fn end(host: &AgentHost, id: u64) -> (Build, String) {
    let (build, log) = (host.wait_for(id, State::Finished), host.log_of(id));
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}\n{log}");
    (build, log)
}

fn mode(build: &Build) -> Option<HashservMode> {
    let inputs = build.inputs.as_ref().unwrap();
    inputs.policy.as_ref().unwrap().hashserv
}

/// Asserts that the answer after a word has a unihash, a digit.
fn assert_unihash(log: &str, word: &str, digit: u32) {
    let unihash = format!("\"unihash\": \"{digit:064}\"");
    let unihash = unihash.replace(' ', "");
    let start = format!("{word} ");
    let mut answers = log.lines().filter(|line| line.starts_with(&start));
    let found = answers.any(|line| line.replace(' ', "").contains(&unihash));
    assert!(found, "{word} has not the unihash {digit}: {log}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn builds_of_reporters_report_and_all_others_only_read() {
    let host = host();
    let script = "echo at $BB_HASHSERVE\nreport one same 1\nreport two same 2\nreport three own 3\n\
                  ask metrics '{\"get-db-usage\": null}'\nask login '{\"auth\": {\"username\": \"a\", \"token\": \"b\"}}'\n";
    let (build, log) = end(&host, submit(&host, &[], script));
    assert!(log.contains("at 169.254.111.222:8686"), "{log}");
    assert_unihash(&log, "one", 1);
    assert_unihash(&log, "two", 1);
    assert_unihash(&log, "three", 3);
    assert!(log.contains("metrics {\"invoke-error\""), "{log}");
    assert!(log.contains("login {\"invoke-error\""), "{log}");
    assert_eq!(mode(&build), Some(HashservMode::Report));

    // A person gets a shell in this build if it fails.
    let script = "report four same 4\nreport five new 5\nget five\nget two\n\
                  ask equate '{\"report-equiv\": {\"method\": \"m\", \"taskhash\": \"six\", \
                  \"unihash\": \"'$(printf '%064d' 6)'\"}}'\nget six\nask rows '{\"get-outhash\": \
                  {\"method\": \"m\", \"taskhash\": \"x\", \"outhash\": \"own\", \"with_unihash\": true}}'\n";
    let (build, log) = end(&host, submit(&host, &["--interactive", "error"], script));
    assert_unihash(&log, "four", 1);
    assert_unihash(&log, "two", 1);
    assert!(log.contains("five null"), "{log}");
    assert!(log.contains("equate {\"invoke-error\""), "{log}");
    assert!(log.contains("six null"), "{log}");
    let owner = log.lines().find(|line| line.starts_with("rows ")).unwrap();
    assert!(owner.contains("build 1"), "{owner}");
    assert_eq!(mode(&build), Some(HashservMode::Read));

    let script = "echo at ${BB_HASHSERVE-nothing}\nnc 169.254.111.222 8686 </dev/null && echo reached\ntrue\n";
    let (build, log) = end(&host, submit(&host, &["--toolchain", "other"], script));
    assert!(log.contains("at nothing"), "{log}");
    assert!(!log.contains("reached"), "{log}");
    assert_eq!(mode(&build), None);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_reaches_the_service_of_the_agent_that_adopts_it() {
    let mut host = host();
    let id = submit(
        &host,
        &[],
        "report one same 1\ngate\nget one\nreport two same 2\n",
    );
    host.wait_for_gate(id);
    host.stop(Signal::KILL);
    host.start();
    host.open_gate("demo", id);
    let (build, log) = end(&host, id);
    assert_eq!(
        (build.attempts, mode(&build)),
        (1, Some(HashservMode::Report))
    );
    assert_unihash(&log, "one", 1);
    assert_unihash(&log, "two", 1);
    assert_eq!(
        log.lines().filter(|line| line.starts_with("one ")).count(),
        2,
        "{log}"
    );
}
