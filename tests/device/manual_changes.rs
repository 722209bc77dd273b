//! Changes that an administrator makes with `btrfs` and `ln` on a live host: the agent notices them
//! and acts on them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::agent::AgentHost;
use tests::hosts::{DevelopmentHost, run};
use tests::ssh::SshServer;
use tests::wait_until;

/// Runs a shell command in a directory.
fn shell(directory: &Path, line: &str) {
    let mut shell = ::sys::command::prepare("sh");
    shell.args(["-ec", line]).current_dir(directory);
    ::sys::command::run(shell, Duration::from_mins(1)).unwrap();
}

/// Waits for a state and prints how long that took.
fn wait_and_measure(description: &str, condition: impl FnMut() -> bool) {
    let began = Instant::now();
    wait_until(description, condition);
    println!("{:>6.0?}  {description}", began.elapsed());
}

/// Returns the agent's table of machines.
fn machines(host: &AgentHost) -> String {
    host.machinectl(&["host", "status", "--no-legend"])
        .success()
        .stdout
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_agent_follows_manual_changes_of_machines() {
    let mut host = AgentHost::new("machines.keep_revisions = 1\nguests.parallel_max = 1\n");
    host.add_toolchain("0.1.0");
    host.start();
    let volume = host.host.volume.path().to_owned();
    let development = DevelopmentHost::new(256);
    for number in 1..=3_u8 {
        let name = format!("hand-{number}");
        // The machine cannot boot, so that the agent makes no images of it.
        development.image(&name, None, &[("manifest", b"no manifest\n")]);
        let stream = development.send(&name, None);
        sys::file::replace(&host.state_directory().join(&name), &stream).unwrap();
    }
    let streams = host.state_directory().display().to_string();

    shell(
        &volume,
        &format!("mkdir hand; btrfs -q receive -f {streams}/hand-1 hand; ln -s hand-1 hand/hand"),
    );
    wait_and_measure("a new machine is known", || {
        machines(&host).contains("hand")
    });

    // An upgrade as the manual of build2 describes it.
    shell(
        &volume,
        &format!(
            "btrfs -q receive -f {streams}/hand-2 hand; ln -s hand-2 hand/hand.new; mv -T hand/hand.new hand/hand"
        ),
    );
    let hand = volume.join("hand");
    wait_and_measure("the old revision is deleted", || {
        !hand.join("hand-1").exists()
    });
    assert!(hand.join("hand-2/manifest").exists());

    // The received revision becomes current with the link only.
    shell(
        &volume,
        &format!("btrfs -q receive -f {streams}/hand-3 hand"),
    );
    shell(&volume, "ln -sfn hand-3 hand/hand");
    wait_and_measure("revision 2 is deleted", || !hand.join("hand-2").exists());

    // Unmanaged files stay through all of this.
    tests::write_file(&hand.join("notes"), "mine");

    // The machine is taken out of service, and then deleted.
    shell(&volume, "rm hand/hand");
    wait_and_measure("a machine out of service is not ready", || {
        !machines(&host).contains("hand")
    });
    shell(&volume, "ln -s hand-3 hand/hand");
    wait_and_measure("and back again", || machines(&host).contains("hand"));
    shell(
        &volume,
        "rm hand/hand; btrfs -q subvolume delete hand/hand-3 >/dev/null",
    );
    wait_and_measure("a machine deleted by hand is not ready", || {
        !machines(&host).contains("hand")
    });
    let answer = host.machinectl(&["build", "hand", "/etc/hostname"]);
    assert_eq!(answer.code, Some(10), "{answer:?}");
    assert_eq!(fs::read_to_string(hand.join("notes")).unwrap(), "mine");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_queued_build_waits_while_the_link_of_its_machine_is_missing() {
    let host = AgentHost::ready("");
    host.machinectl(&["drain"]).success();
    let id = host.submit("demo", "hello");
    let link = host.host.volume.path().join("demo");
    shell(&link, "mv -T demo aside");
    host.machinectl(&["undrain"]).success();
    wait_and_measure("the build has the reason for its wait", || {
        host.build(id).message.contains("has no current revision")
    });
    shell(&link, "mv -T aside demo");
    let build = host.wait_for(id, config::builds::State::Finished);
    assert!(
        build.outcome.is_some_and(config::task::Outcome::is_good),
        "{build:?}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_next_push_is_full_after_a_revision_was_made_writable() {
    let (development, remote) = (
        tests::hosts::BuildHost::new(256),
        tests::hosts::BuildHost::new(256),
    );
    let server = SshServer::start();
    let work = development.mount.path().join("work");
    ::store::SubvolumeBackend::create(&::store::subvolumes::BtrfsBackend, &work).unwrap();
    tests::write_file(&work.join("disk.img"), "disk");
    let push = || -> Command {
        let mut push = development.command(&["push", "linux", "root@127.0.0.1", "--from"]);
        push.arg(&work);
        push.arg("--remote-volume").arg(remote.volume.path());
        push.arg("--remote-program")
            .arg(tests::program("machinectl"));
        push.env("BUILDHOST_SSH", server.ssh());
        push
    };
    run(push(), b"").success();
    // The manual of build2 gives a received image to the user `build` in this way.
    shell(
        remote.volume.path(),
        "btrfs property set -f linux/linux-1 ro false; chown nobody linux/linux-1/disk.img; \
         btrfs property set linux/linux-1 ro true",
    );
    assert_eq!(remote.view("linux").current.map(|it| it.0), Some(1));
    let answer = run(push(), b"").success();
    let reason = "sending revision 2 in full, because revision 1 there is not as received";
    assert!(answer.stderr.contains(reason), "{answer:?}");
    assert_eq!(remote.view("linux").current.map(|it| it.0), Some(2));
    remote.machinectl(&["verify", "linux"], b"").success();
}
