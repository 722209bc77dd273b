//! The commands that run, and the places for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use config::exec::COMMANDS_MAX;
use rustix::process::{Pid, Signal, kill_process_group};

/// The commands that run. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    places: usize,
    groups: BTreeSet<i32>,
}

/// The place of a command. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place(Running);

/// A process group that runs. Dropping it means that its leader has ended.
#[derive(Debug)]
pub(super) struct Group {
    running: Running,
    leader: i32,
}

impl Running {
    /// Waits until another command may run.
    pub(super) fn wait_for_place(&self) {
        let mut state = self.state();
        while state.places >= COMMANDS_MAX {
            state = self
                .0
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a place.
    pub(super) fn place(&self) -> Place {
        self.state().places += 1;
        Place(self.clone())
    }

    /// Returns true if no command runs.
    pub(super) fn is_empty(&self) -> bool {
        self.state().places == 0
    }

    /// Adds the process group of a command.
    pub(super) fn add(&self, leader: u32) -> Group {
        let leader = leader.cast_signed();
        self.state().groups.insert(leader);
        Group {
            running: self.clone(),
            leader,
        }
    }

    /// Kills the process groups of all commands.
    pub(super) fn end_all(&self) {
        for leader in &self.state().groups {
            signal(*leader, Signal::KILL);
        }
    }

    /// Sends a signal to a process group whose leader has not ended.
    pub(super) fn signal(&self, leader: u32, with: Signal) {
        let leader = leader.cast_signed();
        // Under the lock: a leader that has ended is removed before its number is used again.
        let state = self.state();
        if state.groups.contains(&leader) {
            signal(leader, with);
        }
    }

    /// Returns true if the leader of a process group has not ended.
    pub(super) fn has(&self, leader: u32) -> bool {
        self.state().groups.contains(&leader.cast_signed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().places -= 1;
        self.0.0.freed.notify_all();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.running.state().groups.remove(&self.leader);
    }
}

/// Sends a signal to a process group, which may have ended.
fn signal(leader: i32, signal: Signal) {
    if let Some(leader) = Pid::from_raw(leader) {
        let _ = kill_process_group(leader, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_command_has_ended() {
        let running = Running::default();
        let mut places: Vec<_> = (0..COMMANDS_MAX).map(|_| running.place()).collect();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = running.clone();
        let waiter = std::thread::spawn(move || {
            waiting.wait_for_place();
            sender.send(waiting.state().places).unwrap();
        });
        assert!(receiver.try_recv().is_err());
        places.pop();
        assert_eq!(receiver.recv().unwrap(), COMMANDS_MAX - 1);
        waiter.join().unwrap();
        places.clear();
        assert!(running.is_empty());
    }
}
