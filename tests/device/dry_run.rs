//! `--dry-run` of every verb that changes something: it says what would be done, and
//! nothing is changed.

use std::fs;
use std::path::Path;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use config::builds::State;
use tests::agent::AgentHost;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::ssh::SshServer;
use tests::write_file;

/// A host with something for every verb to do.
fn host() -> BuildHost {
    let host = BuildHost::new(512);
    let work = host.mount.path().join("work");
    BtrfsBackend.create(&work).unwrap();
    write_file(&work.join("disk.img"), "disk");
    let from = work.display().to_string();
    host.machinectl(&["add", "linux", "--from", &from], b"")
        .success();
    write_file(&work.join("disk.img"), "another disk");
    for _ in 0..2 {
        host.machinectl(&["upgrade", "linux", "--from", &from], b"")
            .success();
    }
    host.machinectl(&["pin", "linux", "2"], b"").success();
    let linux = host.volume.path().join("linux");
    BtrfsBackend
        .snapshot(&linux.join("linux-1"), &linux.join("linux-default-1"))
        .unwrap();
    let tools = host.mount.directory("tools");
    write_file(&tools.join("toolchain.tar"), "tools");
    let tools = tools.display().to_string();
    host.machinectl(&["toolchain", "add", "there", &tools], b"")
        .success();
    write_file(&host.mount.path().join("disk.raw"), "a disk");
    host
}

/// What must not change.
fn state(host: &BuildHost) -> Vec<String> {
    tests::hosts::listing(host.mount.path())
}

/// The commands that change nothing, or have no plan to show.
const NO_PLAN: [&str; 13] = [
    "list",
    "status",
    "verify",
    "doctor",
    "send",
    "host",
    "log",
    "provenance",
    "explain",
    "top",
    "console",
    "login",
    "completions",
];

/// The verbs that an agent answers; the test below has some, and tests/device/again.rs,
/// queue.rs and tests/it/schedules.rs have theirs.
const WITH_AGENT: [&str; 13] = [
    "schedule",
    "build",
    "artifacts",
    "cancel",
    "rebuild",
    "bisect",
    "drain",
    "undrain",
    "builds",
    "toaster",
    "resume",
    "release",
    "attach",
];

fn verbs(host: &BuildHost) -> Vec<String> {
    let help = host.machinectl(&["--help"], b"").success().stdout;
    // The groups of commands stand between the usage and the options.
    help.lines()
        .take_while(|line| *line != "Options:")
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect()
}

/// What is asked, a path of the host as `{name}`, and a line of the plan.
const TABLE: [(&str, &str); 19] = [
    ("init {fresh}", "make "),
    ("add new --from {work}", "make revision 1 of new current"),
    (
        "upgrade linux --from {work}",
        "make revision 4 of linux current instead of 3",
    ),
    ("import new {disk.raw}", "make revision 1 of new current"),
    ("delete linux", "delete revision 1 of linux"),
    ("rollback linux", "make revision 2 of linux current"),
    ("pin linux 1", "pin revision 1 of linux"),
    ("unpin linux 2", "unpin revision 2 of linux"),
    ("prune --keep 1", "delete revision 1 of linux"),
    ("export linux -o {out.tar}", "write revision 3 of linux to "),
    (
        "push linux HOST --keep 2",
        "keep the newest 2 revisions of linux on root@127.0.0.1",
    ),
    (
        "push linux HOST --from {work}",
        "send revision 4 of linux to root@127.0.0.1 in full",
    ),
    (
        "push new HOST --from {work}",
        "create revision 1 of new from ",
    ),
    (
        "pull there HOST",
        "fetch revision 1 of there from root@127.0.0.1, about ",
    ),
    (
        "doctor --repair",
        "delete snapshot 1 of toolchain default (machine linux)",
    ),
    ("toolchain add fresh {tools}", "add toolchain fresh"),
    ("toolchain add there {tools}", "replace toolchain there"),
    ("toolchain delete there", "delete toolchain there"),
    (
        "token add carol --tokens {tokens}",
        "create token carol with scope read",
    ),
];

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn every_verb_that_changes_something_says_what_it_would_do_and_does_not() {
    let (host, far, server) = (host(), BuildHost::new(256), SshServer::start());
    let far_image = far.mount.path().join("image");
    BtrfsBackend.create(&far_image).unwrap();
    let far_image = far_image.display().to_string();
    far.machinectl(&["add", "there", "--from", &far_image], b"")
        .success();
    let (before, far_before) = (state(&host), state(&far));
    for (words, step) in TABLE {
        let words = words.replace("HOST", "root@127.0.0.1");
        let words = words.replace('{', &format!("{}/", host.mount.path().display()));
        let words = words.replace('}', "");
        let arguments: Vec<_> = words.split(' ').collect();
        let answer = rehearse(&host, &far, &server, &arguments, &["--dry-run"]);
        let step = format!("would {step}");
        let mut lines = answer.stdout.lines();
        assert!(
            lines.any(|line| line.starts_with(&step)),
            "{words}: {answer:?}"
        );
        let all = answer.stdout.lines().all(|line| line.starts_with("would "));
        assert!(all, "{words}: {answer:?}");
        assert_eq!(state(&host), before, "{words}");
        assert_eq!(state(&far), far_before, "{words}");
        let json = rehearse(&host, &far, &server, &arguments, &["--dry-run", "--json"]);
        assert!(json.stdout.starts_with('{'), "{words}: {json:?}");
        print!("{words}\n{}", answer.stdout);
    }
    for verb in verbs(&host) {
        let in_table = TABLE.iter().any(|(words, _)| words.starts_with(&verb));
        let with_agent = WITH_AGENT.contains(&verb.as_str());
        assert!(
            in_table || with_agent || NO_PLAN.contains(&verb.as_str()),
            "what does `{verb} --dry-run` do?"
        );
    }
}

fn rehearse(
    host: &BuildHost,
    far: &BuildHost,
    server: &SshServer,
    arguments: &[&str],
    options: &[&str],
) -> CommandOutput {
    let mut command = host.command(arguments);
    command.args(options).env("BUILDHOST_SSH", server.ssh());
    if ["push", "pull"].contains(&arguments[0]) {
        command.arg("--remote-volume").arg(far.volume.path());
        let program = tests::program("machinectl");
        command.arg("--remote-program").arg(program);
    }
    run(command, b"").success()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn verbs_over_builds_say_what_they_would_do_and_do_not() {
    let host = AgentHost::ready("");
    let id = host.submit("demo", "hello").to_string();
    let source = host.state_directory().join("hello.c");
    write_file(&source, "int main(void) { return 0; }\n");
    let source = source.display().to_string();
    let said = |arguments: &[&str]| host.machinectl(arguments).success().stdout;
    let cancel = said(&["cancel", &id, "--dry-run"]);
    assert!(
        cancel.starts_with(&format!("would cancel build {id}, which is ")),
        "{cancel}"
    );
    assert_eq!(
        said(&["build", "demo", &source, "--dry-run"]),
        "would build hello.c on demo\n"
    );
    host.machinectl(&["build", "none", &source, "--dry-run"])
        .refused(10, "the agent has no machine `none`");
    let build = host.wait_for(1, State::Finished);
    assert!(
        build.outcome.is_some_and(config::task::Outcome::is_good),
        "{build:?}"
    );
    host.machinectl(&["cancel", &id, "--dry-run"])
        .refused(3, "too late to cancel it");
    assert_eq!(
        said(&["builds", "delete", &id, "--dry-run"]),
        format!("would delete build {id}\n")
    );
    assert_eq!(
        said(&["rebuild", &id, "--dry-run"]),
        "would build hello on demo again\n"
    );
    let output = host.state_directory().join("fetched");
    let plan = said(&[
        "artifacts",
        &id,
        "-o",
        &output.display().to_string(),
        "--dry-run",
    ]);
    let provenance = 1;
    let files = build.artifacts.len() + provenance;
    assert_eq!(plan.lines().count(), files, "{plan}");
    assert!(!output.exists());
    assert_eq!(said(&["builds", "--no-legend"]).lines().count(), 1);
    assert_eq!(
        sources(&host.state_directory().join("sources")),
        1,
        "nothing more was handed in"
    );
}

fn sources(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}
