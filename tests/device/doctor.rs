//! `machinectl doctor` on real btrfs: each finding, and what is repaired.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ::store::Pool;
use ::store::command::{prepare, run};
use ::store::pool::BtrfsPool;
use config::doctor::{Finding, Id, Subject};
use nix::mount::{MsFlags, mount};
use tests::shell::{BuildHost, DevelopmentHost};

fn host() -> Option<(BuildHost, DevelopmentHost)> {
    if !tests::may_use_devices() {
        return None;
    }
    let (host, development) = (BuildHost::new(256), DevelopmentHost::new(256));
    development.image("linux-1", None, &[("disk.img", b"one")]);
    host.machinectl(&["add", "linux"], &development.send("linux-1", None))
        .good();
    Some((host, development))
}

/// All findings.
fn all_findings(host: &BuildHost, arguments: &[&str]) -> (Vec<Finding>, Option<i32>) {
    let answer = host.machinectl(&[&["doctor", "--json"], arguments].concat(), b"");
    (serde_json::from_str(&answer.stdout).unwrap(), answer.code)
}

/// The findings about machines as `machine id`, sorted, and the exit code.
fn findings(host: &BuildHost, arguments: &[&str]) -> (Vec<String>, Option<i32>) {
    let (findings, code) = all_findings(host, arguments);
    let about = |it: &Finding| match &it.subject {
        Subject::Machine(name) => Some(format!("{name} {}", it.id)),
        _ => None,
    };
    let mut list: Vec<_> = findings.iter().filter_map(about).collect();
    list.sort();
    (list, code)
}

/// The ids of the findings about the volume.
fn of_volume(host: &BuildHost) -> Vec<Id> {
    let (findings, _) = all_findings(host, &[]);
    let volume = findings
        .iter()
        .filter(|it| matches!(it.subject, Subject::Volume(_)));
    volume.map(|it| it.id).collect()
}

#[test]
fn a_volume_in_order_is_well() {
    let Some((host, _)) = host() else { return };
    let (all, code) = all_findings(&host, &[]);
    let all: Vec<_> = all.iter().map(|it| it.id).collect();
    assert_eq!((all, code), (vec![Id::NoAgent], Some(0)));
    host.machinectl(&["doctor", "other"], b"")
        .refused(10, "there is no machine `other`");
}

#[test]
fn what_can_be_repaired_is_and_strangers_stay() {
    let Some((host, _)) = host() else { return };
    let linux = host.volume.path().join("linux");
    BtrfsPool.create(&linux.join("linux-2")).unwrap();
    BtrfsPool.create(&linux.join("linux-default")).unwrap();
    BtrfsPool.create(&linux.join("linux-default-1")).unwrap();
    symlink("linux-1", linux.join(".buildhost.new")).unwrap();
    symlink("linux-1", linux.join(".buildhost.pin-9")).unwrap();
    symlink("linux-1", linux.join(".buildhost.deleting")).unwrap();
    let half = host.volume.path().join("half");
    fs::create_dir(&half).unwrap();
    BtrfsPool
        .freeze(&linux.join("linux-1"), &half.join("half-1"))
        .unwrap();
    symlink("half-1", half.join(".buildhost.deleting")).unwrap();
    tests::put(&linux.join("notes"), "mine");
    let all = [
        "half half-deleted",
        "linux deletion-mark",
        "linux half-image",
        "linux half-revision",
        "linux incoming-link",
        "linux lost-pin",
        "linux stranger",
        "linux stray-snapshot",
    ];
    assert_eq!(
        findings(&host, &[]),
        (all.map(str::to_owned).to_vec(), Some(21))
    );
    let before = host.listing();
    let plan = host
        .machinectl(&["doctor", "--repair", "--dry-run"], b"")
        .good()
        .stdout;
    assert_eq!(
        (host.listing(), plan.lines().count()),
        (before, 9),
        "{plan}"
    );
    let (left, code) = findings(&host, &["--repair"]);
    assert_eq!((left, code), (vec!["linux stranger".to_owned()], Some(0)));
    assert!(linux.join("notes").is_file() && !half.exists());
}

#[test]
fn what_needs_a_decision_is_left_to_a_person() {
    let Some((host, development)) = host() else {
        return;
    };
    let linux = host.volume.path().join("linux");
    development.image("linux-2", None, &[("disk.img", b"two")]);
    host.machinectl(&["upgrade", "linux"], &development.send("linux-2", None))
        .good();
    // A read-only snapshot of what was received has its identity.
    BtrfsPool
        .freeze(&linux.join("linux-1"), &linux.join("linux-3"))
        .unwrap();
    fs::remove_file(linux.join("linux")).unwrap();
    let no_link = ["linux no-link", "linux twin-identity"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(findings(&host, &["--repair"]), (no_link, Some(22)));
    symlink("linux-7", linux.join("linux")).unwrap();
    let broken = ["linux broken-link", "linux twin-identity"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(findings(&host, &["--repair"]), (broken, Some(22)));
    host.machinectl(&["rollback", "linux", "2"], b"").good();
    assert_eq!(findings(&host, &[]).0, ["linux twin-identity"]);
}

#[test]
fn a_receive_by_hand_is_not_taken_for_a_stray() {
    let Some((host, development)) = host() else {
        return;
    };
    development.image(
        "linux-2",
        Some("linux-1"),
        &[("disk.img", &vec![1; 1 << 20])],
    );
    let stream = development.send("linux-2", None);
    let linux = host.volume.path().join("linux");
    let mut receive = ::store::command::prepare("btrfs");
    receive
        .arg("receive")
        .arg(&linux)
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut receive = receive.spawn().unwrap();
    let mut stdin = receive.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &stream[..stream.len() / 2]).unwrap();
    tests::wait_until("the receiver has begun", || linux.join("linux-2").exists());
    let expected = vec!["linux arriving-revision".to_owned()];
    assert_eq!(findings(&host, &["--repair"]), (expected, Some(0)));
    host.machinectl(&["upgrade", "linux"], &stream)
        .refused(17, "is in use by btrfs (process");
    std::io::Write::write_all(&mut stdin, &stream[stream.len() / 2..]).unwrap();
    drop(stdin);
    assert!(receive.wait().unwrap().success());
    assert_eq!(findings(&host, &[]), (Vec::new(), Some(0)));
}

fn mount_at(source: &Path, point: &Path, flags: MsFlags) {
    mount(Some(source), point, None::<&str>, flags, None::<&str>).unwrap();
}

#[test]
fn mounts_and_quotas_that_hurt_are_told() {
    let Some((host, _)) = host() else { return };
    assert_eq!(of_volume(&host), []);
    let mut quota = prepare("btrfs");
    quota.args(["quota", "enable"]).arg(host.mount.path());
    run(quota, Duration::from_mins(1)).unwrap();
    assert_eq!(of_volume(&host), [Id::Quotas]);

    let linux = host.volume.path().join("linux");
    let (look, hidden) = (host.mount.directory("look"), linux.join("hidden"));
    mount_at(&linux.join("linux-1"), &look, MsFlags::MS_BIND);
    fs::create_dir(&hidden).unwrap();
    mount_at(&look, &hidden, MsFlags::MS_BIND);
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount_at(Path::new("none"), host.mount.path(), remount);
    let expected = [Id::ReadOnlyVolume, Id::MountedOver, Id::Quotas];
    assert_eq!(of_volume(&host), expected);
    let machine = ["linux mounted-elsewhere", "linux stranger"].map(str::to_owned);
    assert_eq!(findings(&host, &[]), (machine.to_vec(), Some(22)));
}
