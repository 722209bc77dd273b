//! The resource limits of a guest: a control group (version 2) of its own.
//!
//! The groups lie below `buildhost-guests` at the root of the hierarchy and not in the
//! agent's own group, so that guests survive a restart of the agent.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use config::MIB;
use config::machine::{Kind, Machine};

const GROUP: &str = "buildhost-guests";
/// The controllers without which no limit can be set.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The memory that QEMU needs at most besides the guest's.
const OVERHEAD: u64 = 768 * MIB;
/// The number of attempts to remove a group, and the pause between them.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(2);

/// The number of processes that a container may have.
pub(crate) const PROCESSES_MAX: u64 = 4096;

/// The hierarchy of control groups.
struct Hierarchy {
    root: PathBuf,
    /// Set if it has all [`CONTROLLERS`].
    limits: bool,
}

fn hierarchy() -> Option<Hierarchy> {
    static WARNING: Once = Once::new();
    let mounts = sys::trusted::read_text("/proc/self/mounts").unwrap_or_default();
    let hierarchy = mount_point(&mounts).map(|root| {
        let available =
            sys::trusted::read_text(root.join("cgroup.controllers")).unwrap_or_default();
        let available: Vec<_> = available.split_whitespace().collect();
        let limits = CONTROLLERS.iter().all(|name| available.contains(name));
        Hierarchy { root, limits }
    });
    if hierarchy.as_ref().is_none_or(|found| !found.limits) {
        WARNING.call_once(|| {
            tracing::warn!(
                "there is no cgroup v2 with cpu, memory and pids: virtual machines are limited \
                 by QEMU only, and containers may take all memory and processors"
            );
        });
    }
    hierarchy
}

/// Moves the process of a guest into a group of its own with the limits of its machine.
/// Returns the group, or `None` on a host that cannot limit the guest.
pub(crate) fn enter(name: &str, machine: &Machine, pid: u32) -> io::Result<Option<PathBuf>> {
    let group = match hierarchy() {
        Some(Hierarchy { root, limits: true }) => create(&root, name, machine)?,
        // A container sees the hierarchy from its own group on.
        Some(Hierarchy { root, .. }) if machine.kind == Kind::Nspawn => {
            let group = root.join(GROUP).join(name);
            create_open(&group)?;
            group
        }
        _ => return Ok(None),
    };
    write(&group.join("cgroup.procs"), &pid.to_string())?;
    Ok(Some(group))
}

/// Finds the hierarchy in the list of mounts.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2) == Some(&"cgroup2"))?;
    line.get(1).map(PathBuf::from)
}

/// Returns the files of a machine's group and the limits to write to them.
fn limits(machine: &Machine) -> Vec<(&'static str, String)> {
    let memory = machine.memory_kib.get() * 1024;
    let cpus = u64::from(machine.cpus.get());
    let (memory, cpus, processes) = match machine.kind {
        // One processor more for QEMU's own work.
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

/// Creates a group that the users of a container may enter, whatever the agent's umask.
fn create_open(group: &Path) -> io::Result<()> {
    fs::create_dir_all(group)?;
    fs::set_permissions(group, Permissions::from_mode(0o755))
}

/// Creates the group `name` below `root` with the limits of a machine.
fn create(root: &Path, name: &str, machine: &Machine) -> io::Result<PathBuf> {
    let parent = root.join(GROUP);
    let group = parent.join(name);
    create_open(&parent)?;
    for ancestor in [root, &parent] {
        let control = ancestor.join("cgroup.subtree_control");
        for controller in CONTROLLERS {
            write(&control, &format!("+{controller}"))?;
        }
        // Few hosts can weight the I/O of their disks.
        let _ = write(&control, "+io");
    }
    create_open(&group)?;
    for (file, value) in limits(machine) {
        write(&group.join(file), &value)?;
    }
    let _ = write(&group.join("io.weight"), "100");
    Ok(group)
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = sys::trusted::open_for_writing(path)?;
    file.write_all(value.as_bytes())
}

/// Returns the groups of all guests on the host, of any agent.
pub fn groups() -> Vec<PathBuf> {
    let groups = hierarchy().and_then(|it| sys::file::entries(&it.root.join(GROUP)).ok());
    groups
        .into_iter()
        .flatten()
        .filter(|path| path.is_dir())
        .collect()
}

/// Returns true if the kernel has killed a process in a group for want of memory.
pub(crate) fn ran_out_of_memory(group: &Path) -> bool {
    let events = sys::trusted::read_text(group.join("memory.events")).unwrap_or_default();
    let kills = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    kills.is_some_and(|count| count != "0")
}

/// Removes the group of a process that has ended, with all that is left in it.
pub(crate) fn remove(group: &Path) {
    let _ = write(&group.join("cgroup.kill"), "1");
    let mut removed = remove_tree(group);
    // The group is busy until the kernel has ended the killed processes.
    for _ in 0..TRIES {
        if !matches!(&removed, Err(error) if error.kind() == io::ErrorKind::ResourceBusy) {
            break;
        }
        std::thread::sleep(PAUSE);
        removed = remove_tree(group);
    }
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, group = %group.display(), "cannot remove a guest's cgroup");
        }
        _ => {}
    }
}

/// Removes a group and the groups that nspawn has created in it.
fn remove_tree(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_hierarchy_is_found_at_any_mount_point() {
        let hybrid =
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_group_is_created_with_the_limits_of_its_machine() {
        // A plain directory with the files that the kernel would create.
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
        assert_eq!(create(root.path(), "demo-42", &machine).unwrap(), group);
        let limit = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(limit("memory.max"), (576 * MIB + OVERHEAD).to_string());
        assert_eq!(limit("cpu.max"), "300000 100000");
        assert_eq!(limit("pids.max"), "80");
    }

    #[test]
    fn a_container_is_limited_to_the_resources_of_its_machine() {
        let text = ": 1\nid: d\nsummary: d\ncpus: 2\ntype: nspawn\n";
        let limits = limits(&Machine::parse(text).unwrap());
        let values: Vec<_> = limits.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["536870912", "200000 100000", "100", "4096"]);
    }

    #[test]
    fn kills_for_want_of_memory_are_counted_by_the_kernel() {
        let group = tempfile::tempdir().unwrap();
        assert!(!ran_out_of_memory(group.path()));
        for (kills, expected) in [(0, false), (2, true)] {
            let events =
                format!("low 0\nhigh 0\nmax 9\noom 1\noom_kill {kills}\noom_group_kill 0\n");
            sys::file::replace(&group.path().join("memory.events"), events.as_bytes()).unwrap();
            assert_eq!(ran_out_of_memory(group.path()), expected);
        }
    }

    #[test]
    fn a_group_is_removed_with_its_children() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("demo-42");
        fs::create_dir_all(group.join("payload/deeper")).unwrap();
        remove(&group);
        assert!(!group.exists());
        remove(&group);
    }
}
