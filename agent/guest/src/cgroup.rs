//! What a guest may take of the host: a control group (version 2) of its own.
//!
//! The groups lie below `buildhost-guests` at the top of the tree and not in the
//! agent's own group: guests stay when the agent is restarted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use config::machine::{Kind, Machine};

const GROUP: &str = "buildhost-guests";
/// Without these there is nothing to limit by.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const MIB: u64 = 1024 * 1024;
/// What QEMU needs besides the guest's memory, at the most.
const OVERHEAD: u64 = 768 * MIB;
/// How often, and after which pause, a group is tried to be removed.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(2);

/// How many processes a container may have.
pub(crate) const PROCESSES_MAX: u64 = 4096;

/// The tree of groups.
struct Tree {
    root: PathBuf,
    /// Whether it can limit anything.
    limits: bool,
}

fn tree() -> Option<Tree> {
    static WARNING: Once = Once::new();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let tree = find(&mounts).map(|root| {
        let there = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let there: Vec<_> = there.split_whitespace().collect();
        let limits = CONTROLLERS.iter().all(|wanted| there.contains(wanted));
        Tree { root, limits }
    });
    if tree.as_ref().is_none_or(|tree| !tree.limits) {
        WARNING.call_once(|| {
            tracing::warn!(
                "there is no cgroup v2 with cpu, memory and pids: virtual machines are limited \
                 by QEMU only, and containers may take all memory and processors"
            );
        });
    }
    tree
}

/// Moves the process of a guest into a group of its own with the limits of its
/// machine. Returns the group; none where there is nothing to be had from it.
pub(crate) fn enter(name: &str, machine: &Machine, pid: u32) -> io::Result<Option<PathBuf>> {
    match tree() {
        Some(Tree { root, limits: true }) => {
            let group = limited(&root, name, machine)?;
            write(&group.join("cgroup.procs"), &pid.to_string())?;
            Ok(Some(group))
        }
        // A container sees the tree from its own group on.
        Some(tree) if machine.kind == Kind::Nspawn => {
            let group = tree.root.join(GROUP).join(name);
            fs::create_dir_all(&group)?;
            write(&group.join("cgroup.procs"), &pid.to_string())?;
            Ok(Some(group))
        }
        _ => Ok(None),
    }
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
    let (memory, cpus, processes) = match machine.kind {
        // One more for what QEMU does beside the guest's processors.
        Kind::Kvm => (memory + memory / 8 + OVERHEAD, cpus + 1, 64 + 8 * cpus),
        Kind::Nspawn => (memory, cpus, PROCESSES_MAX),
    };
    vec![
        ("memory.max", memory.to_string()),
        ("cpu.max", format!("{} 100000", cpus * 100_000)),
        ("cpu.weight", "100".to_owned()),
        ("pids.max", processes.to_string()),
    ]
}

/// Makes the group `name` below `root` with the limits of a machine.
fn limited(root: &Path, name: &str, machine: &Machine) -> io::Result<PathBuf> {
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
    Ok(group)
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// The groups of guests, whoever started them.
pub fn groups() -> Vec<PathBuf> {
    let groups = tree().and_then(|tree| sys::file::entries(&tree.root.join(GROUP)).ok());
    groups
        .into_iter()
        .flatten()
        .filter(|path| path.is_dir())
        .collect()
}

/// Takes a group away whose process has ended, with what it has left in it.
pub(crate) fn leave(group: &Path) {
    let _ = write(&group.join("cgroup.kill"), "1");
    let mut removed = remove(group);
    // What was killed is gone in a moment.
    for _ in 0..TRIES {
        if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::ResourceBusy) {
            break;
        }
        std::thread::sleep(PAUSE);
        removed = remove(group);
    }
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, group = %group.display(), "cannot remove a guest's cgroup");
        }
        _ => {}
    }
}

/// Removes a group and those that nspawn has made in it.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
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
        assert_eq!(limited(root.path(), "demo-42", &machine).unwrap(), group);
        let said = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(said("memory.max"), (576 * MIB + OVERHEAD).to_string());
        assert_eq!(said("cpu.max"), "300000 100000");
        assert_eq!(said("pids.max"), "80");
    }

    #[test]
    fn a_container_has_what_its_machine_says_and_no_more() {
        let text = ": 1\nid: d\nsummary: d\ncpus: 2\ntype: nspawn\n";
        let limits = limits(&Machine::parse(text).unwrap());
        let values: Vec<_> = limits.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["536870912", "200000 100000", "100", "4096"]);
    }

    #[test]
    fn a_group_goes_with_those_in_it() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("demo-42");
        fs::create_dir_all(group.join("payload/deeper")).unwrap();
        leave(&group);
        assert!(!group.exists());
        leave(&group);
    }
}
