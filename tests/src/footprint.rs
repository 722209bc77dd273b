//! What an agent and its guests take of the host: all of it must be gone when they are.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use guest::network::Network;
use rustix::process::Pid;

use crate::agent::AgentHost;

/// How much an idle agent may grow, in KiB, and how many more files it may have open:
/// connections that its clients have just closed.
const GROWTH_MAX: usize = 32 << 10;
const MORE_FILES_MAX: usize = 4;

/// What there is of an agent, besides what it stores, and of its guests.
#[derive(Debug, Clone)]
pub struct Footprint {
    /// What goes with the last guest.
    guests: [(&'static str, usize); 7],
    /// What an agent has for itself.
    agent: [(&'static str, usize); 5],
}

impl Footprint {
    /// What there is now.
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
                ("processes", host.guests().len()),
                ("children, dead or alive", children),
                ("cgroups", groups(host.name())),
                ("run directories", list(&host.run().join("guests")).len()),
            ],
            agent: [
                ("loop devices", loops()),
                ("mounts", mounts(host, &process)),
                ("open files", list(&process.join("fd")).len()),
                ("threads", tasks.len()),
                ("memory in KiB", memory(&process)),
            ],
        }
    }

    /// Checks that guests have left nothing, and that the agent takes what it took
    /// `before`.
    ///
    /// # Panics
    /// When it is not so.
    pub fn assert_no_leak(&self, before: &Self) {
        let told = Difference(before, self);
        assert!(self.guests.iter().all(|(_, count)| *count == 0), "{told}");
        let [loops, mounts, files, _, memory] = self.agent.map(|(_, count)| count);
        let [loops_before, mounts_before, files_before, _, memory_before] =
            before.agent.map(|(_, count)| count);
        assert_eq!((loops, mounts), (loops_before, mounts_before), "{told}");
        assert!(files <= files_before + MORE_FILES_MAX, "{told}");
        assert!(memory <= memory_before + GROWTH_MAX, "{told}");
    }
}

/// Two footprints side by side, as a table.
#[derive(Debug)]
pub struct Difference<'f>(pub &'f Footprint, pub &'f Footprint);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:24} {:>8} {:>8}", "left", "before", "after")?;
        let before = self.0.guests.iter().chain(&self.0.agent);
        let after = self.1.guests.iter().chain(&self.1.agent);
        for ((what, before), (_, after)) in before.zip(after) {
            writeln!(f, "{what:24} {before:>8} {after:>8}")?;
        }
        Ok(())
    }
}

impl AgentHost {
    /// The networks of guests that are there.
    pub fn networks(&self) -> Vec<String> {
        let names = names(Path::new("/run/netns"));
        let prefix = format!("{}-", self.name());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// The tags of the snapshots that are there.
    pub fn snapshots(&self) -> Vec<String> {
        let volume = &self.host.volume;
        let machines = volume.machines().unwrap_or_default().into_iter();
        let views = machines.filter_map(|machine| volume.look(&machine).ok());
        let snapshots = views.flat_map(|view| view.snapshots);
        snapshots.map(|it| it.tag.to_string()).collect()
    }

    /// The processes of guests, known by the name that the agent gives them.
    pub fn guests(&self) -> Vec<Pid> {
        let pids = self.guest_processes().into_iter();
        pids.filter_map(|(pid, _)| Pid::from_raw(pid)).collect()
    }

    /// The processes of guests and the tag that is in the name of each.
    fn guest_processes(&self) -> Vec<(i32, String)> {
        let prefix = format!("{}-", self.name());
        let ours = |pid: String| {
            let pid = pid.parse::<i32>().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            let is_guest = ["qemu-system-x86_64", "unshare"].contains(&program);
            let (_, name) = line.split_once(&prefix).filter(|_| is_guest)?;
            let tag = name.chars().take_while(char::is_ascii_alphanumeric);
            Some((pid, tag.collect()))
        };
        names(Path::new("/proc")).filter_map(ours).collect()
    }

    /// The tags of everything that guests have here.
    pub fn belongings(&self) -> BTreeSet<String> {
        let prefix = format!("{}-", self.name());
        let networks = self.networks().into_iter();
        let networks = networks.filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned()));
        let processes = self.guest_processes().into_iter().map(|(_, tag)| tag);
        let directories = names(&self.run().join("guests"));
        let all = networks.chain(processes).chain(directories);
        all.chain(self.snapshots()).collect()
    }

    /// Checks that nothing is there without a build: no snapshot, no network, no
    /// process, no directory of a guest.
    ///
    /// # Panics
    /// When there is something.
    pub fn assert_nothing_is_left(&self) {
        assert_eq!(self.belongings(), BTreeSet::new());
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The entries of a directory; none when it is not there.
fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let paths = list(directory).into_iter();
    paths.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
}

/// How many interfaces there are in a network, without its loopback.
fn interfaces(network: &str) -> usize {
    let Ok(network) = Network::open(network) else {
        return 0;
    };
    let table = network.enter(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.unwrap_or_default();
    table.lines().skip(2).count().saturating_sub(1)
}

/// How many control groups of guests there are, in either place for them.
fn groups(host: &str) -> usize {
    let prefix = format!("{host}-");
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let groups = places
        .into_iter()
        .flat_map(|place| names(&place.join("buildhost-guests")));
    groups.filter(|name| name.starts_with(&prefix)).count()
}

/// How many loop devices hold a file of this test.
fn loops() -> usize {
    let devices = list(Path::new("/sys/block")).into_iter();
    let files = devices.map(|device| text(&device.join("loop/backing_file")));
    files.filter(|file| file.contains(&of_this_test())).count()
}

/// How many mounts of this test a process sees; those of others come and go.
fn mounts(host: &AgentHost, process: &Path) -> usize {
    let network = format!("/run/netns/{}-", host.name());
    let is_ours = |line: &&str| line.contains(&of_this_test()) || line.contains(&network);
    let table = text(&process.join("mountinfo"));
    table.lines().filter(is_ours).count()
}

/// What the names of a test's directories begin with.
fn of_this_test() -> String {
    format!("buildhost-test-{}-", std::process::id())
}

/// What a process has of the memory.
fn memory(process: &Path) -> usize {
    let status = text(&process.join("status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}
