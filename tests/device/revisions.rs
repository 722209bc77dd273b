//! Rollback, pins and pruning on real btrfs.

use std::process::{Child, Stdio};

use tests::hosts::{BuildHost, DevelopmentHost};

/// Returns a host with revisions 1 to 5 of `linux`, each with 4 MiB of its own.
fn host() -> BuildHost {
    let (host, development) = (BuildHost::new(512), DevelopmentHost::new(512));
    for number in 1..=5_u8 {
        let name = format!("linux-{number}");
        development.image(&name, None, &[("disk.img", &vec![number; 4 << 20])]);
        let verb = if number == 1 { "add" } else { "upgrade" };
        host.machinectl(&[verb, "linux"], &development.send(&name, None))
            .success();
    }
    host
}

fn numbers(host: &BuildHost) -> Vec<u32> {
    host.view("linux")
        .revisions
        .iter()
        .map(|it| it.revision.0)
        .collect()
}

fn current(host: &BuildHost) -> Option<u32> {
    host.view("linux").current.map(|it| it.0)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn rollback_makes_an_older_revision_current() {
    let host = host();
    let plan = host
        .machinectl(&["rollback", "linux", "--dry-run"], b"")
        .success();
    assert_eq!(
        (plan.stdout.as_str(), current(&host)),
        ("would make revision 4 of linux current\n", Some(5))
    );
    host.machinectl(&["rollback", "linux"], b"").success();
    assert_eq!(current(&host), Some(4));
    host.machinectl(&["rollback", "linux", "1"], b"").success();
    host.machinectl(&["rollback", "linux"], b"")
        .refused(10, "no complete revision before 1");
    host.machinectl(&["rollback", "linux", "9"], b"")
        .refused(10, "no complete revision 9");
    host.machinectl(&["rollback", "linux", "5"], b"").success();
    assert_eq!(current(&host), Some(5));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn pruning_spares_current_and_pinned_revisions() {
    let host = host();
    host.machinectl(&["pin", "linux", "2"], b"").success();
    host.machinectl(&["pin", "linux", "9"], b"")
        .refused(10, "no complete revision 9");
    let status = host.machinectl(&["status", "linux"], b"").success().stdout;
    assert!(status.contains("complete, pinned"), "{status}");
    let plan = host
        .machinectl(&["prune", "--keep", "1", "--dry-run"], b"")
        .success()
        .stdout;
    assert_eq!(plan.lines().count(), 3, "{plan}");
    assert_eq!(numbers(&host).len(), 5);
    host.machinectl(&["prune", "--older-than", "1"], b"")
        .success();
    assert_eq!(numbers(&host).len(), 5, "all are from today");
    host.machinectl(&["prune", "--keep", "1"], b"").success();
    assert_eq!(numbers(&host), [2, 5]);
    host.machinectl(&["unpin", "linux", "2"], b"").success();
    // The deletion of a machine deletes its pins.
    host.machinectl(&["pin", "linux", "5"], b"").success();
    host.machinectl(&["prune", "linux", "--keep", "1"], b"")
        .success();
    assert_eq!(numbers(&host), [5]);
    for dry_run in [&["--dry-run"][..], &[]] {
        host.machinectl(&[&["delete", "linux"], dry_run].concat(), b"")
            .refused(3, "machine `linux` has pinned revisions (5); unpin them");
    }
    assert_eq!(numbers(&host), [5]);
    assert!(host.view("linux").is_live());
    let deleted = host
        .machinectl(&["delete", "linux", "--force"], b"")
        .success();
    assert_eq!(
        deleted.stderr,
        "linux: deleted revision 5\nlinux: removed the pin of revision 5\n\
         linux: removed the machine's directory\ndeleted machine linux\n"
    );
    assert!(host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn pruning_stops_when_enough_space_is_free() {
    let host = host();
    let before = host.volume.free().unwrap();
    let wanted = (before + (6 << 20)).to_string();
    host.machinectl(&["prune", "--keep", "1", "--until-free", &wanted], b"")
        .success();
    assert!(host.volume.free().unwrap() >= before + (6 << 20));
    let left = numbers(&host);
    assert!((3..=4).contains(&left.len()), "{left:?}");
}

/// Starts a `btrfs send` that blocks because nothing reads its stream.
fn sender(host: &BuildHost, revision: &str) -> Child {
    let mut send = ::sys::command::prepare("btrfs");
    send.arg("send")
        .arg(host.volume.path().join("linux").join(revision));
    send.stdout(Stdio::piped()).stderr(Stdio::null());
    send.spawn().unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn pruning_spares_a_revision_that_is_sent() {
    let host = host();
    let mut sender = sender(&host, "linux-2");
    let mut started = [0; 17];
    std::io::Read::read_exact(sender.stdout.as_mut().unwrap(), &mut started).unwrap();
    let answer = host.machinectl(&["prune", "--keep", "1"], b"");
    assert_eq!(answer.code, Some(17), "{answer:?}");
    assert!(
        answer.stderr.contains("linux-2` is being sent"),
        "{answer:?}"
    );
    assert_eq!(numbers(&host), [2, 5]);
    sender.kill().unwrap();
    sender.wait().unwrap();
    host.machinectl(&["prune", "--keep", "1"], b"").success();
    assert_eq!(numbers(&host), [5]);
}
