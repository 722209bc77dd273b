//! Trials of new revisions with a real agent and containers: a good one is promoted, a bad one is
//! rolled back, and no build pays for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use config::Revision;
use config::builds::{Build, State};
use config::canary::{TrialEnd, TrialResult, TrialVerdict};
use config::task::Outcome;
use rustix::process::Signal;
use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use tests::agent::{AgentHost, GATED_PROGRAM};
use tests::wait_until;

const SETTINGS: &str = "bootstrap.retries_max = 0\nbuilds.retry_seconds = 1\n";

/// Upgrades the container `demo` to a copy of its first revision with a change, on trial.
fn upgrade(host: &AgentHost, number: u32, terms: &str, change: impl FnOnce(&Path)) {
    let revision = host.host.mount.path().join(format!("demo-{number}"));
    let first = host.host.volume.path().join("demo/demo-1");
    BtrfsBackend.snapshot(&first, &revision).unwrap();
    change(&revision);
    BtrfsBackend.make_read_only(&revision).unwrap();
    let from = revision.display().to_string();
    let upgraded = host
        .host
        .machinectl(
            &["upgrade", "demo", "--from", &from, "--canary", terms],
            b"",
        )
        .success();
    let expected = format!("revision {number} is now on trial");
    assert!(upgraded.stderr.contains(&expected), "{upgraded:?}");
}

/// Breaks the compiler of a revision for optimized code. Builds need that, and bootstraps do not.
fn break_optimizer(revision: &Path) {
    let path = revision.join("root/usr/bin/cc");
    let compiler = fs::read_to_string(&path).unwrap();
    let broken = r#"#!/bin/sh
case " $* " in *" -O2 "*) echo the optimizer is broken >&2; exit 1 ;; esac
"#;
    write_script(&path, &compiler.replacen("#!/bin/sh\n", broken, 1));
}

fn write_script(path: &Path, script: &str) {
    fs::remove_file(path).unwrap();
    tests::write_file(path, script);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn end(host: &AgentHost, revision: u32) -> Option<TrialEnd> {
    let view = host.host.volume.view(&"demo".parse().unwrap()).unwrap();
    view.trials.get(&Revision(revision))?.end.clone()
}

fn wait_for_end(host: &AgentHost, revision: u32) -> TrialEnd {
    wait_until(&format!("the trial of revision {revision} ends"), || {
        end(host, revision).is_some()
    });
    end(host, revision).unwrap()
}

fn wait_for_image(host: &AgentHost, revision: u32) {
    let image = format!("demo/.buildhost.canary-{revision}-default");
    let image = host.host.volume.path().join(image);
    wait_until("the image of the candidate is made", || image.exists());
}

fn current(host: &AgentHost) -> Option<Revision> {
    host.host
        .volume
        .view(&"demo".parse().unwrap())
        .unwrap()
        .current
}

fn finished(host: &AgentHost, id: u64) -> Build {
    host.wait_for(id, State::Finished)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_good_revision_is_promoted_after_the_agreed_builds() {
    let host = AgentHost::ready_with_container(SETTINGS);
    let before = finished(&host, host.submit("demo", "before"));
    assert_eq!(
        (before.outcome, before.revision),
        (Some(Outcome::Success), Some(Revision(1)))
    );
    upgrade(&host, 2, "2/2", |_| {});
    assert_eq!(current(&host), Some(Revision(1)));
    wait_for_image(&host, 2);
    let first = finished(&host, host.submit("demo", "first"));
    assert_eq!(
        (first.outcome, first.revision),
        (Some(Outcome::Success), Some(Revision(2)))
    );
    assert_eq!(first.trial.unwrap().result, Some(TrialResult::Succeeded));
    let shown = host.machinectl(&["status", "demo"]).success().stdout;
    assert!(shown.contains("revision 2 is on trial (2 of 2)"), "{shown}");
    wait_until("the host shows the progress", || {
        let shown = host.machinectl(&["host", "status"]).success().stdout;
        shown.contains("1 of 2 builds")
    });
    assert_eq!(current(&host), Some(Revision(1)));
    finished(&host, host.submit("demo", "second"));
    let end = wait_for_end(&host, 2);
    assert_eq!(end.verdict, TrialVerdict::Promoted);
    assert_eq!(current(&host), Some(Revision(2)));
    // The image of the trial serves at once.
    let view = host.host.volume.view(&"demo".parse().unwrap()).unwrap();
    assert_eq!((view.images.len(), view.trial_images.len()), (1, 0));
    let third = finished(&host, host.submit("demo", "third"));
    assert_eq!((third.revision, third.trial), (Some(Revision(2)), None));
    let shown = host.machinectl(&["status", "demo"]).success().stdout;
    assert!(shown.contains("2 builds succeeded on it"), "{shown}");
    let bootstraps = host.log().matches("starting the bootstrap").count();
    assert_eq!(bootstraps, 2, "one for each revision");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_that_breaks_builds_is_rolled_back_and_the_builds_succeed() {
    let mut host = AgentHost::ready_with_container(SETTINGS);
    finished(&host, host.submit("demo", "before"));
    upgrade(&host, 2, "2/2", break_optimizer);
    wait_for_image(&host, 2);
    // The build fails on revision 2 and runs again on revision 1.
    let first = finished(&host, host.submit("demo", "first"));
    assert_eq!(
        (first.outcome, first.revision),
        (Some(Outcome::Success), Some(Revision(1)))
    );
    assert_eq!(first.attempts, 2);
    let result = first.trial.unwrap().result;
    assert!(
        matches!(result, Some(TrialResult::Failed { .. })),
        "{result:?}"
    );
    let attempt = host
        .machinectl(&["log", "2", "--attempt", "1"])
        .success()
        .stdout;
    assert!(attempt.contains("the optimizer is broken"), "{attempt}");
    // The strike is in the records: a killed agent continues the trial.
    host.stop(Signal::KILL);
    host.start();
    assert_eq!(end(&host, 2), None);
    let second = finished(&host, host.submit("demo", "second"));
    assert_eq!(
        (second.outcome, second.revision),
        (Some(Outcome::Success), Some(Revision(1)))
    );
    let end = wait_for_end(&host, 2);
    assert_eq!(end.verdict, TrialVerdict::RolledBack);
    assert!(end.reason.contains("build 2 of hello"), "{}", end.reason);
    assert!(
        end.reason.contains("succeeded on revision 1"),
        "{}",
        end.reason
    );
    assert_eq!(current(&host), Some(Revision(1)));
    let third = finished(&host, host.submit("demo", "third"));
    assert_eq!((third.revision, third.trial), (Some(Revision(1)), None));
    let shown = host.machinectl(&["status", "demo"]).success().stdout;
    assert!(shown.contains("rolled back"), "{shown}");
    wait_until("its image is deleted", || {
        let view = host.host.volume.view(&"demo".parse().unwrap()).unwrap();
        view.trial_images.is_empty()
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_that_cannot_be_bootstrapped_is_rolled_back() {
    let host = AgentHost::ready_with_container(SETTINGS);
    finished(&host, host.submit("demo", "before"));
    upgrade(&host, 2, "1/1", |revision| {
        write_script(&revision.join("root/sbin/init"), "#!/bin/sh\nexit 1\n");
    });
    let end = wait_for_end(&host, 2);
    assert_eq!(end.verdict, TrialVerdict::RolledBack);
    assert!(
        end.reason
            .contains("its bootstrap with toolchain default failed"),
        "{}",
        end.reason
    );
    let after = finished(&host, host.submit("demo", "after"));
    assert_eq!(
        (after.outcome, after.revision),
        (Some(Outcome::Success), Some(Revision(1)))
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_killed_agent_continues_a_trial_with_the_guest_that_runs_on_it() {
    let mut host = AgentHost::ready_with_container(SETTINGS);
    finished(&host, host.submit("demo", "before"));
    upgrade(&host, 2, "1/1", |_| {});
    wait_for_image(&host, 2);
    let id = host.submit_code("demo", GATED_PROGRAM);
    host.wait_for_gate(id);
    host.stop(Signal::KILL);
    host.start();
    // Only one build at a time is needed for the verdict.
    let other = finished(&host, host.submit("demo", "other"));
    assert_eq!((other.revision, other.trial), (Some(Revision(1)), None));
    assert_eq!(end(&host, 2), None);
    host.open_gate("demo", id);
    let build = finished(&host, id);
    assert_eq!(
        (build.outcome, build.revision),
        (Some(Outcome::Success), Some(Revision(2)))
    );
    let end = wait_for_end(&host, 2);
    assert_eq!(
        (end.verdict, current(&host)),
        (TrialVerdict::Promoted, Some(Revision(2)))
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_person_decides_a_trial_at_once() {
    let host = AgentHost::ready_with_container(SETTINGS);
    finished(&host, host.submit("demo", "before"));
    upgrade(&host, 2, "9/9", |_| {});
    let refused = host
        .host
        .machinectl(&["rollback", "demo", "--dry-run"], b"")
        .success();
    assert!(
        refused.stdout.contains("end the trial of revision 2"),
        "{refused:?}"
    );
    host.host.machinectl(&["rollback", "demo"], b"").success();
    assert_eq!(current(&host), Some(Revision(1)));
    assert!(end(&host, 2).unwrap().reason.contains("rolled back by"));
    let text = "no revision of `demo` is on trial";
    host.host
        .machinectl(&["promote", "demo"], b"")
        .refused(10, text);
    upgrade(&host, 3, "9/9", |_| {});
    host.host.machinectl(&["promote", "demo"], b"").success();
    assert_eq!(current(&host), Some(Revision(3)));
    let build = finished(&host, host.submit("demo", "after"));
    assert_eq!((build.outcome, build.trial), (Some(Outcome::Success), None));
}
