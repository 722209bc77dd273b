//! What a guest may take of the host: a control group (version 2) of its own.
//!
//! The groups lie below `buildhost-guests` at the top of the tree and not in the
//! agent's own group: guests stay when the agent is restarted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use config::machine::Machine;

const GROUP: &str = "buildhost-guests";
/// Without these there is nothing to limit by.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const MIB: u64 = 1024 * 1024;
/// What QEMU needs besides the guest's memory, at the most.
const OVERHEAD: u64 = 768 * MIB;

/// Where the tree is, when it can limit.
pub(super) fn root() -> Option<PathBuf> {
    static WARNING: Once = Once::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let root = find(&mounts).filter(|root| {
        let there = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let there: Vec<_> = there.split_whitespace().collect();
        CONTROLLERS.iter().all(|wanted| there.contains(wanted))
    });
    if root.is_none() {
        WARNING.call_once(|| {
            tracing::warn!(
                "there is no cgroup v2 with cpu, memory and pids: guests are limited by QEMU only"
            );
        });
    }
    root
}

/// Finds the tree in the list of mounts.
fn find(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2) == Some(&"cgroup2"))?;
    line.get(1).map(PathBuf::from)
}

/// The files of a group and what is written to them.
fn limits(machine: &Machine) -> Vec<(&'static str, String)> {
    let memory = machine.memory_kib.get() * 1024;
    let cpus = u64::from(machine.cpus.get());
    vec![
        ("memory.max", (memory + memory / 8 + OVERHEAD).to_string()),
        // One more for what QEMU does beside the guest's processors.
        ("cpu.max", format!("{} 100000", (cpus + 1) * 100_000)),
        ("cpu.weight", "100".to_owned()),
        ("pids.max", (64 + 8 * cpus).to_string()),
    ]
}

/// Makes the group `name` below `root` with the limits of a machine, and moves
/// the process there. Returns the group.
pub(super) fn enter(root: &Path, name: &str, machine: &Machine, pid: u32) -> io::Result<PathBuf> {
    let all = root.join(GROUP);
    let group = all.join(name);
    fs::create_dir_all(&all)?;
    for group in [root, &all] {
        for controller in CONTROLLERS {
            write(
                &group.join("cgroup.subtree_control"),
                &format!("+{controller}"),
            )?;
        }
        // Few hosts can weigh their disks.
        let _ = write(&group.join("cgroup.subtree_control"), "+io");
    }
    fs::create_dir_all(&group)?;
    for (file, value) in limits(machine) {
        write(&group.join(file), &value)?;
    }
    let _ = write(&group.join("io.weight"), "100");
    write(&group.join("cgroup.procs"), &pid.to_string())?;
    Ok(group)
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// The groups of guests, whoever started them.
pub(crate) fn groups() -> Vec<PathBuf> {
    let groups = root().and_then(|root| store::file::entries(&root.join(GROUP)).ok());
    groups
        .into_iter()
        .flatten()
        .filter(|path| path.is_dir())
        .collect()
}

/// Takes a group away whose process has ended.
pub(super) fn leave(group: &Path) {
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, group = %group.display(), "cannot remove a guest's cgroup");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_found_wherever_it_is_mounted() {
        let hybrid =
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_group_gets_its_limits_before_its_process() {
        // A plain directory with the files that the kernel would make.
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join(GROUP).join("demo-42");
        fs::create_dir_all(&group).unwrap();
        let touch = |path: PathBuf| drop(File::create(path).unwrap());
        touch(root.path().join("cgroup.subtree_control"));
        touch(root.path().join(GROUP).join("cgroup.subtree_control"));
        for file in ["memory.max", "cpu.max", "cpu.weight", "pids.max"] {
            touch(group.join(file));
        }
        let machine = Machine::parse(": 1\nid: d\nsummary: d\ncpus: 2\n").unwrap();
        let enter = || enter(root.path(), "demo-42", &machine, 7);
        assert!(enter().is_err(), "a group that takes no process");
        touch(group.join("cgroup.procs"));
        assert_eq!(enter().unwrap(), group);
        let said = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(said("memory.max"), (576 * MIB + OVERHEAD).to_string());
        assert_eq!(said("cpu.max"), "300000 100000");
        assert_eq!(said("pids.max"), "80");
        assert_eq!(said("cgroup.procs"), "7");
    }
}
