//! The resources of the host that an agent and its guests use. The guests' resources must be
//! released when they end.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use guest::network::Network;
use rustix::process::Pid;

use crate::agent::AgentHost;
use crate::wait_until;

/// The growth of an idle agent's memory that is tolerated.
const GROWTH_KIB_MAX: usize = 32 << 10;
/// The additional open files of an idle agent that are tolerated: connections that its clients have
/// just closed.
const MORE_FILES_MAX: usize = 4;

/// The number of resources in use by an agent and its guests, by name.
#[derive(Debug, Clone)]
pub struct Footprint {
    /// The resources of guests, none of which may outlive them.
    guests: [(&'static str, usize); 8],
    /// The resources of the agent itself.
    agent: [(&'static str, usize); 5],
}

impl Footprint {
    /// Counts the resources that are in use now.
    pub fn of(host: &AgentHost) -> Self {
        let process = PathBuf::from(format!("/proc/{}", host.pid().as_raw_nonzero()));
        let tasks = list(&process.join("task"));
        let children = tasks.iter().map(|task| text(&task.join("children")));
        let children = children.map(|text| text.split_whitespace().count()).sum();
        let networks = host.networks();
        Self {
            guests: [
                ("snapshots", host.snapshots().len()),
                (
                    "interfaces",
                    networks.iter().map(|name| interfaces(name)).sum(),
                ),
                ("namespaces", networks.len()),
                (
                    "mounts of namespaces",
                    mounts(&process, &format!("/run/netns/{}-", host.name())),
                ),
                ("processes", host.guests().len()),
                ("children, dead or alive", children),
                ("cgroups", cgroups(host.name())),
                (
                    "run directories",
                    list(&host.run_directory().join("guests")).len(),
                ),
            ],
            agent: [
                ("loop devices", loop_devices()),
                ("mounts", mounts(&process, &test_prefix())),
                ("open files", list(&process.join("fd")).len()),
                ("threads", tasks.len()),
                ("memory in KiB", memory_kib(&process)),
            ],
        }
    }

    /// Checks that no resource of a guest is left, and that the agent uses as much as before.
    pub fn assert_no_leak(&self, before: &Self) {
        let table = Difference(before, self);
        assert!(self.guests.iter().all(|(_, count)| *count == 0), "{table}");
        let [loops, mounts, files, _, memory] = self.agent.map(|(_, count)| count);
        let [loops_before, mounts_before, files_before, _, memory_before] =
            before.agent.map(|(_, count)| count);
        assert_eq!((loops, mounts), (loops_before, mounts_before), "{table}");
        assert!(files <= files_before + MORE_FILES_MAX, "{table}");
        assert!(memory <= memory_before + GROWTH_KIB_MAX, "{table}");
    }
}

/// Two footprints side by side, shown as a table.
#[derive(Debug)]
pub struct Difference<'f>(pub &'f Footprint, pub &'f Footprint);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:24} {:>8} {:>8}", "resource", "before", "after")?;
        let before = self.0.guests.iter().chain(&self.0.agent);
        let after = self.1.guests.iter().chain(&self.1.agent);
        for ((resource, before), (_, after)) in before.zip(after) {
            writeln!(f, "{resource:24} {before:>8} {after:>8}")?;
        }
        Ok(())
    }
}

impl AgentHost {
    /// Returns the names of the guests' networks.
    pub fn networks(&self) -> Vec<String> {
        let names = names(Path::new("/run/netns"));
        let prefix = format!("{}-", self.name());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Returns the tags of all snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        let volume = &self.host.volume;
        let machines = volume.machines().unwrap_or_default().into_iter();
        let views = machines.filter_map(|machine| volume.view(&machine).ok());
        let snapshots = views.flat_map(|view| view.snapshots);
        snapshots.map(|it| it.tag.to_string()).collect()
    }

    /// Returns the processes of guests.
    pub fn guests(&self) -> Vec<Pid> {
        let pids = self.guest_processes().into_iter();
        pids.filter_map(|(pid, _)| Pid::from_raw(pid)).collect()
    }

    /// Returns the processes of guests and their tags, both found by the guests' names in the
    /// command lines.
    fn guest_processes(&self) -> Vec<(i32, String)> {
        let prefix = format!("{}-", self.name());
        let guest_of = |pid: String| {
            let pid = pid.parse::<i32>().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            let is_guest = ["qemu-system-x86_64", "unshare"].contains(&program);
            let (_, name) = line.split_once(&prefix).filter(|_| is_guest)?;
            let tag = name.chars().take_while(char::is_ascii_alphanumeric);
            Some((pid, tag.collect()))
        };
        names(Path::new("/proc")).filter_map(guest_of).collect()
    }

    /// Returns the tags of guests that use any resource: a snapshot, a network, a process or a run
    /// directory.
    pub fn guest_tags(&self) -> BTreeSet<String> {
        let prefix = format!("{}-", self.name());
        let networks = self.networks().into_iter();
        let networks = networks.filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned()));
        let processes = self.guest_processes().into_iter().map(|(_, tag)| tag);
        let directories = names(&self.run_directory().join("guests"));
        let tags = networks.chain(processes).chain(directories);
        tags.chain(self.snapshots()).collect()
    }

    /// Checks that no guest uses any resource.
    pub fn assert_torn_down(&self) {
        assert_eq!(self.guest_tags(), BTreeSet::new());
    }

    /// Waits until no guest uses any resource.
    pub fn wait_until_torn_down(&self) {
        wait_until("all guests are torn down", || self.guest_tags().is_empty());
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns the entries of a directory, or none if it does not exist.
fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let paths = list(directory).into_iter();
    paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
}

/// Counts the interfaces of a network, without the loopback interface.
fn interfaces(network: &str) -> usize {
    let Ok(network) = Network::open(network) else {
        return 0;
    };
    let table = network.enter(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.unwrap_or_default();
    table.lines().skip(2).count().saturating_sub(1)
}

/// Counts the control groups of guests, in the unified hierarchy or in the hybrid one.
fn cgroups(host: &str) -> usize {
    let prefix = format!("{host}-");
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let groups = hierarchies
        .into_iter()
        .flat_map(|hierarchy| names(&hierarchy.join("buildhost-guests")));
    groups.filter(|name| name.starts_with(&prefix)).count()
}

/// Counts the loop devices whose backing file belongs to this test.
fn loop_devices() -> usize {
    let devices = list(Path::new("/sys/block")).into_iter();
    let files = devices.map(|device| text(&device.join("loop/backing_file")));
    files.filter(|file| file.contains(&test_prefix())).count()
}

/// Counts the mounts that a process sees whose paths contain the given text, which only this test
/// has: other tests mount and unmount meanwhile.
fn mounts(process: &Path, own: &str) -> usize {
    let table = text(&process.join("mountinfo"));
    table.lines().filter(|line| line.contains(own)).count()
}

/// Returns the prefix of the names of this test's directories.
fn test_prefix() -> String {
    format!("buildhost-test-{}-", std::process::id())
}

/// Returns the resident memory of a process.
fn memory_kib(process: &Path) -> usize {
    let status = text(&process.join("status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}
