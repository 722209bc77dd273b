//! The old habits: what a person does with `btrfs` and `ln` on a live host is noticed
//! by the agent and honoured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::agent::AgentHost;
use tests::hosts::{DevelopmentHost, run};
use tests::ssh::SshServer;
use tests::wait_until;

/// Does what a person does in a shell.
fn shell(directory: &Path, line: &str) {
    let mut shell = ::sys::command::prepare("sh");
    shell.args(["-ec", line]).current_dir(directory);
    ::sys::command::run(shell, Duration::from_mins(1)).unwrap();
}

/// Waits until something is so, and tells how long that took.
fn soon(what: &str, is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    wait_until(what, is_so);
    println!("{:>6.0?}  {what}", begun.elapsed());
}

/// The machines that the agent knows, with what it says of each.
fn known(host: &AgentHost) -> String {
    host.machinectl(&["host", "status", "--no-legend"])
        .success()
        .stdout
}

fn message(host: &AgentHost, id: u64) -> String {
    host.build(id).message
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_is_done_by_hand_is_noticed_and_honoured() {
    let mut host = AgentHost::new("machines.keep_revisions = 1\nguests.parallel_max = 1\n");
    host.add_toolchain("0.1.0");
    host.start();
    let volume = host.host.volume.path().to_owned();
    let development = DevelopmentHost::new(256);
    for number in 1..=3_u8 {
        let name = format!("hand-{number}");
        // It cannot boot, so nothing but the revisions is there to be seen.
        development.image(&name, None, &[("manifest", b"no manifest\n")]);
        let stream = development.send(&name, None);
        sys::file::replace(&host.state_directory().join(&name), &stream).unwrap();
    }
    let streams = host.state_directory().display().to_string();

    shell(
        &volume,
        &format!("mkdir hand; btrfs -q receive -f {streams}/hand-1 hand; ln -s hand-1 hand/hand"),
    );
    soon("a new machine is known", || known(&host).contains("hand"));

    // An upgrade, in the way that the old manual tells.
    shell(
        &volume,
        &format!(
            "btrfs -q receive -f {streams}/hand-2 hand; ln -s hand-2 hand/hand.new; mv -T hand/hand.new hand/hand"
        ),
    );
    let hand = volume.join("hand");
    soon("the old revision is deleted", || {
        !hand.join("hand-1").exists()
    });
    assert!(hand.join("hand-2/manifest").exists());

    // Back to an older one: it is current, so the newer one stays as the newest.
    shell(
        &volume,
        &format!("btrfs -q receive -f {streams}/hand-3 hand"),
    );
    shell(&volume, "ln -sfn hand-3 hand/hand");
    soon("revision 2 is deleted", || !hand.join("hand-2").exists());

    // A stranger is left alone by all this.
    tests::write_file(&hand.join("notes"), "mine");

    // Out of service, and away.
    shell(&volume, "rm hand/hand");
    soon("a machine out of service is not ready", || {
        !known(&host).contains("hand")
    });
    shell(&volume, "ln -s hand-3 hand/hand");
    soon("and back again", || known(&host).contains("hand"));
    shell(
        &volume,
        "rm hand/hand; btrfs -q subvolume delete hand/hand-3 >/dev/null",
    );
    soon("a machine deleted by hand is not ready", || {
        !known(&host).contains("hand")
    });
    let answer = host.machinectl(&["build", "hand", "/etc/hostname"]);
    assert_eq!(answer.code, Some(10), "{answer:?}");
    assert_eq!(fs::read_to_string(hand.join("notes")).unwrap(), "mine");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_follows_a_link_that_was_put_right_by_hand() {
    let host = AgentHost::ready("");
    let id = host.submit("demo", "hello");
    let link = host.host.volume.path().join("demo");
    shell(&link, "mv -T demo aside");
    soon(
        "a waiting build says that the machine is out of service",
        || message(&host, id).contains("has no current revision"),
    );
    shell(&link, "mv -T aside demo");
    let build = host.wait_for(id, config::builds::State::Finished);
    assert!(
        build.outcome.is_some_and(config::task::Outcome::is_good),
        "{build:?}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_that_was_made_writable_by_hand_makes_the_next_push_a_full_one() {
    let (development, far) = (
        tests::hosts::BuildHost::new(256),
        tests::hosts::BuildHost::new(256),
    );
    let server = SshServer::start();
    let work = development.mount.path().join("work");
    ::store::SubvolumeBackend::create(&::store::subvolumes::BtrfsBackend, &work).unwrap();
    tests::write_file(&work.join("disk.img"), "disk");
    let push = || -> Command {
        let mut push = development.command(&["push", "linux", "root@127.0.0.1", "--from"]);
        push.arg(&work)
            .arg("--remote-volume")
            .arg(far.volume.path());
        push.arg("--remote-program")
            .arg(tests::program("machinectl"));
        push.env("BUILDHOST_SSH", server.ssh());
        push
    };
    run(push(), b"").success();
    // The old manual's way to give a received image to the user `build`.
    shell(
        far.volume.path(),
        "btrfs property set -f linux/linux-1 ro false; chown nobody linux/linux-1/disk.img; \
         btrfs property set linux/linux-1 ro true",
    );
    assert_eq!(far.look("linux").current.map(|it| it.0), Some(1));
    let answer = run(push(), b"").success();
    let words = "sending revision 2 in full, because revision 1 there is not as received";
    assert!(answer.stderr.contains(words), "{answer:?}");
    assert_eq!(far.look("linux").current.map(|it| it.0), Some(2));
    far.machinectl(&["verify", "linux"], b"").success();
}
