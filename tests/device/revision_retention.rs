//! The deletion of old revisions by the agent, `prune` and `upgrade`, and what prevents it: a pin,
//! an image, a build or a process that reads the revision.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use config::task::{BOOTSTRAP, Provenance};
use tests::agent::AgentHost;
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::wait_until;

/// Adds revisions of `linux`, each with 4 MiB of its own.
fn add_revisions(host: &BuildHost, numbers: std::ops::RangeInclusive<u8>) {
    let development = DevelopmentHost::new(512);
    for number in numbers {
        let name = format!("linux-{number}");
        development.image(&name, None, &[("disk.img", &vec![number; 4 << 20])]);
        let verb = if number == 1 { "add" } else { "upgrade" };
        host.machinectl(&[verb, "linux"], &development.send(&name, None))
            .success();
    }
}

fn numbers(host: &BuildHost) -> Vec<u32> {
    let view = host.view("linux");
    view.revisions.iter().map(|it| it.revision.0).collect()
}

/// Creates an image of a revision of `linux`, as a bootstrap does.
fn create_image(host: &BuildHost, revision: u32) {
    let view = host.view("linux");
    let from = view.revision(config::Revision(revision)).unwrap().uuid;
    let directory = host.volume.path().join("linux");
    let image = directory.join("linux-default");
    let origin = directory.join(format!("linux-{revision}"));
    BtrfsBackend.snapshot(&origin, &image).unwrap();
    let provenance = Provenance {
        revision_uuid: from.to_string(),
        toolchain_id: "a".repeat(64).parse().unwrap(),
        bootstrap_version: 1,
    };
    let manifest = image.join(BOOTSTRAP);
    BtrfsBackend
        .write(&manifest, provenance.print().as_bytes())
        .unwrap();
    BtrfsBackend.make_read_only(&image).unwrap();
}

/// Starts a sender that blocks in the middle of its stream because nothing reads it.
fn start_blocked(mut sender: std::process::Command) -> Child {
    sender.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = sender.spawn().unwrap();
    let mut header = [0; 100];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut header)
        .unwrap();
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_agent_deletes_old_revisions_that_are_not_in_use() {
    let mut host = AgentHost::new("machines.keep_revisions = 1\n");
    add_revisions(&host.host, 1..=5);
    host.host.machinectl(&["pin", "linux", "1"], b"").success();
    // Without any toolchain the agent does not delete images.
    create_image(&host.host, 2);
    let sender = start_blocked(host.host.command(&["send", "linux", "3"]));
    host.start();
    wait_until("revision 4 is deleted", || {
        !numbers(&host.host).contains(&4)
    });
    assert_eq!(numbers(&host.host), [1, 2, 3, 5]);

    // An upgrade wakes the agent after the sender has ended.
    kill(sender);
    add_revision(&host.host, 6);
    wait_until("revisions 3 and 5 are deleted", || {
        numbers(&host.host) == [1, 2, 6]
    });
    host.host
        .machinectl(&["unpin", "linux", "1"], b"")
        .success();
    wait_until("revision 1 is deleted", || numbers(&host.host) == [2, 6]);
    assert!(host.log().contains("deleted an old revision"));
}

fn add_revision(host: &BuildHost, number: u8) {
    let development = DevelopmentHost::new(128);
    let name = format!("linux-{number}");
    development.image(&name, None, &[("disk.img", &[number; 1000])]);
    host.machinectl(&["upgrade", "linux"], &development.send(&name, None))
        .success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn prune_and_delete_keep_revisions_that_are_sent_or_used_by_an_image() {
    let host = BuildHost::new(512);
    add_revisions(&host, 1..=5);
    create_image(&host, 2);
    let machinectl = start_blocked(host.command(&["send", "linux", "3"]));
    let mut btrfs = ::sys::command::prepare("btrfs");
    btrfs
        .arg("send")
        .arg(host.volume.path().join("linux/linux-4"));
    let btrfs = start_blocked(btrfs);

    let answer = host.machinectl(&["prune", "--keep", "1"], b"");
    assert_eq!(answer.code, Some(17), "{answer:?}");
    for message in [
        "deleted revision 1",
        "kept revision 2, which an image or a build uses",
        "linux-3` is in use by machinectl (process",
        "linux-4` is being sent",
    ] {
        assert!(answer.stderr.contains(message), "{message}: {answer:?}");
    }
    assert_eq!(numbers(&host), [2, 3, 4, 5]);

    // The deletion of the machine waits for the senders as well, and is finished later.
    host.machinectl(&["delete", "linux", "--timeout", "0"], b"")
        .refused(17, "linux-3` is in use by machinectl");
    assert_eq!(numbers(&host), [2, 3, 4, 5]);
    kill(machinectl);
    kill(btrfs);
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_upgrade_with_keep_prunes_old_revisions() {
    let host = BuildHost::new(512);
    add_revisions(&host, 1..=3);
    let development = DevelopmentHost::new(128);
    development.image("linux-4", None, &[("disk.img", b"x")]);
    let stream = development.send("linux-4", None);
    let upgrade = ["upgrade", "linux", "--keep", "2"];
    let plan = host
        .machinectl(&[&upgrade[..], &["--dry-run"]].concat(), &stream)
        .success();
    assert_eq!(
        plan.stdout,
        "would make revision 4 of linux current instead of 3\n\
         would delete revision 1 of linux\nwould delete revision 2 of linux\n"
    );
    host.machinectl(&upgrade, &stream).success();
    assert_eq!(numbers(&host), [3, 4]);
    fs::read(host.volume.path().join("linux/linux/disk.img")).unwrap();
}
