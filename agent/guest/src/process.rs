//! A process that may be ours or an earlier agent's: known by its number and its
//! start time, held by a descriptor, so that it is never taken for another.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use config::builds::Usage;
use config::machine::{Kind, Machine};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_blocking;

use crate::cgroup;
use crate::error::GuestError;
use crate::usage::usage;

/// The record's name in a run directory.
const RECORD: &str = "process.json";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was started by an earlier agent: only that it has ended is known.
    Unknown,
}

impl Exit {
    /// Whether it ended by itself, and well.
    pub fn is_clean(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "with status {code}"),
            Self::Signal(signal) => write!(f, "by signal {signal}"),
            Self::Unknown => f.write_str("in a way that we cannot know"),
        }
    }
}

/// What is written down of a process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// What the process is.
    #[serde(default)]
    kind: Kind,
    pid: u32,
    /// In clock ticks since the host was booted.
    start_time: u64,
    /// The control group that it is alone in.
    cgroup: Option<PathBuf>,
}

/// A process that is not watched yet.
#[derive(Debug)]
pub(crate) struct Handle {
    kind: Kind,
    pid: u32,
    start_time: u64,
    cgroup: Option<PathBuf>,
    fd: OwnedFd,
}

impl Handle {
    /// Takes hold of a process that we have just started.
    pub(crate) fn of(pid: u32, kind: Kind) -> io::Result<Self> {
        let fd = open(pid)?;
        let (_, start_time) = look(pid)?;
        Ok(Self {
            kind,
            pid,
            start_time,
            cgroup: None,
            fd,
        })
    }

    /// Limits the process and writes its record, before anything of the guest runs;
    /// kills it when it cannot.
    pub(crate) fn settle(
        mut self,
        machine: &Machine,
        group: &str,
        run: &Path,
    ) -> Result<Self, GuestError> {
        let settled = cgroup::enter(group, machine, self.pid)
            .map_err(GuestError::Limit)
            .and_then(|group| {
                self.cgroup = group;
                self.record(run)
            });
        if settled.is_err() {
            kill(self.pid, &self.fd);
        }
        settled.map(|()| self)
    }

    /// Writes the record that [`Handle::find`] reads.
    fn record(&self, run: &Path) -> Result<(), GuestError> {
        let record = Record {
            version: 1,
            kind: self.kind,
            pid: self.pid,
            start_time: self.start_time,
            cgroup: self.cgroup.clone(),
        };
        let path = run.join(RECORD);
        let text = serde_json::to_vec(&record).map_err(io::Error::other);
        let written = text.and_then(|text| sys::file::replace(&path, &text));
        written.map_err(|source| GuestError::Run { path, source })
    }

    /// Finds the process of a record; `None` when there is no record or the
    /// process has ended.
    pub(crate) fn find(run: &Path) -> Result<Option<Self>, GuestError> {
        let path = run.join(RECORD);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read,
        };
        let parsed = read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
        let record: Record = parsed.map_err(|source| GuestError::Run { path, source })?;
        // Looked at after it is held: the number cannot go to another any more.
        let held = open(record.pid)
            .ok()
            .filter(|_| look(record.pid).is_ok_and(|found| found == (true, record.start_time)));
        let Some(fd) = held else {
            record.cgroup.as_deref().map(cgroup::leave);
            return Ok(None);
        };
        Ok(Some(Self {
            kind: record.kind,
            pid: record.pid,
            start_time: record.start_time,
            cgroup: record.cgroup,
            fd,
        }))
    }

    /// Watches it in the tokio runtime that the caller is in.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd keeps the promise"
    )]
    pub(crate) fn watch(self) -> io::Result<Process> {
        Ok(Process {
            kind: self.kind,
            pid: self.pid,
            cgroup: self.cgroup,
            fd: AsyncFd::new(self.fd)?,
            exit: Mutex::new(None),
        })
    }
}

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    kind: Kind,
    pid: u32,
    cgroup: Option<PathBuf>,
    fd: AsyncFd<OwnedFd>,
    exit: Mutex<Option<Exit>>,
}

impl Process {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn usage(&self) -> Usage {
        usage(self.kind, self.pid, self.cgroup.as_deref())
    }

    pub(crate) fn kill(&self) {
        kill(self.pid, self.fd.get_ref());
    }

    pub(crate) async fn exited(&self) -> Exit {
        // It is readable from its end on, for ever. The runtime fails when it shuts down.
        if self.fd.readable().await.is_err() {
            return Exit::Unknown;
        }
        let exit = {
            let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
            *exit.get_or_insert_with(|| reap(self.fd.get_ref()))
        };
        if let Some(group) = self.cgroup.clone() {
            // It logs what it cannot do.
            let _ = spawn_blocking(move || cgroup::leave(&group)).await;
        }
        exit
    }
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Kills the children of a process that we hold, and it with the last of them; the
/// process itself when it has none. So it ends after the whole of a container, which
/// is its child.
fn kill(pid: u32, fd: &OwnedFd) {
    let running = |child: &u32| look(*child).is_ok_and(|(runs, _)| runs);
    let held: Vec<_> = children(pid)
        .into_iter()
        .filter(running)
        .filter_map(|child| Some((child, open(child).ok()?)))
        .collect();
    // Looked at again when they are held: the numbers cannot go to others any more.
    let still = children(pid);
    let mut ours = held.iter().filter(|(child, _)| still.contains(child));
    let mut any = false;
    for (_, child) in &mut ours {
        any |= pidfd_send_signal(child, Signal::KILL).is_ok();
    }
    if !any {
        // It fails when the process has ended, which is what we want.
        let _ = pidfd_send_signal(fd, Signal::KILL);
    }
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Takes the status of a process that has ended.
fn reap(fd: &OwnedFd) -> Exit {
    match waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        // It is not our child.
        _ => Exit::Unknown,
    }
}

/// Whether a process still runs, and when it was started.
fn look(pid: u32) -> io::Result<(bool, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let strange = || io::Error::other("/proc/PID/stat is not what it was");
    read_stat(&stat).ok_or_else(strange)
}

/// Reads `/proc/PID/stat`. The name in it, in parentheses, may hold anything.
fn read_stat(stat: &str) -> Option<(bool, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((!matches!(state, "Z" | "X"), start_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
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
        let run = tempfile::tempdir().unwrap();
        let path = run.path();
        assert!(Handle::find(path).unwrap().is_none());
        let mut ours = Handle::of(std::process::id(), Kind::Kvm).unwrap();
        ours.record(path).unwrap();
        assert!(Handle::find(path).unwrap().is_some());
        ours.start_time += 1;
        ours.record(path).unwrap();
        assert!(Handle::find(path).unwrap().is_none());
        sys::file::replace(&path.join(RECORD), b"{").unwrap();
        assert!(Handle::find(path).is_err());
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "it is what is tested")]
    async fn the_end_of_a_child_is_told_as_often_as_it_is_asked_for() {
        let mut shell = sys::command::prepare("sh");
        let child = shell.args(["-c", "exit 7"]).spawn().unwrap();
        let process = Handle::of(child.id(), Kind::Kvm).unwrap().watch().unwrap();
        assert_eq!(process.exited().await, Exit::Code(7));
        assert_eq!(process.exited().await, Exit::Code(7));
        let child = sys::command::prepare("sleep").arg("1000").spawn().unwrap();
        let process = Handle::of(child.id(), Kind::Kvm).unwrap().watch().unwrap();
        process.kill();
        assert_eq!(process.exited().await, Exit::Signal(9));
    }
}
