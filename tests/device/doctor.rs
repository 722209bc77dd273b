//! `machinectl doctor` on real btrfs: all findings and their repair.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use ::sys::command::{prepare, run};
use config::builds::State;
use config::doctor::{Finding, Id, Subject};
use nix::mount::{MsFlags, mount};
use rusqlite::Connection;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::attacks::refused;
use tests::hosts::{BuildHost, DevelopmentHost};

fn host() -> (BuildHost, DevelopmentHost) {
    let (host, development) = (BuildHost::new(256), DevelopmentHost::new(256));
    development.image("linux-1", None, &[("disk.img", b"one")]);
    host.machinectl(&["add", "linux"], &development.send("linux-1", None))
        .success();
    (host, development)
}

/// Returns all findings and the exit code.
fn all_findings(host: &BuildHost, arguments: &[&str]) -> (Vec<Finding>, Option<i32>) {
    let answer = host.machinectl(&[&["doctor", "--json"], arguments].concat(), b"");
    (serde_json::from_str(&answer.stdout).unwrap(), answer.code)
}

/// Returns the findings about machines as `machine id`, sorted, and the exit code.
fn machine_findings(host: &BuildHost, arguments: &[&str]) -> (Vec<String>, Option<i32>) {
    let (findings, code) = all_findings(host, arguments);
    let about = |it: &Finding| match &it.subject {
        Subject::Machine(name) => Some(format!("{name} {}", it.id)),
        _ => None,
    };
    let mut list: Vec<_> = findings.iter().filter_map(about).collect();
    list.sort();
    (list, code)
}

/// Returns the ids of the findings about the volume.
fn volume_findings(host: &BuildHost) -> Vec<Id> {
    let (findings, _) = all_findings(host, &[]);
    let volume = findings
        .iter()
        .filter(|it| matches!(it.subject, Subject::Volume(_)));
    volume.map(|it| it.id).collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_healthy_volume_has_no_findings() {
    let (host, _) = host();
    let (all, code) = all_findings(&host, &[]);
    let all: Vec<_> = all.iter().map(|it| it.id).collect();
    assert_eq!((all, code), (vec![Id::NoAgent], Some(0)));
    host.machinectl(&["doctor", "other"], b"")
        .refused(10, "there is no machine `other`");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn leftovers_are_repaired_and_unmanaged_files_stay() {
    let (host, _) = host();
    let linux = host.volume.path().join("linux");
    BtrfsBackend.create(&linux.join("linux-2")).unwrap();
    BtrfsBackend.create(&linux.join("linux-default")).unwrap();
    BtrfsBackend.create(&linux.join("linux-default-1")).unwrap();
    // A power cut can leave a read-only revision without content.
    BtrfsBackend.create(&linux.join("linux-3")).unwrap();
    BtrfsBackend.make_read_only(&linux.join("linux-3")).unwrap();
    for number in [2, 3, 4] {
        let mark = format!(".buildhost.arriving-{number}");
        symlink(format!("linux-{number}"), linux.join(mark)).unwrap();
    }
    symlink("linux-1", linux.join(".buildhost.new")).unwrap();
    symlink("linux-1", linux.join(".buildhost.pin-9")).unwrap();
    symlink("linux-1", linux.join(".buildhost.deleting")).unwrap();
    let half = host.volume.path().join("half");
    fs::create_dir(&half).unwrap();
    BtrfsBackend
        .snapshot_read_only(&linux.join("linux-1"), &half.join("half-1"))
        .unwrap();
    symlink("half-1", half.join(".buildhost.deleting")).unwrap();
    tests::write_file(&linux.join("notes"), "mine");
    let all = [
        "half half-deleted",
        "linux deletion-mark",
        "linux half-image",
        "linux half-revision",
        "linux half-revision",
        "linux half-revision",
        "linux incoming-link",
        "linux lost-pin",
        "linux stranger",
        "linux stray-snapshot",
    ];
    assert_eq!(
        machine_findings(&host, &[]),
        (all.map(str::to_owned).to_vec(), Some(21))
    );
    let before = host.listing();
    let plan = host
        .machinectl(&["doctor", "--repair", "--dry-run"], b"")
        .success()
        .stdout;
    assert_eq!(
        (host.listing(), plan.lines().count()),
        (before, 13),
        "{plan}"
    );
    let (left, code) = machine_findings(&host, &["--repair"]);
    assert_eq!((left, code), (vec!["linux stranger".to_owned()], Some(0)));
    assert!(linux.join("notes").is_file() && !half.exists());
    refused(
        "doctor --repair -> unmanaged files",
        "delete them",
        "they stay",
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn findings_that_need_a_decision_are_not_repaired() {
    let (host, development) = host();
    let linux = host.volume.path().join("linux");
    development.image("linux-2", None, &[("disk.img", b"two")]);
    host.machinectl(&["upgrade", "linux"], &development.send("linux-2", None))
        .success();
    // A read-only snapshot of a received subvolume has the same received identity.
    BtrfsBackend
        .snapshot_read_only(&linux.join("linux-1"), &linux.join("linux-3"))
        .unwrap();
    fs::remove_file(linux.join("linux")).unwrap();
    let no_link = ["linux no-link", "linux twin-identity"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(machine_findings(&host, &["--repair"]), (no_link, Some(22)));
    symlink("linux-7", linux.join("linux")).unwrap();
    let broken = ["linux broken-link", "linux twin-identity"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(machine_findings(&host, &["--repair"]), (broken, Some(22)));
    host.machinectl(&["rollback", "linux", "2"], b"").success();
    assert_eq!(machine_findings(&host, &[]).0, ["linux twin-identity"]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_manual_receive_is_not_reported_as_a_leftover() {
    let (host, development) = host();
    development.image(
        "linux-2",
        Some("linux-1"),
        &[("disk.img", &vec![1; 1 << 20])],
    );
    let stream = development.send("linux-2", None);
    let linux = host.volume.path().join("linux");
    let mut receive = ::sys::command::prepare("btrfs");
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
    assert_eq!(machine_findings(&host, &["--repair"]), (expected, Some(0)));
    host.machinectl(&["upgrade", "linux"], &stream)
        .refused(11, "a person may be working in it");
    std::io::Write::write_all(&mut stdin, &stream[stream.len() / 2..]).unwrap();
    drop(stdin);
    assert!(receive.wait().unwrap().success());
    assert_eq!(machine_findings(&host, &[]), (Vec::new(), Some(0)));
}

fn mount_at(source: &Path, point: &Path, flags: MsFlags) {
    mount(Some(source), point, None::<&str>, flags, None::<&str>).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn harmful_mounts_and_quotas_are_reported() {
    let (host, _) = host();
    assert_eq!(volume_findings(&host), []);
    let mut quota = prepare("btrfs");
    quota.args(["quota", "enable"]).arg(host.mount.path());
    run(quota, Duration::from_mins(1)).unwrap();
    assert_eq!(volume_findings(&host), [Id::Quotas]);

    let linux = host.volume.path().join("linux");
    let (elsewhere, hidden) = (host.mount.directory("elsewhere"), linux.join("hidden"));
    mount_at(&linux.join("linux-1"), &elsewhere, MsFlags::MS_BIND);
    fs::create_dir(&hidden).unwrap();
    mount_at(&elsewhere, &hidden, MsFlags::MS_BIND);
    // Others may enter the volume, and the new mount lacks nosuid and nodev.
    fs::set_permissions(host.volume.path(), Permissions::from_mode(0o711)).unwrap();
    let remount = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount_at(Path::new("none"), host.mount.path(), remount);
    let expected = [
        Id::ReadOnlyVolume,
        Id::MountedOver,
        Id::Quotas,
        Id::OpenVolume,
        Id::UnprotectedMount,
    ];
    assert_eq!(volume_findings(&host), expected);
    for (attack, id) in [
        ("enter a volume", Id::OpenVolume),
        ("run a set-uid program of an image", Id::UnprotectedMount),
    ] {
        refused(
            "local user -> volume",
            attack,
            &format!("doctor reports {id}"),
        );
    }
    let machine = ["linux mounted-elsewhere", "linux stranger"].map(str::to_owned);
    assert_eq!(machine_findings(&host, &[]), (machine.to_vec(), Some(22)));
}

/// Returns the findings of the agent and of `machinectl`, without those about the volume.
fn host_findings(host: &AgentHost, arguments: &[&str]) -> Vec<Finding> {
    let answer = host.machinectl(&[&["doctor", "--json"], arguments].concat());
    let findings: Vec<Finding> = serde_json::from_str(&answer.stdout).unwrap();
    let others = findings.into_iter();
    others
        .filter(|it| !matches!(it.subject, Subject::Volume(_)))
        .collect()
}

fn ids(findings: &[Finding]) -> Vec<Id> {
    let mut ids: Vec<_> = findings.iter().map(|it| it.id).collect();
    ids.sort();
    ids
}

/// Creates the leftovers of a faulty agent, and returns a build that is recorded as running but
/// has no guest.
fn create_leftovers(host: &AgentHost) -> u64 {
    for tag in ["1000001", "b1000001", "lab"] {
        let mut add = prepare("ip");
        add.args(["netns", "add", &format!("{}-{tag}", host.name())]);
        run(add, Duration::from_mins(1)).unwrap();
    }
    fs::create_dir(host.run_directory().join("guests/1000002")).unwrap();
    let records = Connection::open(host.state_directory().join("records.sqlite3")).unwrap();
    let insert =
        "INSERT INTO builds (machine, toolchain, sources, state, attempts, submitted, task)
                  VALUES ('gone', 'default', '[]', 'running', 1, '2026-01-01T00:00:00Z', ?1)";
    records.execute(insert, ["c".repeat(64)]).unwrap();
    let id = u64::try_from(records.last_insert_rowid()).unwrap();
    for build in [id.to_string(), "1000003".to_owned()] {
        fs::create_dir(host.state_directory().join("builds").join(build)).unwrap();
    }
    for (name, days) in [("a".repeat(64), 2), ("b".repeat(64), 0)] {
        let path = host.state_directory().join("sources").join(name);
        tests::write_file(&path, "a source");
        let time = std::time::SystemTime::now() - Duration::from_hours(24 * days);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    id
}

/// Starts a process that looks like an orphaned guest.
fn start_orphan(host: &AgentHost) -> Child {
    let guest = prepare("sleep").arg("1000").spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", guest.id())).unwrap();
    let start_time = stat.split(' ').nth(21).unwrap();
    let run = host.run_directory().join("guests/1000004");
    fs::create_dir(&run).unwrap();
    let record = format!(
        r#"{{"version": 1, "pid": {}, "start_time": {start_time}, "cgroup": null}}"#,
        guest.id()
    );
    tests::write_file(&run.join("process.json"), &record);
    guest
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_agent_finds_and_repairs_its_own_leftovers() {
    let mut host = AgentHost::new("");
    host.start();
    assert_eq!(ids(&host_findings(&host, &[])), []);
    let build = create_leftovers(&host);
    let mut guest = start_orphan(&host);
    let before = host_findings(&host, &[]);
    let kept = [Id::Unmanaged, Id::DirectoryWithoutRecord];
    let mut expected = vec![
        Id::BuildWithoutGuest,
        Id::LeftoverGuest,
        Id::LeftoverDirectory,
        Id::LeftoverNetwork,
        Id::LeftoverNetwork,
        Id::UnusedSources,
    ];
    expected.extend(kept);
    expected.sort();
    assert_eq!(ids(&before), expected);
    let plan = host
        .machinectl(&["doctor", "--repair", "--dry-run"])
        .success()
        .stdout;
    assert_eq!(
        (plan.lines().count(), host_findings(&host, &[])),
        (6, before),
        "{plan}"
    );

    assert_eq!(ids(&host_findings(&host, &["--repair"])), kept);
    assert_eq!(guest.wait().unwrap().signal(), Some(9));
    assert_eq!(host.networks(), [format!("{}-lab", host.name())]);
    assert!(host.state_directory().join("builds/1000003").is_dir());
    assert!(
        host.state_directory()
            .join("sources")
            .join("b".repeat(64))
            .is_file()
    );
    let build = host.wait_for(build, State::Finished);
    assert_eq!(build.message, "machine gone was deleted");

    // The next agent deletes the leftovers of guests, and nothing that is unmanaged.
    let directory = |name: &str| host.run_directory().join("guests").join(name);
    let (leftover, unmanaged) = (directory("1000005"), directory("notes"));
    fs::create_dir(&leftover).unwrap();
    fs::create_dir(&unmanaged).unwrap();
    host.stop(Signal::USR2);
    host.start();
    assert_eq!((leftover.exists(), unmanaged.exists()), (false, true));
    assert_eq!(host.networks(), [format!("{}-lab", host.name())]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn running_bootstraps_and_builds_are_not_reported_as_leftovers() {
    let host = AgentHost::ready("");
    let (build, mut checks, mut findings) = (host.submit("demo", "hello"), 0, Vec::new());
    while host.build(build).state < State::Finished {
        findings.extend(host_findings(&host, &[]));
        checks += 1;
    }
    // A snapshot belongs to no guest for a moment before it is deleted.
    findings.retain(|it| !matches!(it.subject, Subject::Machine(_)));
    assert_eq!(findings, [], "in {checks} checks");
    println!("{checks} checks of a host that bootstraps and builds");
}
