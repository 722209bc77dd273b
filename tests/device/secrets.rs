//! Secrets in real guests: they reach the build, and nothing of the host or of the guest's disk has
//! them.

use std::path::Path;
use std::time::Duration;

use ::sys::command;
use config::builds::{Build, StartKind, State};
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::hosts::{CommandOutput, run};

use crate::attach::PROMPT;
use crate::checkpoints::wait_until_ready;

/// A program that prints its secret in ways that are masked, and, to prove that it has it, in one
/// that is not: with each character replaced by the next one. With `/gate` as a path it then waits
/// and prints the secret again.
const PRINT_SECRET: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    char path[256], value[256] = "";
    struct stat status;
    snprintf(path, sizeof path, "%s/key", getenv("BUILDHOST_SECRETS"));
    FILE *file = fopen(path, "r"), *console = fopen("/dev/console", "w");
    if (!file || !console || !fread(value, 1, 255, file) || stat(path, &status)) return 1;
    printf("path %s mode %o owner %d\nplain %s\nhalves ", path, status.st_mode & 07777,
           (int)status.st_uid, value);
    fwrite(value, 1, 9, stdout);
    fflush(stdout);
    usleep(200000);
    printf("%s\n", value + 9);
    fprintf(console, "console %s\n", value);
    fflush(console);
    printf("waiting at the gate\n");
    fflush(stdout);
    while (WAIT && access("/gate", F_OK)) usleep(10000);
    printf("again %s\n", value);
    fprintf(console, "console again %s\n", value);
    fflush(console);
    for (char *at = value; *at; at++) ++*at;
    printf("shifted %s\n", value);
    return RESULT;
}
"#;

fn program(waits: bool, result: u8) -> String {
    let wait = u8::from(waits);
    format!("#define WAIT {wait}\n#define RESULT {result}\n{PRINT_SECRET}")
}

/// Returns a secret with its characters replaced by the next ones.
fn shifted(value: &str) -> String {
    let next = value.bytes().map(|byte| char::from(byte + 1));
    format!("shifted {}", next.collect::<String>())
}

fn add_secret(host: &AgentHost, value: &str) -> CommandOutput {
    let arguments = ["secret", "add", "key", "--replace"];
    let mut command = host.host.command(&arguments);
    command.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    run(command, value.as_bytes())
}

fn submit(host: &AgentHost, code: &str) -> u64 {
    let source = host.source(code);
    let arguments = ["build", "demo", &source, "--secret", "key", "--no-coalesce"];
    let submitted = host.machinectl(&arguments).success();
    submitted.stdout.trim().parse().unwrap()
}

/// Checks that no file below a directory contains one of the values.
fn assert_absent(directory: &Path, values: &[&str]) {
    let mut grep = command::prepare("grep");
    grep.args(["-rlaFz", "--exclude-dir=secrets"]);
    for value in values {
        grep.args(["-e", value]);
    }
    grep.arg(directory);
    // Status 1 means that nothing was found.
    match command::run(grep, Duration::from_mins(5)) {
        Ok(found) => panic!("a file contains a secret: {found:?}"),
        Err(error) => assert!(error.to_string().contains("exit status: 1"), "{error}"),
    }
}

fn assert_absent_from_host(host: &AgentHost, values: &[&str]) {
    for directory in [
        host.state_directory(),
        host.run_directory(),
        host.host.volume.path().to_owned(),
    ] {
        assert_absent(&directory, values);
    }
    for value in values {
        assert!(!host.log().contains(value));
    }
}

fn console(host: &AgentHost, id: u64) -> String {
    let path = host.state_directory().join(format!("builds/{id}/console"));
    std::fs::read_to_string(path).unwrap()
}

fn assert_success(host: &AgentHost, id: u64) -> Build {
    let build = host.wait_for(id, State::Finished);
    let log = host.log_of(id);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}\n{log}");
    assert_eq!(build.secrets, ["key".parse().unwrap()]);
    build
}

/// Checks the log and the console of a build with the program above.
fn assert_masked(host: &AgentHost, id: u64, value: &str) {
    let (log, console) = (host.log_of(id), console(host, id));
    for line in [
        "path /run/buildhost/secrets/key mode 400 owner 0",
        "plain ***",
        "halves ***",
        "again ***",
        &shifted(value),
    ] {
        assert!(log.contains(line), "no `{line}` in {log}");
    }
    for line in ["console ***", "console again ***"] {
        assert!(console.contains(line), "no `{line}` in {console}");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn guests_of_one_checkpoint_get_the_secrets_of_their_builds_and_no_file_has_them() {
    let host = AgentHost::ready("");
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    let values = ["first-hunter2-value", "other-hunter3-value"];
    for value in values {
        add_secret(&host, value).success();
        let id = submit(&host, &program(false, 0));
        let build = assert_success(&host, id);
        assert!(build.restored, "{build:?}");
        assert_masked(&host, id, value);
    }
    assert_absent_from_host(&host, &values);
    // A guest that runs has the secret in its memory, and not on its disk.
    let id = submit(&host, &program(true, 0));
    host.wait_for_gate(id);
    assert_absent_from_host(&host, &values);
    let id = id.to_string();
    let refused = host.machinectl(&["fork", &id]);
    assert!(refused.stderr.contains("it has secrets"), "{refused:?}");
    host.machinectl(&["cancel", &id]).success();
    host.wait_until_torn_down();
    assert_absent_from_host(&host, &values);
    let record = host.machinectl(&["builds", "1", "--json"]).success().stdout;
    assert!(record.contains(r#""secrets""#), "{record}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_held_guest_has_its_secrets_and_a_debug_session_does_not() {
    let host = AgentHost::ready("");
    let value = "first-hunter2-value";
    add_secret(&host, value).success();
    let source = host.source(&program(false, 1));
    let arguments = ["build", "demo", &source, "--secret", "key", "--hold"];
    host.machinectl(&arguments).success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
    // The last lines of the output are the message.
    assert!(build.message.contains("again ***"), "{}", build.message);
    let shown = host.machinectl(&["builds", "1"]).success().stdout;
    assert!(shown.contains("with its secrets in memory"), "{shown}");
    assert_absent_from_host(&host, &[value]);
    let mut terminal = host.terminal(&["attach", "1"]);
    terminal.wait_for(PROMPT);
    terminal.type_in("test -e /run/buildhost/secrets || echo none $((41 + 1)); exit\r");
    terminal.wait_for("none 42");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_gets_its_secret_once_and_stays_masked_when_it_is_adopted() {
    let mut host = AgentHost::ready_with_container("");
    let value = "first-hunter2-value";
    add_secret(&host, value).success();
    let id = submit(&host, &program(true, 0));
    host.wait_for_gate(id);
    assert_absent_from_host(&host, &[value]);
    host.stop(Signal::KILL);
    host.start();
    host.open_gate("demo", id);
    let build = assert_success(&host, id);
    assert_eq!(build.attempts, 1, "{build:?}");
    assert_masked(&host, id, value);
    host.wait_until_torn_down();
    assert_absent_from_host(&host, &[value]);
    let log = host.log();
    assert!(log.contains("the guest has received its secrets"), "{log}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_adopted_guest_ends_if_its_secret_was_deleted() {
    let mut host = AgentHost::ready_with_container("");
    add_secret(&host, "first-hunter2-value").success();
    let id = submit(&host, &program(true, 0));
    host.wait_for_gate(id);
    host.machinectl(&["secret", "delete", "key"]).success();
    host.stop(Signal::KILL);
    host.start();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
    let expected = "there is no secret key";
    assert!(build.message.starts_with(expected), "{}", build.message);
    host.wait_until_torn_down();
}

/// A worker that knows nothing of secrets and does not look at its task.
const OLD_WORKER: &str = r"#!/bin/sh
host=169.254.111.222
cd /tmp
put() { printf ': 1\nstatus: success\n' >$1; tftp -p -l $1 -r $1 $host; }
if [ $1 = bootstrap ]; then put bootstrap.manifest; exit; fi
tftp -g -r task.manifest $host && put result.manifest
";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_worker_that_does_not_know_secrets_fails_the_build_with_the_remedy() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    host.add_worker("default", OLD_WORKER);
    host.start();
    add_secret(&host, "first-hunter2-value").success();
    let id = submit(&host, &program(false, 0));
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
    let remedy = "replace the toolchain by one with the `buildhost-worker` of this host";
    assert!(build.message.contains(remedy), "{}", build.message);
    assert_eq!(build.attempts, 1, "{build:?}");
}
