//! The resource limits of a guest: a control group (version 2) of its own.
//!
//! The groups lie below `buildhost-guests` at the root of the hierarchy and not in the
//! agent's own group, so that guests survive a restart of the agent. On a host with
//! systemd-machined each lies in a scope of systemd.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use config::MIB;
use config::machine::{Kind, Machine};

const GROUP: &str = "buildhost-guests";
/// The name of a guest's group in its scope.
const GROUP_IN_SCOPE: &str = "guest";
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

/// The place of a guest's process.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    /// Its group; `None` on a host that cannot limit the guest.
    pub(crate) group: Option<PathBuf>,
    /// The unit of its scope, on a host with machined.
    pub(crate) scope: Option<String>,
}

/// Moves the process of a guest into a group of its own with the limits of its machine, and into a
/// scope if the host has machined.
pub(crate) fn enter(name: &str, machine: &Machine, pid: u32) -> io::Result<Entered> {
    let scope = machined::scope::start(name, pid);
    let group = match hierarchy() {
        Some(Hierarchy { root, limits }) if limits || machine.kind == Kind::Nspawn => {
            let in_scope = scope.as_ref().and_then(|scope| scope.path.as_ref());
            let place = Place::of(&root, in_scope.map(PathBuf::as_path), name);
            place.create_and_enter(pid)?;
            // Without limits: a container sees the hierarchy from its own group on.
            if limits {
                place.limit(machine)?;
            }
            Some(place.group)
        }
        _ => None,
    };
    let scope = scope.map(|scope| scope.unit);
    Ok(Entered { group, scope })
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

/// The place of a guest's group in the hierarchy.
#[derive(Debug)]
struct Place {
    /// The groups above that pass the controllers on, from the top.
    ancestors: Vec<PathBuf>,
    group: PathBuf,
}

impl Place {
    /// Returns the place of the group `name`. `scope` is the path of the guest's scope below `root`.
    fn of(root: &Path, scope: Option<&Path>, name: &str) -> Self {
        if let Some(scope) = scope {
            // systemd passes the controllers on to the scope.
            let scope = root.join(scope);
            Self {
                group: scope.join(GROUP_IN_SCOPE),
                ancestors: vec![scope],
            }
        } else {
            let parent = root.join(GROUP);
            Self {
                group: parent.join(name),
                ancestors: vec![root.to_owned(), parent],
            }
        }
    }

    /// Creates the group and moves a process into it. A scope can pass controllers on only when no
    /// process is left in it itself.
    fn create_and_enter(&self, pid: u32) -> io::Result<()> {
        if let Some(parent) = self.group.parent() {
            create_open(parent)?;
        }
        create_open(&self.group)?;
        write(&self.group.join("cgroup.procs"), &pid.to_string())
    }

    /// Sets the limits of a machine.
    fn limit(&self, machine: &Machine) -> io::Result<()> {
        for ancestor in &self.ancestors {
            let control = ancestor.join("cgroup.subtree_control");
            for controller in CONTROLLERS {
                write(&control, &format!("+{controller}"))?;
            }
            // Few hosts can weight the I/O of their disks.
            let _ = write(&control, "+io");
        }
        for (file, value) in limits(machine) {
            write(&self.group.join(file), &value)?;
        }
        let _ = write(&self.group.join("io.weight"), "100");
        Ok(())
    }
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

/// Returns true if the kernel has killed a process in a group for want of memory. systemd may have
/// removed the group with its `scope`, and knows it then.
pub(crate) fn ran_out_of_memory(group: &Path, scope: Option<&str>) -> bool {
    match (sys::trusted::read_text(group.join("memory.events")), scope) {
        (Ok(events), _) => counts_kills(&events),
        (Err(_), Some(unit)) if !group.exists() => machined::scope::ran_out_of_memory(unit),
        (Err(_), _) => false,
    }
}

fn counts_kills(events: &str) -> bool {
    let mut lines = events.lines();
    let kills = lines.find_map(|line| line.strip_prefix("oom_kill "));
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

    /// Makes plain directories with the files that the kernel would create.
    fn limited(root: &Path, scope: Option<&Path>, machine: &Machine) -> Place {
        let place = Place::of(root, scope, "demo-42");
        fs::create_dir_all(&place.group).unwrap();
        let touch = |path: PathBuf| drop(File::create(path).unwrap());
        for ancestor in &place.ancestors {
            touch(ancestor.join("cgroup.subtree_control"));
        }
        for file in [
            "cgroup.procs",
            "memory.max",
            "cpu.max",
            "cpu.weight",
            "pids.max",
        ] {
            touch(place.group.join(file));
        }
        place.create_and_enter(7).unwrap();
        place.limit(machine).unwrap();
        place
    }

    #[test]
    fn a_group_is_created_with_the_limits_of_its_machine() {
        let machine = Machine::parse(": 1\nid: d\nsummary: d\ncpus: 2\n").unwrap();
        let scope = Path::new("machine.slice/demo-42-7.scope");
        for (scope, expected) in [
            (None, "buildhost-guests/demo-42"),
            (Some(scope), "machine.slice/demo-42-7.scope/guest"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let place = limited(root.path(), scope, &machine);
            assert_eq!(place.group, root.path().join(expected));
            let value = |file: &str| fs::read_to_string(place.group.join(file)).unwrap();
            assert_eq!(value("cgroup.procs"), "7");
            assert_eq!(value("memory.max"), (576 * MIB + OVERHEAD).to_string());
            assert_eq!(value("cpu.max"), "300000 100000");
            assert_eq!(value("pids.max"), "80");
        }
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
        assert!(!ran_out_of_memory(group.path(), Some("a.scope")));
        for (kills, expected) in [(0, false), (2, true)] {
            let events =
                format!("low 0\nhigh 0\nmax 9\noom 1\noom_kill {kills}\noom_group_kill 0\n");
            sys::file::replace(&group.path().join("memory.events"), events.as_bytes()).unwrap();
            assert_eq!(ran_out_of_memory(group.path(), None), expected);
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
