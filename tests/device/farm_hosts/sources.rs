//! Builds of a farm with sources, which behave as those of a host.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sys::command::{prepare, run};
use tests::agent::{AgentHost, ENDLESS_PROGRAM, printing_program};
use tests::{wait_until, write_file};

use super::farm::{Farm, host};
use crate::controllers::builds;

/// Returns the names of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn sources_are_built_in_a_guest_of_either_host_and_their_files_are_fetched() {
    let mut farm = Farm::start(2);
    let (one, two) = (host(&farm, "one"), host(&farm, "two"));
    let work = tempfile::tempdir().unwrap();
    let source = one.source(&printing_program("hello"));
    farm.machinectl(&one, &["drain", "two"]).success();
    let packages = work.path().join("first").display().to_string();
    let command = ["build", "demo", &source, "--follow", "--output", &packages];
    let built = farm.machinectl(&one, &command).success();
    assert!(
        built.stderr.contains("finished on one with success"),
        "{built:?}"
    );
    assert!(built.stdout.contains("output of the program"), "{built:?}");
    let first = names(&work.path().join("first"));
    for end in [".ipk", "packages.manifest", "provenance.json"] {
        assert!(first.iter().any(|it| it.ends_with(end)), "{first:?}");
    }
    let listed = farm.machinectl(&one, &["artifacts", "1"]).success().stdout;
    assert!(listed.contains(".ipk"), "{listed}");

    // The other host gets the same archive, also after the coordinator that it was sent to has died.
    farm.machinectl(&one, &["drain", "one"]).success();
    let submitted = farm.machinectl(&one, &["build", "demo", &source]).success();
    assert_eq!(submitted.stdout.trim(), "2");
    farm.kill_coordinator(0);
    farm.machinectl(&one, &["undrain", "two"]).success();
    farm.wait_for_outcome(2, "success");
    assert_eq!(farm.state(2)["host"], "two");
    assert_eq!(builds(&two).len(), 1);
    let packages = work.path().join("second").display().to_string();
    farm.machinectl(&one, &["artifacts", "2", "--output", &packages])
        .success();
    assert_eq!(names(&work.path().join("second")), first);

    // A build that fails has the exit code of one on a host.
    let broken = one.source("this is no C");
    let failed = farm.machinectl(&one, &["build", "demo", &broken, "--follow"]);
    assert_eq!(failed.code, Some(30), "{failed:?}");
    let on_host = one.machinectl(&["build", "demo", &broken, "--follow"]);
    assert_eq!(on_host.code, failed.code, "{on_host:?}");
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn an_archive_with_a_hostile_path_ends_as_on_a_host() {
    let farm = Farm::start(1);
    let host = host(&farm, "one");
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("tree")).unwrap();
    write_file(&work.path().join("evil"), "evil");
    let archive = work.path().join("hostile.tar.gz");
    let mut tar = prepare("tar");
    tar.arg("-C").arg(work.path().join("tree"));
    tar.arg("-czPf").arg(&archive).arg("../evil");
    run(tar, Duration::from_mins(1)).unwrap();
    let archive = archive.display().to_string();
    let command = ["build", "demo", &archive, "--follow"];
    let (of_farm, of_host) = (farm.machinectl(&host, &command), host.machinectl(&command));
    assert_eq!(of_farm.code, Some(30), "{of_farm:?}");
    assert_eq!(of_host.code, of_farm.code, "{of_host:?}");
    let said = |log: &str| {
        let lines = log.lines().filter(|it| it.starts_with("build: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!said(&of_farm.stdout).is_empty(), "{of_farm:?}");
    assert_eq!(said(&of_farm.stdout), said(&of_host.stdout));

    let missing = farm.machinectl(&host, &["build", "demo", "/nowhere.tar.gz"]);
    let expected = host.machinectl(&["build", "demo", "/nowhere.tar.gz"]);
    assert_eq!(
        (missing.code, missing.stderr),
        (expected.code, expected.stderr)
    );
    let directory = work.path().join("tree").display().to_string();
    let refused = farm.machinectl(&host, &["build", "demo", &directory]);
    let expected = host.machinectl(&["build", "demo", &directory]);
    assert!(
        refused.stderr.contains("pack a directory with tar"),
        "{refused:?}"
    );
    assert_eq!(
        (refused.code, refused.stderr),
        (expected.code, expected.stderr)
    );
}

/// Waits until the only host runs a build.
fn wait_for_run(host: &AgentHost) {
    wait_until("the host runs the build", || {
        builds(host).iter().any(|it| it.started.is_some())
    });
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_step_that_is_ended_cancels_its_build_in_the_farm() {
    let farm = Farm::start(1);
    let host = host(&farm, "one");
    let source = host.source(ENDLESS_PROGRAM);
    let command = ["build", "demo", &source, "--follow", "--cancel-on-signal"];
    let mut step = farm.command_line(&command).spawn().unwrap();
    wait_for_run(&host);
    kill_process(Pid::from_child(&step), Signal::TERM).unwrap();
    assert_eq!(
        step.wait().unwrap().code(),
        Some(31),
        "the build ended with abort"
    );
    farm.wait_for_outcome(1, "abort");
}
