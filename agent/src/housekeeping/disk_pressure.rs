//! Disk pressure: while a volume or the state directory has less free space than the reserve,
//! the guest that has written most there is evicted, one after the other.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::layout::Entry;
use config::{ImageKey, Tag};
use planner::JobId;
use store::{Result, VolumeId, space};
use sys::blocking::blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::state::AgentState;

/// The interval of the checks.
const PERIOD: Duration = Duration::from_secs(2);
/// The time in which no other guest is evicted: btrfs frees the space of an evicted one only
/// with its second commit.
const GRACE: Duration = Duration::from_mins(1);
/// The maximum number of files of a guest that are counted.
const ENTRIES_MAX: usize = 200_000;

/// The file systems with less free space than the reserve.
#[derive(Debug, Default)]
struct Pressure {
    volumes: Vec<VolumeId>,
    state: bool,
}

impl Pressure {
    fn is_empty(&self) -> bool {
        self.volumes.is_empty() && !self.state
    }

    /// Returns the path of one of them, for messages.
    fn path<'h>(&self, agent: &'h AgentState) -> &'h Path {
        let volume = self.volumes.first().and_then(|id| agent.volumes.get(*id));
        volume.map_or(&agent.settings.paths.state, |volume| volume.path())
    }
}

/// Checks the free space until the agent stops.
pub(crate) async fn watch(agent: Arc<AgentState>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut evicted: Option<Instant> = None;
    let mut is_state_short = false;
    loop {
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let shared = Arc::clone(&agent);
        let commit = evicted.is_some();
        let pressure = blocking(move || measure(&shared, commit)).await;
        if let Ok(pressure) = &pressure {
            if is_state_short && !pressure.state {
                agent.space_freed.notify_waiters();
            }
            is_state_short = pressure.state;
        }
        match (pressure, evicted) {
            (Ok(pressure), Some(_)) if pressure.is_empty() => {
                evicted = None;
                agent.wake.notify_one();
            }
            (Ok(pressure), last) if !pressure.is_empty() => {
                let may_evict = last.is_none_or(|last| last.elapsed() >= GRACE);
                if may_evict && evict_largest(&agent, pressure).await {
                    evicted = Some(Instant::now());
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => {
                let error = &error as &dyn Error;
                warn!(error, "cannot measure the free space");
            }
        }
    }
}

/// Returns the file systems under pressure. With `commit`, lets btrfs free the space of
/// deleted files on them. Blocks.
fn measure(agent: &AgentState, commit: bool) -> Result<Pressure> {
    let paths = &agent.settings.paths;
    let mut pressure = Pressure {
        volumes: Vec::new(),
        state: space::bytes_free(&paths.state)? < paths.reserve_bytes,
    };
    for (id, volume) in agent.volumes.indexed() {
        if volume.free()? >= paths.reserve_bytes {
            continue;
        }
        if commit {
            volume.commit()?;
        }
        pressure.volumes.push(id);
    }
    Ok(pressure)
}

/// Evicts the guest that has written most on file systems under pressure. Returns false if
/// no guest has.
async fn evict_largest(agent: &Arc<AgentState>, pressure: Pressure) -> bool {
    let path = pressure.path(agent).to_owned();
    // Held guests are suspended and write nothing; a build that waits for space has no guest.
    let running = agent.jobs.running();
    let mut jobs: Vec<_> = running
        .guests()
        .filter(|(job, _)| {
            !matches!(job, JobId::Build(id)
                if running.holds.contains_key(id) || running.unstored.contains_key(id))
        })
        .map(|(job, key)| (job, key.clone()))
        .collect();
    // Of jobs that have written equally, the last one is evicted: not a bootstrap.
    jobs.sort_by_key(|(job, _)| !matches!(job, JobId::Bootstrap(_)));
    let shared = Arc::clone(agent);
    let measured = blocking(move || {
        let measure = |(job, key)| (bytes_written(&shared, &pressure, &job, &key), job);
        jobs.into_iter().map(measure).collect::<Vec<_>>()
    });
    let Some(job) = largest(measured.await) else {
        return false;
    };
    warn!(path = %path.display(), %job, "evicting a guest: a disk is nearly full");
    agent.jobs.evict(&job, path);
    true
}

/// Returns the job that has written most; the last one among equals.
fn largest(measured: Vec<(Option<u64>, JobId)>) -> Option<JobId> {
    measured
        .into_iter()
        .filter_map(|(bytes, job)| Some((bytes?, job)))
        .max_by_key(|(bytes, _)| *bytes)
        .map(|(_, job)| job)
}

/// Returns the bytes that a job has written on file systems under pressure; `None` if it writes
/// elsewhere. Blocks.
fn bytes_written(
    agent: &AgentState,
    pressure: &Pressure,
    job: &JobId,
    key: &ImageKey,
) -> Option<u64> {
    let toolchain = || key.toolchain.clone();
    let (tag, origin, files) = match job {
        JobId::Build(id) => {
            let files = agent.paths.build(*id);
            (id.tag(), Entry::Image(toolchain()), Some(files))
        }
        JobId::Bootstrap(_) => (Tag::bootstrap(), Entry::Current, None),
        JobId::Copy(copy) => {
            let files = agent.paths.debug_sessions().join(copy.to_string());
            let tag = copy.to_string().parse().ok()?;
            (tag, Entry::Image(toolchain()), Some(files))
        }
    };
    let snapshot = Entry::Snapshot(toolchain(), tag.clone());
    let in_volume = pressure
        .volumes
        .iter()
        .filter_map(|id| agent.volumes.get(*id))
        .map(|volume| {
            let path = |entry: &Entry| volume.entry(&key.machine, entry);
            (path(&snapshot), path(&origin))
        })
        .find(|(snapshot, _)| snapshot.is_dir())
        .map(|(snapshot, origin)| {
            let grown = size(&snapshot).saturating_sub(size(&origin));
            // A disk image that is fully allocated does not grow when it is written to.
            grown.max(session::bytes_written(&agent.guests, tag.as_str()))
        });
    let in_state = files.filter(|_| pressure.state).map(|files| size(&files));
    match (in_volume, in_state) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0) + other.unwrap_or(0)),
    }
}

/// Returns the disk space of the files below a directory. The number of files is limited,
/// because a guest may create many. Blocks.
fn size(directory: &Path) -> u64 {
    let (mut bytes, mut seen) = (0, 0);
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            seen += 1;
            if seen > ENTRIES_MAX {
                return bytes;
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use config::BuildId;

    use super::*;

    #[test]
    fn the_job_that_has_written_most_is_evicted() {
        let build = |id| JobId::Build(BuildId(id));
        let table = [
            (vec![], None),
            (vec![(None, build(1))], None),
            (
                vec![
                    (Some(7), build(1)),
                    (Some(9), build(2)),
                    (Some(8), build(3)),
                ],
                Some(build(2)),
            ),
            (
                vec![(Some(0), build(1)), (Some(0), build(2)), (None, build(3))],
                Some(build(2)),
            ),
        ];
        for (measured, expected) in table {
            assert_eq!(largest(measured), expected);
        }
    }

    #[test]
    fn files_are_counted_at_every_depth() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("artifacts/deep")).unwrap();
        std::os::unix::fs::symlink("/", path("root")).unwrap();
        sys::file::replace(&path("log"), &b"7".repeat(100_000)).unwrap();
        sys::file::replace(&path("artifacts/deep/a"), &b"7".repeat(200_000)).unwrap();
        let size = size(directory.path());
        assert!((300_000..400_000).contains(&size), "{size}");
        assert_eq!(super::size(&path("missing")), 0);
    }
}
