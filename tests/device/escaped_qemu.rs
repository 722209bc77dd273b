//! A guest that breaks out of QEMU has the rights of QEMU's process. They reach no other guest,
//! no file of the host's machines and no state of the agent.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ::sys::{command, file};
use config::builds::State;
use rustix::process::{Pid, Signal};
use tests::agent::{AgentHost, GATED_PROGRAM};
use tests::attacks::refused;
use tests::hosts::run;

use crate::guest_failures::guest_process;

/// Returns the numbers of a line in `/proc/PID/status`.
fn numbers(pid: Pid, name: &str) -> Vec<u32> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.unwrap().split_whitespace();
    words.map(|word| word.parse().unwrap()).collect()
}

/// Returns the user of a guest's QEMU, which has no rights beside.
fn user(guest: Pid) -> u32 {
    let uids = numbers(guest, "Uid:");
    let uid = uids[0];
    assert!((1_900_000_000..=1_900_065_535).contains(&uid), "{uids:?}");
    assert_eq!(uids, [uid; 4]);
    let gids = numbers(guest, "Gid:");
    assert!(!gids.contains(&0), "{gids:?}");
    assert_eq!(numbers(guest, "Groups:"), Vec::<u32>::new());
    uid
}

/// Runs a script with the rights of an escaped QEMU, and returns true if it succeeds.
fn succeeds_as(uid: u32, script: &str) -> bool {
    let mut command = command::prepare("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    command.args(["--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
    command.args(["sh", "-c", script]);
    run(command, b"").code == Some(0)
}

fn read(path: &Path) -> String {
    format!("head -c 1 {} >/dev/null", path.display())
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_escaped_qemu_reaches_no_other_guest() {
    let mut host = AgentHost::ready("guests.cpu_percent = 1000\n");
    let ids = [
        host.submit_stopped("demo", "a"),
        host.submit_stopped("demo", "b"),
    ];
    for id in ids {
        host.wait_for_breakpoint(id);
    }
    let [first, second] = ids.map(|id| guest_process(&host, id));
    let (user_of_first, user_of_second) = (user(first), user(second));
    assert_ne!(user_of_first, user_of_second);
    let pid = second.as_raw_nonzero();
    let machine = host.host.volume.path().join("demo");
    let snapshot = machine.join(format!("demo-default-{}", ids[1]));
    let image = machine.join("demo-default");
    let mut attacks = vec![
        format!("kill -0 {pid}"),
        format!("head -c 1 /proc/{pid}/mem >/dev/null"),
        format!("ls /proc/{pid}/fd/"),
        format!("head -c 1 /proc/{pid}/fd/7"),
        read(&host.state_directory().join("records.sqlite3")),
        read(&host.run_directory().join("lock")),
        read(&snapshot.join("frozen.memory")),
    ];
    for directory in [&snapshot, &image] {
        for name in ["disk.img", "frozen.memory", "frozen.disk", "manifest"] {
            let path = directory.join(name);
            if path.exists() {
                attacks.push(read(&path));
                attacks.push(format!(": >>{}", path.display()));
            }
        }
    }
    for attack in &attacks {
        assert!(!succeeds_as(user_of_first, attack), "{attack}");
    }
    for (attack, by) in [
        ("signal another guest", "a user of its own"),
        ("read the memory of another guest", "a user of its own"),
        ("read the state of the agent", "modes of directories"),
        (
            "read or write another guest's files",
            "modes and owners of files",
        ),
        ("use group 0 of a device", "group 0 is not given"),
    ] {
        refused("escaped QEMU -> host", attack, by);
    }
    // The attacks are possible at all.
    assert!(succeeds_as(user_of_second, &attacks[0]));
    assert!(attacks.iter().skip(4).any(|attack| succeeds_as(0, attack)));
    adopted_guests_keep_their_users(&mut host, &ids, [user_of_first, user_of_second]);
}

/// Checks that only root may open anything in a directory.
fn assert_closed(directory: &Path) {
    for path in [directory.to_owned()]
        .into_iter()
        .chain(file::entries(directory).unwrap())
    {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{} has {mode:o}", path.display());
        if metadata.is_dir() && path != directory {
            assert_closed(&path);
        }
    }
}

/// Restarts the agent while guests run, and starts another one.
fn adopted_guests_keep_their_users(host: &mut AgentHost, ids: &[u64; 2], users: [u32; 2]) {
    host.stop(Signal::USR2);
    // As an older version left it.
    let records = host.state_directory().join("records.sqlite3");
    for (path, mode) in [(records, 0o644), (host.state_directory(), 0o755)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    host.start();
    let third = host.submit_stopped("demo", "c");
    host.wait_for_breakpoint(third);
    assert_eq!(ids.map(|id| user(guest_process(host, id))), users);
    assert!(!users.contains(&user(guest_process(host, third))));
    for id in ids.iter().chain([&third]) {
        host.resume(*id);
        host.wait_for(*id, State::Finished);
    }
    for directory in [host.state_directory(), host.run_directory()] {
        assert_closed(&directory);
    }
    refused(
        "local user -> state",
        "open any file",
        "modes of all directories and files",
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_gets_no_descriptor_that_the_agent_inherited() {
    let stray = tempfile::NamedTempFile::new().unwrap();
    // Copies of standard streams stay open in child processes, as a careless parent leaves them.
    let inherited = rustix::io::fcntl_dupfd_cloexec(&stray, 100).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let mut host = AgentHost::new("");
    host.add("demo", |_| {});
    host.add_container("container", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let machine = host.submit_stopped("demo", "a");
    let container = host.submit_code("container", GATED_PROGRAM);
    host.wait_for_breakpoint(machine);
    host.wait_for_gate(container);
    assert!(has_open(host.pid(), stray.path()));
    for id in [machine, container] {
        assert!(!has_open(guest_process(&host, id), stray.path()), "{id}");
    }
    refused(
        "guest -> host",
        "use a descriptor of the agent's parent",
        "close_range",
    );
    host.resume(machine);
    host.open_gate("container", container);
    for id in [machine, container] {
        host.wait_for(id, State::Finished);
    }
    host.wait_until_torn_down();
}

/// Returns true if a process, or a child of it, has a file open.
fn has_open(process: Pid, file: &Path) -> bool {
    let pid = process.as_raw_nonzero();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut links = descriptors.filter_map(|it| fs::read_link(it.unwrap().path()).ok());
    links.any(|link| link == file)
}

/// Returns the names in a directory of the view of a process.
fn seen(process: Pid, directory: &str) -> Vec<String> {
    let root = format!("/proc/{}/root{directory}", process.as_raw_nonzero());
    let entries = file::entries(Path::new(&root)).unwrap();
    let names = entries.iter().map(|path| path.file_name().unwrap());
    names.map(|it| it.to_str().unwrap().to_owned()).collect()
}

/// Returns the mount points and their options that a process sees.
fn mounts(process: Pid) -> Vec<(String, String)> {
    let path = format!("/proc/{}/mountinfo", process.as_raw_nonzero());
    let table = fs::read_to_string(path).unwrap();
    let columns = table.lines().map(|line| line.split(' '));
    let mount =
        columns.map(|mut it| (it.nth(4).unwrap().to_owned(), it.next().unwrap().to_owned()));
    // Those of networks are the agent's.
    mount
        .filter(|(point, _)| !point.starts_with("/run/netns/"))
        .collect()
}

/// Checks that a process can neither change its view nor gain rights.
fn assert_harmless(guest: Pid) {
    for (point, options) in mounts(guest) {
        let options: Vec<_> = options.split(',').collect();
        let is_writable = point == "/memory" || point.starts_with("/dev/");
        assert!(options.contains(&"nosuid"), "{point} {options:?}");
        assert!(
            is_writable || options.contains(&"ro"),
            "{point} {options:?}"
        );
        let is_device = point.starts_with("/dev/");
        assert!(
            is_device || options.contains(&"nodev"),
            "{point} {options:?}"
        );
    }
    assert_eq!(numbers(guest, "NoNewPrivs:"), [1]);
    let path = format!("/proc/{}/status", guest.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{status}"
        );
    }
    let environment = fs::read(format!("/proc/{}/environ", guest.as_raw_nonzero())).unwrap();
    assert_eq!(environment, b"LC_ALL=C\0");
}

/// Checks that a guest's QEMU sees neither files nor programs of the host.
fn assert_unseen(host: &AgentHost, guest: Pid) {
    let root = format!("/proc/{}/root", guest.as_raw_nonzero());
    let own = [
        ("the volume", host.host.volume.path().to_owned()),
        ("the state directory", host.state_directory()),
        ("the run directory", host.run_directory()),
    ];
    let common = [
        "/etc",
        "/root",
        "/home",
        "/tmp",
        "/var",
        "/run",
        "/proc/self",
        "/sys",
        "/bin/sh",
        "/usr/bin/sh",
        "/usr/bin/su",
    ];
    for (name, path) in common
        .map(|path| (path, path.into()))
        .into_iter()
        .chain(own)
    {
        assert!(path.exists(), "{name}");
        let seen = Path::new(&root).join(path.strip_prefix("/").unwrap());
        assert!(!seen.exists(), "{name}");
        refused("escaped QEMU -> host", name, "it is not in QEMU's view");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_escaped_qemu_sees_only_its_own_files() {
    let host = AgentHost::ready("");
    let before = mounts(host.pid());
    let id = host.submit_stopped("demo", "a");
    host.wait_for_breakpoint(id);
    let guest = guest_process(&host, id);
    let accepted = [
        "dev", "gnu", "initrd", "kernel", "lib", "lib64", "memory", "nix", "usr",
    ];
    let top = seen(guest, "/");
    assert!(
        top.iter().all(|name| accepted.contains(&name.as_str())),
        "{top:?}"
    );
    let devices = ["kvm", "null", "urandom"];
    let found = seen(guest, "/dev");
    assert!(
        found.iter().all(|name| devices.contains(&name.as_str())),
        "{found:?}"
    );
    assert_eq!(seen(guest, "/usr/bin"), ["qemu-system-x86_64"]);
    assert_harmless(guest);
    assert_unseen(&host, guest);
    // Nothing of the view is mounted on the host.
    assert_eq!(mounts(host.pid()), before);
    host.resume(id);
    host.wait_for(id, State::Finished);
    host.wait_until_torn_down();
}
