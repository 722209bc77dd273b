//! Disk pressure: while a volume or the state directory has less free space than the reserve,
//! the guest that has written most there is evicted, one after the other.
//!
//! btrfs frees the space of a deleted snapshot later, so nobody is evicted before the space of
//! all deletions has returned. A guest that has written less than what is missing is never
//! evicted: that would not help, and it is not the one that fills the disk.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planner::JobId;
use store::{Result, Volume, VolumeId, space};
use sys::blocking::blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use jobs::disk_use::{self, Disks};
use state::AgentState;

/// The interval of the checks.
const PERIOD: Duration = Duration::from_secs(2);
/// The time in which no other guest is evicted: an evicted one needs time to end.
const GRACE: Duration = Duration::from_mins(1);
/// The time limit for the return of the space of deleted snapshots. A snapshot that a process
/// has open keeps its space, and the disk may fill meanwhile.
const RECLAIM_LIMIT: Duration = Duration::from_secs(20);

/// A file system with less free space than the reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Short {
    /// The volume; `None` for the state directory.
    volume: Option<VolumeId>,
    /// A directory on it.
    directory: PathBuf,
    /// The bytes that are missing to the reserve.
    missing: u64,
}

/// Checks the free space until the agent stops.
pub(crate) async fn watch(agent: Arc<AgentState>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut evicted: Option<Instant> = None;
    let mut before = Vec::new();
    loop {
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let shared = Arc::clone(&agent);
        let short = match blocking(move || measure(&shared)).await {
            Ok(short) => short,
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(error, "cannot measure the free space");
                continue;
            }
        };
        if short.is_empty() {
            evicted = None;
        } else if evicted.is_none_or(|last| last.elapsed() >= GRACE) {
            for disk in &short {
                if evict_largest(&agent, disk).await {
                    evicted = Some(Instant::now());
                    break;
                }
            }
        }
        announce_freed(&agent, &before, &short);
        before = short;
    }
}

/// Wakes those who wait for space on file systems that have their reserve again.
fn announce_freed(agent: &AgentState, before: &[Short], now: &[Short]) {
    let is_short =
        |short: &[Short], directory: &Path| short.iter().any(|disk| disk.directory == directory);
    let freed = |disk: &&Short| !is_short(now, &disk.directory);
    for disk in before.iter().filter(freed) {
        if disk.volume.is_none() {
            agent.space_freed.notify_waiters();
        }
        agent.wake.notify_one();
    }
}

/// Returns the file systems that are short of space after that of deleted files has returned, and
/// notes the free space of the others for the builds that run. Blocks.
fn measure(agent: &AgentState) -> Result<Vec<Short>> {
    let paths = &agent.settings().paths;
    let mut short = Vec::new();
    let mut note = |volume, directory: &Path, free: u64| {
        let missing = paths.reserve_bytes.saturating_sub(free);
        if missing == 0 {
            let available = free.saturating_sub(paths.reserve_bytes);
            agent.jobs.note_available(directory, available);
        } else {
            short.push(Short {
                volume,
                directory: directory.to_owned(),
                missing,
            });
        }
    };
    note(None, &paths.state, space::bytes_free(&paths.state)?);
    for (id, volume) in agent.volumes.indexed() {
        note(Some(id), volume.path(), free(volume, paths.reserve_bytes)?);
    }
    Ok(short)
}

/// Returns the free space of a volume: if that is less than the reserve, after the space of
/// deleted files has returned.
fn free(volume: &Volume, reserve: u64) -> Result<u64> {
    let free = volume.free()?;
    if free >= reserve {
        return Ok(free);
    }
    volume.reclaim_within(RECLAIM_LIMIT)?;
    volume.free()
}

/// Evicts the guest that has written most on a file system that is short of space. Returns
/// `false` if none has written enough.
async fn evict_largest(agent: &Arc<AgentState>, disk: &Short) -> bool {
    let jobs = agent.jobs.evictable();
    let (shared, short) = (Arc::clone(agent), disk.clone());
    let measured = blocking(move || {
        let volume = short.volume.and_then(|id| shared.volumes.get(id));
        let volumes: Vec<_> = volume.into_iter().collect();
        let disks = Disks {
            volumes: &volumes,
            state: short.volume.is_none(),
        };
        let measure = |(job, key)| (disk_use::bytes_written(&shared, disks, &job, &key), job);
        jobs.into_iter().map(measure).collect::<Vec<_>>()
    });
    let Some((job, written)) = largest(measured.await, disk.missing) else {
        return false;
    };
    let path = &disk.directory;
    warn!(path = %path.display(), %job, written, "evicting a guest: a disk is nearly full");
    agent.jobs.evict(&job, path.clone(), written);
    true
}

/// Returns the job that has written most, the last one among equals, and the bytes; `None` if it
/// has written less than what is missing.
fn largest(measured: Vec<(Option<u64>, JobId)>, missing: u64) -> Option<(JobId, u64)> {
    measured
        .into_iter()
        .filter_map(|(bytes, job)| Some((job, bytes?)))
        .max_by_key(|(_, bytes)| *bytes)
        .filter(|(_, bytes)| *bytes >= missing)
}

#[cfg(test)]
mod tests {
    use config::BuildId;

    use super::*;

    #[test]
    fn the_job_that_has_written_most_is_evicted_if_that_is_enough() {
        let build = |id| JobId::Build(BuildId(id));
        let table = [
            (vec![], 1, None),
            (vec![(None, build(1))], 1, None),
            (
                vec![
                    (Some(7), build(1)),
                    (Some(9), build(2)),
                    (Some(8), build(3)),
                ],
                9,
                Some((build(2), 9)),
            ),
            (vec![(Some(7), build(1)), (Some(9), build(2))], 10, None),
            (
                vec![(Some(3), build(1)), (Some(3), build(2)), (None, build(3))],
                1,
                Some((build(2), 3)),
            ),
        ];
        for (measured, missing, expected) in table {
            assert_eq!(largest(measured, missing), expected);
        }
    }
}
