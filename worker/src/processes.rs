//! The processes of a build: the descendants of the worker, stopped for the time of a fork.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// The time in which all processes must stop.
const STOP_MAX: Duration = Duration::from_secs(2);
/// The interval at which their states are read.
const POLL: Duration = Duration::from_millis(1);

/// Processes that are stopped. Dropping this lets them go on.
#[derive(Debug, Default)]
pub(crate) struct StoppedProcesses(BTreeSet<i32>);

/// A process as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    state: char,
}

impl StoppedProcesses {
    /// Stops all descendants of this process that run. A process that has left the build's tree
    /// of processes, as a daemon does, runs on.
    pub(crate) fn stop_all() -> io::Result<Self> {
        let deadline = Instant::now() + STOP_MAX;
        let mut stopped = Self::default();
        loop {
            let all = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
                entry.file_name().to_str()?.parse::<i32>().ok()?;
                parse(&fs::read_to_string(entry.path().join("stat")).ok()?)
            });
            let running = stopped.running(&descendants(&all.collect::<Vec<_>>(), own()));
            if running.is_empty() {
                return Ok(stopped);
            }
            if Instant::now() >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            for process in running {
                signal(process.pid, Signal::STOP);
                stopped.0.insert(process.pid);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Returns the processes that may still execute their program. One in an uninterruptible
    /// call cannot, once it has the signal.
    fn running(&self, processes: &[Process]) -> Vec<Process> {
        let is_still = |process: &&Process| match process.state {
            'T' | 't' | 'Z' | 'X' => true,
            'D' => self.0.contains(&process.pid),
            _ => false,
        };
        let running = processes.iter().filter(|process| !is_still(process));
        running.copied().collect()
    }
}

impl Drop for StoppedProcesses {
    fn drop(&mut self) {
        for pid in &self.0 {
            signal(*pid, Signal::CONT);
        }
    }
}

fn own() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// Sends a signal to a process, which may have ended.
fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Parses the content of `/proc/PID/stat`. The name in it may contain anything.
fn parse(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_ascii_whitespace();
    Some(Process {
        pid: pid.parse().ok()?,
        state: words.next()?.chars().next()?,
        parent: words.next()?.parse().ok()?,
    })
}

/// Returns the descendants of a process.
fn descendants(all: &[Process], ancestor: i32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut known = BTreeSet::from([ancestor]);
    loop {
        let new: Vec<Process> = all
            .iter()
            .filter(|process| known.contains(&process.parent) && !known.contains(&process.pid))
            .copied()
            .collect();
        if new.is_empty() {
            return found;
        }
        known.extend(new.iter().map(|process| process.pid));
        found.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let process = |text| parse(text).map(|it| (it.pid, it.state, it.parent));
        assert_eq!(process("7 (sh) S 3 7 7 0"), Some((7, 'S', 3)));
        assert_eq!(process("8 (a) R 1 (b)) T 7 8"), Some((8, 'T', 7)));
        assert_eq!(process(""), None);
        assert_eq!(process("8 (a"), None);
    }

    #[test]
    fn children_of_children_are_found_and_others_are_not() {
        let process = |pid, parent| Process {
            pid,
            parent,
            state: 'S',
        };
        let all = [
            process(9, 8),
            process(1, 0),
            process(5, 1),
            process(8, 5),
            process(6, 1),
            process(7, 6),
        ];
        let found: Vec<_> = descendants(&all, 5).iter().map(|it| it.pid).collect();
        assert_eq!(found, [8, 9]);
        assert!(descendants(&all, 9).is_empty());
    }

    #[test]
    fn a_process_in_a_call_is_still_once_it_has_the_signal() {
        let processes = ['R', 'S', 'D', 'T', 'Z'].map(|state| Process {
            pid: i32::try_from(u32::from(state)).unwrap(),
            parent: 1,
            state,
        });
        let states = |stopped: &StoppedProcesses| {
            let running = stopped.running(&processes);
            running.iter().map(|it| it.state).collect::<String>()
        };
        let mut stopped = StoppedProcesses::default();
        assert_eq!(states(&stopped), "RSD");
        stopped.0.extend(processes.map(|it| it.pid));
        assert_eq!(states(&stopped), "RS");
        // They are no processes of this test.
        stopped.0.clear();
    }
}
