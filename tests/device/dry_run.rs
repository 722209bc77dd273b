//! `--dry-run` of every verb that changes something: it prints the changes and makes none.

use std::fs;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use config::builds::State;
use tests::agent::AgentHost;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::ssh::SshServer;
use tests::write_file;

/// Returns a host on which every verb has something to change.
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
    host.machinectl(&["add", "tried", "--from", &from], b"")
        .success();
    write_file(&work.join("disk.img"), "a disk to be tried");
    let upgrade = ["upgrade", "tried", "--from", &from, "--canary", "1/1"];
    host.machinectl(&upgrade, b"").success();
    let linux = host.volume.path().join("linux");
    BtrfsBackend
        .snapshot(&linux.join("linux-1"), &linux.join("linux-default-1"))
        .unwrap();
    let tools = host.mount.directory("tools");
    write_file(&tools.join("toolchain.tar"), "tools");
    let tools = tools.display().to_string();
    host.machinectl(&["toolchain", "add", "there", &tools], b"")
        .success();
    write_file(&host.mount.path().join("disk.raw"), "\0a disk");
    host
}

/// The verbs that change nothing or have no plan.
const NO_PLAN: [&str; 21] = [
    "list",
    "slsa",
    "status",
    "verify",
    "diff",
    "doctor",
    "send",
    "host",
    "log",
    "provenance",
    "explain",
    "top",
    "console",
    "login",
    "feed",
    "hosts",
    "machines",
    "queue",
    "completions",
    "notify",
    "web",
];

/// The verbs that need an agent. Their plans are tested below and beside the verbs.
const WITH_AGENT: [&str; 22] = [
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
    "fork",
    "guest",
    "secret",
    "project",
    "layer",
    "cache",
    "controllers",
    "enrol",
    "publish",
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

/// Arguments, in which `{name}` is a path of the host, and a line of their plan.
const PLANS: [(&str, &str); 26] = [
    (
        "context add new ssh:build1",
        "add context new for ssh:build1",
    ),
    ("init {fresh}", "make "),
    ("add new --from {work}", "make revision 1 of new current"),
    (
        "upgrade linux --from {work}",
        "make revision 4 of linux current instead of 3",
    ),
    (
        "upgrade linux --from {work} --canary 3/10",
        "put revision 4 of linux on trial (3 of 10); revision 3 stays current until its end",
    ),
    ("promote tried", "make revision 2 of tried current"),
    (
        "rollback tried",
        "end the trial of revision 2 of tried; revision 1 stays current",
    ),
    ("import new {disk.raw}", "make revision 1 of new current"),
    // Any static program passes for a worker.
    (
        "image make new --debian bookworm --worker /bin/busybox",
        "import the result as the next revision of new",
    ),
    ("delete linux --force", "delete revision 1 of linux"),
    ("rollback linux", "make revision 2 of linux current"),
    (
        "upgrade linux --from {work} --record",
        "record the content of revision 4 of linux",
    ),
    (
        "record linux 1",
        "record the content of revision 1 of linux",
    ),
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
fn dry_runs_print_the_changes_and_make_none() {
    let (host, remote, server) = (host(), BuildHost::new(256), SshServer::start());
    let remote_image = remote.mount.path().join("image");
    BtrfsBackend.create(&remote_image).unwrap();
    let remote_image = remote_image.display().to_string();
    remote
        .machinectl(&["add", "there", "--from", &remote_image], b"")
        .success();
    let state = |host: &BuildHost| tests::hosts::listing(host.mount.path());
    let (before, remote_before) = (state(&host), state(&remote));
    for (line, change) in PLANS {
        let line = line
            .replace("HOST", "root@127.0.0.1")
            .replace('{', &format!("{}/", host.mount.path().display()))
            .replace('}', "");
        let arguments: Vec<_> = line.split(' ').collect();
        let answer = dry_run(&host, &remote, &server, &arguments, &["--dry-run"]);
        let change = format!("would {change}");
        let mut lines = answer.stdout.lines();
        assert!(
            lines.any(|found| found.starts_with(&change)),
            "{line}: {answer:?}"
        );
        let mut lines = answer.stdout.lines();
        assert!(
            lines.all(|found| found.starts_with("would ")),
            "{line}: {answer:?}"
        );
        assert_eq!(state(&host), before, "{line}");
        assert_eq!(state(&remote), remote_before, "{line}");
        let json = dry_run(
            &host,
            &remote,
            &server,
            &arguments,
            &["--dry-run", "--json"],
        );
        assert!(json.stdout.starts_with('{'), "{line}: {json:?}");
        print!("{line}\n{}", answer.stdout);
    }
    for verb in verbs(&host) {
        let has_plan = PLANS.iter().any(|(line, _)| line.starts_with(&verb));
        let with_agent = WITH_AGENT.contains(&verb.as_str());
        assert!(
            has_plan || with_agent || NO_PLAN.contains(&verb.as_str()),
            "`{verb} --dry-run` is not tested"
        );
    }
}

fn dry_run(
    host: &BuildHost,
    remote: &BuildHost,
    server: &SshServer,
    arguments: &[&str],
    options: &[&str],
) -> CommandOutput {
    let mut command = host.command(arguments);
    command.args(options).env("BUILDHOST_SSH", server.ssh());
    if ["push", "pull"].contains(&arguments[0]) {
        command.arg("--remote-volume").arg(remote.volume.path());
        let program = tests::program("machinectl");
        command.arg("--remote-program").arg(program);
    }
    run(command, b"").success()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn dry_runs_of_build_verbs_print_the_changes_and_make_none() {
    let host = AgentHost::ready("");
    let id = host.submit("demo", "hello").to_string();
    let source = host.state_directory().join("hello.c");
    write_file(&source, "int main(void) { return 0; }\n");
    let source = source.display().to_string();
    let stdout = |arguments: &[&str]| host.machinectl(arguments).success().stdout;
    let cancel = stdout(&["cancel", &id, "--dry-run"]);
    assert!(
        cancel.starts_with(&format!("would cancel build {id}, which is ")),
        "{cancel}"
    );
    assert_eq!(
        stdout(&["build", "demo", &source, "--dry-run"]),
        "would build hello.c on demo\n"
    );
    let secret = ["secret", "add", "key", "--from-file", &source, "--dry-run"];
    assert_eq!(stdout(&secret), "would add secret key\n");
    host.machinectl(&["secret", "delete", "key", "--dry-run"])
        .refused(10, "there is no secret key");
    host.machinectl(&["build", "none", &source, "--dry-run"])
        .refused(10, "the agent has no machine `none`");
    let release = ["release", "add", "new", "--branch", "a", "--bitbake"];
    let bitbake = ["https://git.example.org/bitbake", "--bitbake-branch", "a"];
    assert_eq!(
        stdout(&[&release[..], &bitbake, &["--dry-run"]].concat()),
        "would add release new\n"
    );
    let layer = ["layer", "add", "new", "https://git.example.org/new"];
    let plan = stdout(&[&layer[..], &["--dry-run"]].concat());
    assert!(plan.starts_with("would add layer new: "), "{plan}");
    assert_eq!(
        stdout(&["project", "add", "new", "--release", "master", "--dry-run"]),
        "would add project new\n"
    );
    assert!(!stdout(&["release", "list"]).contains("new"));
    assert_eq!(stdout(&["project", "list", "--no-legend"]), "");
    let build = host.wait_for(1, State::Finished);
    assert!(
        build.outcome.is_some_and(config::task::Outcome::is_good),
        "{build:?}"
    );
    let fork = ["fork", &id, "--copies", "2", "--dry-run"];
    host.machinectl(&fork)
        .refused(3, "only a running build can be forked");
    host.machinectl(&["cancel", &id, "--dry-run"])
        .refused(3, "too late to cancel it");
    assert_eq!(
        stdout(&["builds", "delete", &id, "--dry-run"]),
        format!("would delete build {id}\n")
    );
    assert_eq!(
        stdout(&["rebuild", &id, "--dry-run"]),
        "would build hello on demo again\n"
    );
    let output = host.state_directory().join("fetched");
    let plan = stdout(&[
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
    assert_eq!(stdout(&["builds", "--no-legend"]).lines().count(), 1);
    let sources = fs::read_dir(host.state_directory().join("sources"));
    assert_eq!(sources.unwrap().count(), 1, "no more were uploaded");
}
