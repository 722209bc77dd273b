//! Guests that other programs drive: commands, copies and ends, in containers and virtual machines.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use config::builds::{StartKind, State};
use config::exec::{CommandEnd, CommandRecord};
use config::task::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::AgentHost;
use tests::hosts::{CommandOutput, run};
use tests::wait_until;

use crate::checkpoints::wait_until_ready;

/// Starts a guest and returns its number.
fn start(host: &AgentHost, options: &[&str]) -> String {
    let started = host.machinectl(&[&["guest", "start", "demo"], options].concat());
    started.success().stdout.trim().to_owned()
}

fn exec_command(host: &AgentHost, guest: &str, options: &[&str], script: &str) -> Command {
    let arguments = [
        &["guest", "exec", guest],
        options,
        &["--", "sh", "-c", script],
    ]
    .concat();
    let mut command = host.host.command(&arguments);
    command.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    command
}

/// Runs a script in a guest with an input.
fn exec(host: &AgentHost, guest: &str, script: &str, input: &[u8]) -> CommandOutput {
    run(exec_command(host, guest, &[], script), input)
}

/// Starts a script in a guest, with pipes.
fn spawn(host: &AgentHost, guest: &str, script: &str) -> Child {
    exec_command(host, guest, &[], script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads the output of a command up to a text.
fn wait_for_text(command: &mut Child, text: &str) {
    let stdout = command.stdout.as_mut().unwrap();
    let (mut seen, mut byte) = (String::new(), [0]);
    while !seen.ends_with(text) {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{seen}");
        seen.push(char::from(byte[0]));
    }
}

fn commands(host: &AgentHost, guest: &str) -> Vec<CommandRecord> {
    let listed = host
        .machinectl(&["guest", "list", guest, "--json"])
        .success();
    serde_json::from_str(&listed.stdout).unwrap()
}

fn number(guest: &str) -> u64 {
    guest.parse().unwrap()
}

/// Checks the streams of commands, their exit status and their options.
fn check_streams(host: &AgentHost, guest: &str) {
    let script = "printf 'out\\0\\377'; cat; echo err >&2; exit 7";
    let mut streams = exec_command(host, guest, &["--env", "A=b"], script);
    streams.stdin(Stdio::piped());
    let mut streams = streams
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input: Vec<u8> = (0..3_000_000_u32).map(|it| (it % 251) as u8).collect();
    let sent = input.clone();
    let mut stdin = streams.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let streams = streams.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(streams.status.code(), Some(7));
    assert!(streams.stdout == [&b"out\0\xff"[..], &input].concat());
    assert_eq!(streams.stderr, b"err\n");
    assert_eq!(exec(host, guest, "kill -9 $$", b"").code, Some(137));
    let missing = host.machinectl(&["guest", "exec", guest, "--", "no-such-program"]);
    assert_eq!(missing.code, Some(127));
    assert!(
        missing.stderr.contains("cannot run no-such-program"),
        "{missing:?}"
    );
    let options = ["--cwd", "/tmp", "--env", "WORD=one two", "--user", "65534"];
    let settings = exec_command(host, guest, &options, "echo $PWD $WORD $(id -u) $(id -G)");
    assert_eq!(
        run(settings, b"").success().stdout,
        "/tmp one two 65534 65534\n"
    );
}

/// Checks all that a driven guest does, in the guest of a host whose machine `demo` is ready.
fn check_guest(host: &AgentHost, guest: &str) {
    check_streams(host, guest);

    // Several at the same time.
    let mut waiting = spawn(host, guest, "echo ready; read word; echo $word");
    wait_for_text(&mut waiting, "ready\n");
    assert_eq!(exec(host, guest, "echo other", b"").stdout, "other\n");
    waiting.stdin.take().unwrap().write_all(b"go\n").unwrap();
    wait_for_text(&mut waiting, "go\n");
    assert!(waiting.wait().unwrap().success());

    // The end of a client ends its command.
    let mut abandoned = spawn(
        host,
        guest,
        "trap 'rm /tmp/alive; exit' TERM; touch /tmp/alive; echo up; while :; do sleep 0.1; done",
    );
    wait_for_text(&mut abandoned, "up\n");
    kill_process(Pid::from_child(&abandoned), Signal::INT).unwrap();
    assert!(!abandoned.wait().unwrap().success());
    wait_until("the command of a client that left has ended", || {
        exec(host, guest, "test -e /tmp/alive", b"").code == Some(1)
    });

    check_copies(host, guest);

    // A good end with artifacts.
    exec(host, guest, "echo made >$BUILDHOST_OUT/result.txt", b"").success();
    let planned = host.machinectl(&["guest", "stop", guest, "--dry-run"]);
    assert!(planned.success().stdout.starts_with("would "));
    assert_eq!(host.build(number(guest)).state, State::Running);
    host.machinectl(&["guest", "stop", guest]).success();
    let build = host.wait_for(number(guest), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.artifacts.len(), 1);
    let log = host.log_of(number(guest));
    for expected in ["err\n", "exit status 7", "$ no-such-program", "other\n"] {
        assert!(log.contains(expected), "{log:?}");
    }
    let recorded = commands(host, guest);
    let ends: Vec<_> = recorded.iter().map(|it| it.end.unwrap()).collect();
    assert_eq!(
        ends[..3],
        [
            CommandEnd::Exited(7),
            CommandEnd::Signal(9),
            CommandEnd::Exited(127)
        ]
    );
    assert!(ends.contains(&CommandEnd::Abandoned), "{ends:?}");
    let late = host.machinectl(&["guest", "exec", guest, "--", "true"]);
    late.refused(125, &format!("build {guest} has finished: success"));
    host.wait_until_torn_down();
}

/// Copies files and directories into a guest and out of it.
fn check_copies(host: &AgentHost, guest: &str) {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let cp = |from: &str, to: &str| host.machinectl(&["guest", "cp", from, to]);
    let local = |path: &Path| path.display().to_string();
    fs::create_dir_all(path("tree/deep")).unwrap();
    let content: Vec<u8> = (0..500_000_u32).map(|it| (it % 249) as u8).collect();
    fs::File::create(path("tree/deep/file"))
        .unwrap()
        .write_all(&content)
        .unwrap();
    std::os::unix::fs::symlink("deep/file", path("tree/link")).unwrap();
    let to = format!("{guest}:/tmp/copied");
    cp(&local(&path("tree")), &to).success();
    cp(&to, &local(&path("back"))).success();
    assert!(fs::read(path("back/deep/file")).unwrap() == content);
    assert_eq!(
        fs::read_link(path("back/link")).unwrap(),
        Path::new("deep/file")
    );
    // Into a directory that exists, a single file, and out again.
    cp(
        &local(&path("tree/deep/file")),
        &format!("{guest}:/tmp/copied/"),
    )
    .success();
    cp(&format!("{guest}:/tmp/copied/file"), &local(place.path())).success();
    assert!(fs::read(path("file")).unwrap() == content);
    cp(&format!("{guest}:/tmp/missing"), &local(&path("none")))
        .refused(1, "there is no /tmp/missing in the guest");
    let from = format!("{guest}:/tmp/copied");
    let target = local(&path("none"));
    host.machinectl(&["guest", "cp", &from, &target, "--bytes-max", "1000"])
        .refused(3, "the guest sends more than 1000 bytes");
    // A guest whose `tar` is hostile.
    let hostile = "mkdir -p /tmp/a/b && cd /tmp/a/b && ln -s /etc link && cd /tmp && tar -cf /tmp/x.tar a/b/link && rm a/b/link && mkdir a/b/link && echo x >a/b/link/passwd && tar -rf /tmp/x.tar a/b/link/passwd";
    if exec(host, guest, hostile, b"").code == Some(0) {
        let fake = "printf '#!/bin/sh\\nexec cat /tmp/x.tar\\n' >/usr/local/bin/tar || exit 1; chmod +x /usr/local/bin/tar; command -v tar";
        if exec(host, guest, fake, b"")
            .stdout
            .contains("/usr/local/bin/tar")
        {
            cp(&format!("{guest}:/tmp/a"), &target).refused(3, "below a link");
            exec(host, guest, "rm /usr/local/bin/tar", b"").success();
        }
    }
    let mut names: Vec<_> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["back", "file", "tree"]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_is_driven_by_commands() {
    let host = AgentHost::ready_with_container("");
    let guest = start(&host, &["--name", "job-1"]);
    let listed = host.machinectl(&["guest", "list"]).success().stdout;
    assert!(listed.contains("job-1"), "{listed}");
    check_guest(&host, &guest);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_virtual_machine_is_driven_by_commands_cold_and_restored() {
    let mut host = AgentHost::ready("guests.frozen = \"off\"\n");
    let guest = start(&host, &[]);
    assert!(!host.build(number(&guest)).restored);
    check_guest(&host, &guest);
    host.stop(Signal::TERM);
    host.change_settings("");
    host.start();
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    let guest = start(&host, &[]);
    assert!(host.build(number(&guest)).restored);
    check_guest(&host, &guest);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_driven_guest_outlives_the_agent_and_its_commands_do_not() {
    let mut host = AgentHost::ready_with_container("");
    let guest = start(&host, &[]);
    exec(&host, &guest, "echo kept >/tmp/file", b"").success();
    let mut running = spawn(&host, &guest, "echo up; exec sleep 1000");
    wait_for_text(&mut running, "up\n");
    host.stop(Signal::KILL);
    assert_eq!(running.wait().unwrap().code(), Some(255));
    host.start();
    // The next agent has adopted the guest.
    let kept = exec(&host, &guest, "cat /tmp/file", b"");
    assert_eq!(kept.success().stdout, "kept\n");
    wait_until("the command of the earlier agent has ended", || {
        let found = exec(
            &host,
            &guest,
            "grep -q 'slee[p].1000' /proc/[0-9]*/cmdline",
            b"",
        );
        assert!(matches!(found.code, Some(0..=2)), "{found:?}");
        found.code != Some(0)
    });
    assert_eq!(commands(&host, &guest)[1].end, Some(CommandEnd::Lost));
    // An agent that stops ends the guest, which is not repeated.
    host.stop(Signal::TERM);
    host.start();
    let build = host.wait_for(number(&guest), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abnormal), "{build:?}");
    assert!(
        build.message.contains("cannot be repeated"),
        "{}",
        build.message
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_driven_guest_ends_by_its_limits_and_a_quiet_command_is_no_idleness() {
    let host = AgentHost::ready_with_container("");
    let guest = start(&host, &["--idle", "3s"]);
    exec(&host, &guest, "sleep 6", b"").success();
    let build = host.wait_for(number(&guest), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abort));
    assert!(build.message.contains("idle for 3 s"), "{}", build.message);
    let guest = start(&host, &["--limit", "4s"]);
    let lost = exec(&host, &guest, "sleep 1000", b"");
    assert_eq!(lost.code, Some(255));
    let build = host.wait_for(number(&guest), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abort));
    assert!(
        build.message.contains("longer than 4 s"),
        "{}",
        build.message
    );
    assert_eq!(commands(&host, &guest)[0].end, Some(CommandEnd::Lost));
    let other = host.submit("demo", "hello").to_string();
    host.machinectl(&["guest", "exec", &other, "--", "true"])
        .refused(125, "runs the task that it was submitted with");
    host.wait_for(number(&other), State::Finished);
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_secrets_of_a_driven_guest_are_masked_in_its_log() {
    let host = AgentHost::ready_with_container("");
    let mut add = host.host.command(&["secret", "add", "key"]);
    add.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    run(add, b"hunter2-hunter2").success();
    let guest = start(&host, &["--secret", "key"]);
    let shown = exec(
        &host,
        &guest,
        "cat $BUILDHOST_SECRETS/key; echo; echo end",
        b"",
    );
    assert_eq!(shown.success().stdout, "hunter2-hunter2\nend\n");
    exec(&host, &guest, "echo hunter2-hunter2", b"").success();
    host.machinectl(&["guest", "stop", &guest]).success();
    let log = host.log_of(number(&guest));
    assert!(
        log.contains("***\nend\n") && !log.contains("hunter2"),
        "{log}"
    );
    let recorded = commands(&host, &guest);
    assert_eq!(recorded[1].command[2], "echo ***");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_worker_that_does_not_know_commands_is_an_error() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    let worker = "
tftp -g -r task.manifest $host
printf ': 1\\nstatus: abnormal\\nmessage: no build\\n' >result.manifest
tftp -p -l result.manifest $host
";
    host.add_worker("default", &crate::guest_failures::worker(worker));
    host.start();
    let guest = host.machinectl(&["guest", "start", "demo"]);
    assert_eq!(guest.code, Some(30), "{guest:?}");
    assert!(guest.stderr.contains("does not know commands"), "{guest:?}");
    assert_eq!(host.build(1).attempts, 1);
    host.wait_until_torn_down();
}

/// Returns a recipe of the documentation: the first block of `sh` after a text.
fn recipe(after: &str) -> String {
    let text = include_str!("../../docs/controllers.md");
    let (_, rest) = text.split_once(after).unwrap();
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs a recipe with `buildhost` in its path. Returns its output.
fn run_recipe(
    host: &AgentHost,
    place: &Path,
    script: &str,
    arguments: &[&Path],
    variables: &[(&str, &str)],
) -> CommandOutput {
    let program = place.join("recipe");
    tests::write_file(&program, &script.replace("linux-gcc_14", "demo"));
    let mut command = ::sys::command::prepare("sh");
    command.arg(&program).args(arguments).current_dir(place);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", place.display()));
    command.env("BUILDHOST_SOCKET", host.run_directory().join("agent.sock"));
    command.env("TMPDIR", place);
    command.envs(variables.iter().copied());
    run(command, b"")
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_recipes_for_other_ci_systems_work() {
    let host = AgentHost::ready_with_container("");
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let buildhost = tests::program("machinectl");
    std::os::unix::fs::symlink(buildhost, place.join("buildhost")).unwrap();
    let gitlab = [
        ("CUSTOM_ENV_CI_JOB_IMAGE", "demo"),
        ("CUSTOM_ENV_CI_JOB_ID", "17"),
        ("SYSTEM_FAILURE_EXIT_CODE", "2"),
        ("BUILD_FAILURE_EXIT_CODE", "1"),
    ];
    let stage = |name: &str, arguments: &[&Path]| {
        run_recipe(
            &host,
            place,
            &recipe(&format!("\n`{name}")),
            arguments,
            &gitlab,
        )
    };
    let config = stage("config", &[]).success().stdout;
    assert!(
        serde_json::from_str::<serde_json::Value>(&config).is_ok(),
        "{config}"
    );
    stage("prepare", &[]).success();
    let script = place.join("script");
    for (text, code) in [
        ("echo one >/buildhost/gitlab/file", 0),
        ("grep one /buildhost/gitlab/file; exit 5", 1),
    ] {
        tests::write_file(&script, text);
        let ran = stage("run`, whose first argument is the script:", &[&script]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
    stage("cleanup", &[]).success();
    assert_eq!(
        host.wait_for(1, State::Finished).outcome,
        Some(Outcome::Success)
    );
    let gone = stage("run`, whose first argument is the script:", &[&script]);
    assert_eq!(gone.code, Some(2), "{gone:?}");

    let workspace = place.join("workspace");
    fs::create_dir(&workspace).unwrap();
    tests::write_file(&workspace.join("input"), "content");
    let jenkins = recipe("### Jenkins").replace("-- make", "-- cp input result");
    let shown = workspace.display().to_string();
    let variables = [("WORKSPACE", &*shown), ("BUILD_TAG", "jenkins-1")];
    run_recipe(&host, place, &jenkins, &[], &variables).success();
    let result = fs::read_to_string(workspace.join("result")).unwrap();
    assert_eq!(result, "content");
    host.wait_until_torn_down();
}
