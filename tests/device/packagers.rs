//! The life of a build as its packager sees it, with the real worker: the names of files, the log,
//! the shells.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ::sys::command;
use config::builds::State;
use config::task::Outcome;
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::hosts::{CommandOutput, run};
use tests::wait_until;

/// A toolchain's `build` that returns its sources, and lists each as a package.
const COPY: &str = r#"#!/bin/sh
set -eu
cp "$BUILDHOST_SOURCES"/* "$BUILDHOST_OUT"
start=': 1'
for path in "$BUILDHOST_SOURCES"/*; do
    file=${path##*/}
    printf '%s\npackage: p\nversion: 1.0^2024\nrecipe-revision: r0\narchitecture: all\n' "$start"
    # A backslash at the end of a line continues it, unless it is doubled.
    case $file in *\\) file=$file\\ ;; esac
    printf 'checksum: %s\nfile: %s\n' "$(printf %s "$file" | sha256sum | cut -c1-12)" "$file"
    start=':'
done >"$BUILDHOST_OUT/packages.manifest"
"#;

/// Returns a host whose container `demo` builds with this program.
pub(crate) fn container_host(settings: &str, program: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add_container("demo", |_| {});
    host.add_build_program("default", program);
    host.start();
    host
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn names_of_all_package_formats_travel_through_a_build() {
    let host = container_host("", COPY);
    let longest = "\u{fc}".repeat(127);
    let names = [
        "foo-1.0^20240101git-1.fc40.x86_64.rpm",
        "My Setup, v2 (x86: 64 bit) 100%2F.exe",
        "\u{c4}pfel~rc1+b=2;&#?!'\"`$@.tar.gz",
        "-dash",
        "end\\",
        longest.as_str(),
    ];
    let from = tempfile::tempdir().unwrap();
    let paths = names.map(|name| from.path().join(name).display().to_string());
    for (name, path) in names.iter().zip(&paths) {
        tests::write_file(path.as_ref(), &format!("content of {name}"));
    }
    let mut line = vec!["build", "demo"];
    line.extend(paths.iter().map(String::as_str));
    host.machinectl(&line).success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.packages.len(), names.len());

    let into = tempfile::tempdir().unwrap();
    let directory = into.path().display().to_string();
    host.machinectl(&["artifacts", "1", "--output", &directory])
        .success();
    for name in names {
        let text = fs::read_to_string(into.path().join(name)).unwrap();
        assert_eq!(text, format!("content of {name}"));
    }
    let list = fs::read_to_string(into.path().join("packages.manifest")).unwrap();
    let packages = config::manifest::parse(&list).unwrap();
    let mut files: Vec<_> = packages.iter().filter_map(|it| it.get("file")).collect();
    files.sort_unstable();
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(files, expected);
    let statement = fs::read_to_string(into.path().join("provenance.json")).unwrap();
    let statement: serde_json::Value = serde_json::from_str(&statement).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    for name in names {
        assert!(subjects.iter().any(|it| it["name"] == name), "{name}");
    }
    let table = host.machinectl(&["artifacts", "1"]).success().stdout;
    assert!(
        table.contains(names[0]) && table.contains(names[1]),
        "{table}"
    );
    host.wait_until_torn_down();
}

/// A toolchain's `build` that runs its source.
const RUN: &str = "#!/bin/sh\nset -eu\n. \"$BUILDHOST_SOURCES/script\"\n";

/// Writes the script of a build, and returns its path.
fn script(directory: &Path, text: &str) -> String {
    let path = directory.join("script");
    tests::write_file(&path, text);
    path.display().to_string()
}

/// Checks the exit code and the message of a command that has printed a log.
fn ended(answer: &CommandOutput, code: i32, message: &str) {
    assert_eq!(answer.code, Some(code), "{answer:?}");
    assert!(answer.stderr.contains(message), "{answer:?}");
}

/// Calls `machinectl` with variables.
fn call_with(host: &AgentHost, variables: &[(&str, &str)], arguments: &[&str]) -> CommandOutput {
    let mut command = host.host.command(arguments);
    command.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    command.envs(variables.iter().copied());
    run(command, b"")
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_log_is_stored_once_with_its_beginning_and_its_end() {
    let host = container_host("builds.log_mib_max = 1\n", RUN);
    let directory = tempfile::tempdir().unwrap();
    let source = script(
        directory.path(),
        "echo the first line; yes flood | head -c 3000000; echo; echo the last line\n",
    );
    host.machinectl(&["build", "demo", &source, "--follow"])
        .success();
    let log = host.log_of(1);
    assert!((900_000..=1 << 20).contains(&log.len()), "{}", log.len());
    for text in [
        "the first line",
        "bytes are left out here: the log is too long",
        "the last line",
    ] {
        assert!(log.contains(text), "{text}");
    }
    let files = host.state_directory().join("builds/1");
    assert!(!files.join("log.live").exists());

    let stamped = host.machinectl(&["log", "1", "--timestamps"]).success();
    let first = stamped
        .stdout
        .lines()
        .find(|line| line.ends_with("the first line"));
    let time = first.unwrap().split(' ').next().unwrap();
    let build = host.build(1);
    let time: jiff::Timestamp = time.parse().unwrap();
    assert!(
        build.submitted <= time && Some(time) <= build.finished,
        "{time}"
    );

    // A reader that has read enough is no failure.
    let mut pipe = command::prepare("bash");
    pipe.args([
        "-c",
        "\"$0\" log 1 | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}",
    ]);
    pipe.arg(tests::program("machinectl"));
    pipe.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    command::run(pipe, Duration::from_mins(1)).unwrap();
    let mut full = command::prepare("bash");
    full.args(["-c", "\"$0\" log 1 >/dev/full; [ $? = 16 ]"]);
    full.arg(tests::program("machinectl"));
    full.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    command::run(full, Duration::from_mins(1)).unwrap();
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_logs_and_consoles_of_failed_attempts_are_kept() {
    let host = container_host("builds.retries_max = 1\nbuilds.retry_seconds = 1\n", RUN);
    let directory = tempfile::tempdir().unwrap();
    let text = "echo waiting at the gate; while [ ! -e /gate ]; do sleep 0.1; done; echo passed\n";
    let source = script(directory.path(), text);
    host.machinectl(&["build", "demo", &source]).success();
    host.wait_for_gate(1);
    for guest in host.guests() {
        kill_process(guest, Signal::KILL).unwrap();
    }
    wait_until("the second attempt runs", || host.build(1).attempts == 2);
    host.wait_for_gate(1);
    host.open_gate("demo", 1);
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.earlier_logs, [1]);
    assert!(host.log_of(1).contains("passed"));
    let log = |options: &[&str]| {
        let line = [&["log", "1"], options].concat();
        host.machinectl(&line).success().stdout
    };
    let earlier = log(&["--attempt", "1"]);
    assert!(
        earlier.contains("waiting at the gate") && !earlier.contains("passed"),
        "{earlier}"
    );
    for options in [&["--console"][..], &["--attempt", "1", "--console"]] {
        let console = log(options);
        assert!(console.contains("machine: ready after"), "{console}");
    }
    assert!(log(&["--attempt", "2"]).contains("passed"));
    host.machinectl(&["log", "1", "--attempt", "7"])
        .refused(10, "build 1 has no log of attempt 7; it has those of 1");
    let shown = host.machinectl(&["builds", "1"]).success().stdout;
    assert!(
        shown.contains("`buildhost log 1 --attempt NUMBER`"),
        "{shown}"
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_exit_code_of_a_followed_build_tells_how_it_has_ended() {
    let host = container_host("builds.retries_max = 0\n", RUN);
    let directory = tempfile::tempdir().unwrap();
    let source = script(directory.path(), "echo broken; exit 3\n");
    ended(
        &host.machinectl(&["build", "demo", &source, "--follow"]),
        30,
        "build 1 finished with error",
    );
    host.machinectl(&["build", "demo", &source, "--after", "1"])
        .success();
    ended(
        &host.machinectl(&["log", "2", "--follow"]),
        33,
        "build 2 finished with skip",
    );
    let source = script(directory.path(), "echo waiting at the gate; sleep 1000\n");
    for id in [3, 4] {
        host.machinectl(&["build", "demo", &source, "--no-coalesce"])
            .success();
        host.wait_for_gate(id);
        if id == 3 {
            host.machinectl(&["cancel", "3"]).success();
            ended(
                &host.machinectl(&["log", "3", "--follow"]),
                31,
                "build 3 finished with abort",
            );
        }
    }
    for guest in host.guests() {
        kill_process(guest, Signal::KILL).unwrap();
    }
    ended(
        &host.machinectl(&["log", "4", "--follow"]),
        32,
        "build 4 finished with abnormal",
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_shell_has_the_surroundings_of_the_build_and_its_command_ends_with_the_outcome() {
    let host = container_host("", RUN);
    let directory = tempfile::tempdir().unwrap();
    let source = script(
        directory.path(),
        "echo word is $BUILDHOST_BUILD$((40 + 2)); exit 3\n",
    );
    let mut terminal = host.terminal(&["login", "demo", &source]);
    terminal.wait_for("build 1 on demo stopped before it begins");
    terminal.wait_for("lets it begin");
    terminal.type_in("\r$(dirname $BUILDHOST_WORKER)/build; echo by hand $? in $PWD\r");
    terminal.wait_for("word is 142");
    terminal.wait_for("by hand 3 in /buildhost/build/work");
    terminal.type_in("\rexit\r");
    assert_eq!(terminal.wait(), Some(30));
    terminal.wait_for("build 1 finished with error");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_is_repeated_with_an_edited_or_a_replaced_source() {
    let host = container_host("", RUN);
    let directory = tempfile::tempdir().unwrap();
    let source = script(directory.path(), "cat $BUILDHOST_SOURCES/data; exit 3\n");
    let data = directory.path().join("data");
    tests::write_file(&data, "old data\n");
    let data = data.display().to_string();
    ended(
        &host.machinectl(&["build", "demo", &source, &data, "--follow"]),
        30,
        "build 1 finished with error",
    );
    let edit = ["rebuild", "1", "--edit", "script", "--follow"];
    call_with(&host, &[("VISUAL", "sed -i 's/exit 3/exit 0/'")], &edit).success();
    assert!(host.log_of(2).contains("old data"));
    assert_eq!(host.build(2).target, host.build(1).target);

    let new = script(directory.path(), "new data\n");
    let line = [
        "rebuild",
        "2",
        "--replace",
        &format!("data={new}"),
        "--follow",
    ];
    host.machinectl(&line).success();
    assert!(host.log_of(3).contains("new data"));

    call_with(&host, &[("EDITOR", "true"), ("VISUAL", "")], &edit)
        .refused(3, "script has not changed, so nothing was submitted");
    call_with(&host, &[("VISUAL", "false")], &edit).refused(1, "the editor `false` ended with");
    host.machinectl(&["rebuild", "1", "--edit", "nothing"])
        .refused(
            10,
            "build 1 has no source nothing; its sources are: script, data",
        );
    host.machinectl(&["rebuild", "1", "--replace", "data=/no/such"])
        .refused(10, "/no/such");
    host.wait_until_torn_down();
}
