//! The watch over a guest.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use guest::Guest;
use nix::sys::mman::{MlockAllFlags, mlockall};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::deadline::{Deadline, now};

/// The pause between two attempts to kill a guest.
const KILL_PAUSE_MS: u64 = 200;

/// Watches the guest of a run directory until it has ended, and ends it at its deadline. `file` has the
/// deadline; `guest` is readable when the guest has ended.
///
/// # Errors
/// The clock cannot be used, before anything is watched.
pub fn watch(
    run_dir: &Path,
    file: &File,
    guest: BorrowedFd<'_>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    keep_in_memory();
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let mut due = Deadline::read(file)?;
    set(&timer, due)?;
    ready();
    loop {
        let mut events = [
            PollFd::new(&guest, PollFlags::IN),
            PollFd::new(&timer, PollFlags::IN),
        ];
        match poll(&mut events, None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled?,
        };
        if !events[0].revents().is_empty() {
            return Ok(());
        }
        // Without a readable deadline, the last one counts.
        due = Deadline::read(file).unwrap_or(due);
        let next = if due <= now() {
            kill(run_dir);
            Deadline(now().0 + KILL_PAUSE_MS)
        } else {
            due
        };
        set(&timer, next)?;
    }
}

/// Keeps the process in memory, so that it needs no disk, and from the kernel's choice when memory is
/// short. Without these rights it works as well while disks and memory do.
fn keep_in_memory() {
    let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    let score = sys::trusted::open_for_writing("/proc/self/oom_score_adj");
    let _ = score.and_then(|mut file| file.write_all(b"-1000"));
}

/// Kills the guest, if its process record is there already.
fn kill(run_dir: &Path) {
    if let Ok(Some(guest)) = Guest::find(run_dir) {
        guest.kill();
    }
}

fn set(timer: &OwnedFd, deadline: Deadline) -> io::Result<()> {
    // A time of zero would disarm it.
    let milliseconds = i64::try_from(deadline.0.max(1)).unwrap_or(i64::MAX);
    let value = Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: Timespec {
            tv_sec: milliseconds / 1000,
            tv_nsec: milliseconds % 1000 * 1_000_000,
        },
    };
    timerfd_settime(timer.as_fd(), TimerfdTimerFlags::ABSTIME, &value)?;
    Ok(())
}
