use config::BuildId;
use config::builds::{ForkOrigin, Submitter, Typist};
use config::canary::TrialRun;
use config::settings::Settings;
use config::task::Breakpoint;
use jiff::Timestamp;

use super::*;

type Change = fn(&mut Build);

fn settings(text: &str) -> Hashserv {
    let text =
        format!("[hashserv]\nenabled = true\nreporters = [\"alice\", \"token:nightly\"]\n{text}");
    Settings::parse(&text).unwrap().hashserv
}

fn build(submitter: &str) -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, task) = ("default".parse().unwrap(), "0".repeat(64).parse().unwrap());
    let submitter: Submitter = submitter.parse().unwrap();
    Build::new(
        BuildId(1),
        request,
        toolchain,
        task,
        submitter,
        Timestamp::UNIX_EPOCH,
    )
}

#[test]
fn only_builds_of_the_named_submitters_report() {
    for (submitter, expected) in [
        ("alice", HashservMode::Report),
        ("token:nightly", HashservMode::Report),
        ("nightly", HashservMode::Read),
        ("token:alice", HashservMode::Read),
        ("root", HashservMode::Read),
    ] {
        let mode = decide(&settings(""), &build(submitter));
        assert_eq!(mode, Some(expected), "{submitter}");
    }
    let read_only = settings("read_only = true\n");
    assert_eq!(
        decide(&read_only, &build("alice")),
        Some(HashservMode::Read)
    );
}

#[test]
fn a_build_that_is_not_only_its_request_does_not_report() {
    let changes: [Change; 4] = [
        |build| {
            build.forked_from = Some(ForkOrigin {
                build: BuildId(7),
                number: 1,
                copies: 2,
                seconds: 3,
            });
        },
        |build| {
            build.trial = Some(TrialRun {
                revision: config::Revision(2),
                since: Timestamp::UNIX_EPOCH,
                result: None,
            });
        },
        |build| build.interactive.breakpoint = Some(Breakpoint::Error),
        |build| {
            build.typists.push(Typist {
                submitter: Submitter::root(),
                at: Timestamp::UNIX_EPOCH,
            });
        },
    ];
    for change in changes {
        let mut build = build("alice");
        change(&mut build);
        assert_eq!(decide(&settings(""), &build), Some(HashservMode::Read));
    }
}

#[test]
fn builds_of_other_machines_and_toolchains_do_not_reach_the_service() {
    for text in ["machines = [\"yocto-*\"]\n", "toolchains = [\"bitbake\"]\n"] {
        assert_eq!(decide(&settings(text), &build("alice")), None);
    }
    let mut disabled = settings("");
    disabled.enabled = false;
    assert_eq!(decide(&disabled, &build("alice")), None);
}
