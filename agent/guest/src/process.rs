//! A process of this agent or of an earlier one: identified by its number and its start
//! time, and held by a descriptor, so that it is never confused with another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use config::builds::Usage;
use config::machine::{Kind, Machine};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::GuestError;
use crate::usage::usage;

/// The name of the process record in a run directory.
const RECORD: &str = "process.json";

/// The exit status of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// An earlier agent started it, so that its status is unknown.
    Unknown,
}

impl Exit {
    /// Returns true if the process exited by itself and successfully.
    pub fn is_clean(self) -> bool {
        self == Self::Code(0)
    }
}

/// The process record, by which a later agent finds the process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    #[serde(default)]
    kind: Kind,
    pid: u32,
    /// In clock ticks since the host was booted.
    start_time: u64,
    /// The control group that contains nothing else.
    cgroup: Option<PathBuf>,
    /// The unit of its scope.
    #[serde(default)]
    scope: Option<String>,
    /// The directory with the files of the guest.
    #[serde(default)]
    root: Option<PathBuf>,
}

/// The process of a guest. Dropping it leaves the process running.
#[derive(Debug)]
pub(crate) struct Process {
    kind: Kind,
    pid: u32,
    start_time: u64,
    cgroup: Option<PathBuf>,
    scope: Option<String>,
    root: Option<PathBuf>,
    fd: OwnedFd,
    exit: OnceLock<Exit>,
    /// Set once the process has ended, before its control group is removed.
    out_of_memory: OnceLock<bool>,
}

impl Process {
    /// Holds a child that was just started.
    pub(crate) fn of_child(pid: u32, kind: Kind) -> io::Result<Self> {
        let fd = open(pid)?;
        let (_, start_time) = look_up(pid)?;
        Ok(Self {
            kind,
            pid,
            start_time,
            cgroup: None,
            scope: None,
            root: None,
            fd,
            exit: OnceLock::new(),
            out_of_memory: OnceLock::new(),
        })
    }

    /// Sets the resource limits of the process and writes its record. Must be called before
    /// anything of the guest runs. `root` has its files. Kills the process on failure.
    pub(crate) fn limit_and_record(
        mut self,
        machine: &Machine,
        group: &str,
        run_dir: &Path,
        root: &Path,
    ) -> Result<Self, GuestError> {
        self.root = Some(root.to_owned());
        let done = cgroup::enter(group, machine, self.pid)
            .map_err(GuestError::Limit)
            .and_then(|entered| {
                (self.cgroup, self.scope) = (entered.group, entered.scope);
                self.record(run_dir)
            });
        if done.is_err() {
            self.kill();
        }
        done.map(|()| self)
    }

    /// Moves the process into a control group with another name, and records it. In a scope it stays,
    /// because a scope cannot be renamed and no process name depends on it.
    pub(crate) fn move_to(
        mut self,
        group: &str,
        machine: &Machine,
        run_dir: &Path,
    ) -> Result<Self, GuestError> {
        if self.scope.is_none() {
            let entered = cgroup::enter(group, machine, self.pid).map_err(GuestError::Limit)?;
            self.scope = entered.scope;
            if let Some(left) = std::mem::replace(&mut self.cgroup, entered.group) {
                cgroup::remove(&left);
            }
        }
        self.record(run_dir)?;
        Ok(self)
    }

    /// Writes the record that [`Process::find`] reads.
    fn record(&self, run_dir: &Path) -> Result<(), GuestError> {
        let record = Record {
            version: 1,
            kind: self.kind,
            pid: self.pid,
            start_time: self.start_time,
            cgroup: self.cgroup.clone(),
            scope: self.scope.clone(),
            root: self.root.clone(),
        };
        let path = run_dir.join(RECORD);
        let text = serde_json::to_vec(&record).map_err(io::Error::other);
        let written = text.and_then(|text| sys::file::replace(&path, &text));
        written.map_err(|source| GuestError::RunDir { path, source })
    }

    /// Finds the process of a record. Returns `None` when there is no record or the process
    /// has ended.
    pub(crate) fn find(run_dir: &Path) -> Result<Option<Self>, GuestError> {
        let path = run_dir.join(RECORD);
        let read = match sys::trusted::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read,
        };
        let parsed = read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
        let record: Record = parsed.map_err(|source| GuestError::RunDir { path, source })?;
        // Opened before the check: from then on no other process can get its number.
        let fd = open(record.pid)
            .ok()
            .filter(|_| look_up(record.pid).is_ok_and(|found| found == (true, record.start_time)));
        let Some(fd) = fd else {
            if let Some(group) = &record.cgroup {
                cgroup::remove(group);
            }
            return Ok(None);
        };
        Ok(Some(Self {
            kind: record.kind,
            pid: record.pid,
            start_time: record.start_time,
            cgroup: record.cgroup,
            scope: record.scope,
            root: record.root,
            fd,
            exit: OnceLock::new(),
            out_of_memory: OnceLock::new(),
        }))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the unit of its scope, on a host with machined.
    pub(crate) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the directory with the files of the guest, if its record has it.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Returns the descriptor of the process, which is readable from its end on.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn usage(&self) -> Usage {
        usage(self.kind, self.pid, self.cgroup.as_deref())
    }

    /// Kills the children of the process, which ends with the last of them; the process
    /// itself when it has none. So it ends after the whole of a container, which is its
    /// child.
    pub(crate) fn kill(&self) {
        let is_running = |child: &u32| look_up(*child).is_ok_and(|(runs, _)| runs);
        let opened: Vec<_> = children(self.pid)
            .into_iter()
            .filter(is_running)
            .filter_map(|child| Some((child, open(child).ok()?)))
            .collect();
        // Listed again: a process that is a child now was one when it was opened.
        let current = children(self.pid);
        let mut is_any_killed = false;
        for (child, fd) in &opened {
            if current.contains(child) {
                is_any_killed |= pidfd_send_signal(fd, Signal::KILL).is_ok();
            }
        }
        if !is_any_killed {
            // Fails when the process has ended, as intended.
            let _ = pidfd_send_signal(&self.fd, Signal::KILL);
        }
    }

    /// Waits up to `limit` until the process has ended, and removes its control group.
    /// Returns `None` when it still runs. May be called again.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Exit> {
        if !is_readable(&self.fd, limit) {
            return None;
        }
        let exit = *self.exit.get_or_init(|| reap(&self.fd));
        if let Some(group) = &self.cgroup {
            self.out_of_memory
                .get_or_init(|| cgroup::ran_out_of_memory(group, self.scope.as_deref()));
            cgroup::remove(group);
        }
        Some(exit)
    }

    /// Returns true if the process has ended and the kernel has killed a process in its control
    /// group for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.out_of_memory.get().copied().unwrap_or(false)
    }
}

/// Waits up to `limit` until the descriptor is readable.
fn is_readable(fd: &OwnedFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        });
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

fn children(pid: u32) -> Vec<u32> {
    let list = sys::trusted::read_text(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Takes the exit status of a process that has ended.
fn reap(fd: &OwnedFd) -> Exit {
    match waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        // It is not a child of this agent.
        _ => Exit::Unknown,
    }
}

/// Returns true and the start time of a process that runs, false and that of a zombie.
fn look_up(pid: u32) -> io::Result<(bool, u64)> {
    let stat = sys::trusted::read_text(format!("/proc/{pid}/stat"))?;
    let unexpected = || io::Error::other(format!("/proc/{pid}/stat has an unknown format"));
    read_stat(&stat).ok_or_else(unexpected)
}

/// Parses `/proc/PID/stat`. The process name in it, in parentheses, may contain anything.
fn read_stat(stat: &str) -> Option<(bool, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((!matches!(state, "Z" | "X"), start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn stat_is_parsed_with_any_process_name() {
        let rest = "1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(
            read_stat(&format!("7 (a) R (b) S {rest}")),
            Some((true, 4711))
        );
        assert_eq!(
            read_stat(&format!("7 (qemu) Z {rest}")),
            Some((false, 4711))
        );
        assert_eq!(read_stat("7 (qemu"), None);
    }

    #[test]
    fn a_record_finds_its_process_and_no_other() {
        let run_dir = tempfile::tempdir().unwrap();
        let path = run_dir.path();
        assert!(Process::find(path).unwrap().is_none());
        let mut process = Process::of_child(std::process::id(), Kind::Kvm).unwrap();
        process.record(path).unwrap();
        assert!(Process::find(path).unwrap().is_some());
        process.start_time += 1;
        process.record(path).unwrap();
        assert!(Process::find(path).unwrap().is_none());
        sys::file::replace(&path.join(RECORD), b"{").unwrap();
        assert!(Process::find(path).is_err());
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "the process under test reaps them")]
    fn the_exit_status_is_returned_by_every_wait() {
        let mut shell = sys::command::prepare("sh");
        let child = shell.args(["-c", "exit 7"]).spawn().unwrap();
        let process = Process::of_child(child.id(), Kind::Kvm).unwrap();
        assert_eq!(process.wait(LIMIT), Some(Exit::Code(7)));
        assert_eq!(process.wait(Duration::ZERO), Some(Exit::Code(7)));
        let child = sys::command::prepare("sleep").arg("1000").spawn().unwrap();
        let process = Process::of_child(child.id(), Kind::Kvm).unwrap();
        assert_eq!(process.wait(Duration::ZERO), None);
        process.kill();
        assert_eq!(process.wait(LIMIT), Some(Exit::Signal(9)));
    }
}
