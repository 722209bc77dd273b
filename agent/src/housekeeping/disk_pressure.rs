//! Sees to it that guests do not fill the disks of the host: where a volume or the
//! state directory has less room than its reserve, the guest that has written most
//! there is ended, one after the other, until there is room again.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::Tag;
use config::layout::Entry;
use store::{Result, VolumeId, space};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::blocking;
use crate::session;
use crate::state::{AgentState, ImageKey, JobId};

/// How often we look.
const PERIOD: Duration = Duration::from_secs(2);
/// What a guest has held comes back with the file system's next commit but one;
/// nobody else is ended for as long.
const GRACE: Duration = Duration::from_mins(1);
/// No more files of a guest are looked at.
const ENTRIES_MAX: usize = 200_000;

/// What has too little room.
#[derive(Debug, Default)]
struct Short {
    /// By its place among the volumes of the host.
    volumes: Vec<VolumeId>,
    state: bool,
}

impl Short {
    fn is_empty(&self) -> bool {
        self.volumes.is_empty() && !self.state
    }

    /// One of them, for people.
    fn place<'h>(&self, agent: &'h AgentState) -> &'h Path {
        let volume = self.volumes.first().and_then(|at| agent.volumes.get(*at));
        volume.map_or(&agent.settings.paths.state, |volume| volume.path())
    }
}

/// Watches until the agent stops.
pub(crate) async fn watch(agent: Arc<AgentState>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended: Option<Instant> = None;
    loop {
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let seen = Arc::clone(&agent);
        let committing = ended.is_some();
        let short = blocking(move || look(&seen, committing)).await;
        match (short, ended) {
            (Ok(short), Some(_)) if short.is_empty() => {
                ended = None;
                agent.wake.notify_one();
            }
            (Ok(short), last) if !short.is_empty() => {
                if last.is_none_or(|last| last.elapsed() >= GRACE) && relieve(&agent, short).await {
                    ended = Some(Instant::now());
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => warn!(
                "cannot see how much room there is: {}",
                sys::error_report::chain(&error)
            ),
        }
    }
}

/// What has too little room now.
fn look(agent: &AgentState, committing: bool) -> Result<Short> {
    let paths = &agent.settings.paths;
    let mut short = Short {
        volumes: Vec::new(),
        state: space::bytes_free(&paths.state)? < paths.reserve_bytes,
    };
    for (at, volume) in agent.volumes.indexed() {
        if volume.free()? >= paths.reserve_bytes {
            continue;
        }
        if committing {
            volume.commit()?;
        }
        short.volumes.push(at);
    }
    Ok(short)
}

/// Ends the guest that has written most where there is too little room. Whether
/// there was one.
async fn relieve(agent: &Arc<AgentState>, short: Short) -> bool {
    let place = short.place(agent).to_owned();
    // Held guests are suspended and write nothing.
    let running = agent.jobs.running();
    let mut jobs: Vec<_> = running
        .guests()
        .filter(|(job, _)| !matches!(job, JobId::Build(id) if running.holds.contains_key(id)))
        .map(|(job, key)| (job, key.clone()))
        .collect();
    // Of jobs that have written the same, the last one is evicted: no bootstrap.
    jobs.sort_by_key(|(job, _)| !matches!(job, JobId::Bootstrap(_)));
    let seen = Arc::clone(agent);
    let weighed = blocking(move || {
        let weigh = |(job, pair)| (written(&seen, &short, &job, &pair), job);
        jobs.into_iter().map(weigh).collect::<Vec<_>>()
    });
    let Some(job) = heaviest(weighed.await) else {
        return false;
    };
    warn!("{} is nearly full: {job} is ended", place.display());
    agent.jobs.evict(&job, place);
    true
}

/// The job that has written most; of those that are alike, the last one.
fn heaviest(weighed: Vec<(Option<u64>, JobId)>) -> Option<JobId> {
    let there = weighed
        .into_iter()
        .filter_map(|(bytes, job)| Some((bytes?, job)));
    there.max_by_key(|(bytes, _)| *bytes).map(|(_, job)| job)
}

/// What a job has written where there is too little room; nothing when it is not there.
fn written(agent: &AgentState, short: &Short, job: &JobId, pair: &ImageKey) -> Option<u64> {
    let toolchain = || pair.toolchain.clone();
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
    let volumes = short.volumes.iter().filter_map(|at| agent.volumes.get(*at));
    let places = volumes.map(|volume| {
        let place = |entry: &Entry| volume.entry(&pair.machine, entry);
        (place(&snapshot), place(&origin))
    });
    let in_volume = places
        .into_iter()
        .find(|(snapshot, _)| snapshot.is_dir())
        .map(|(snapshot, origin)| {
            let grown = size(&snapshot).saturating_sub(size(&origin));
            // A disk that was full already does not grow when it is written to.
            grown.max(session::bytes_written(&agent.guests, tag.as_str()))
        });
    let in_state = files.filter(|_| short.state).map(|files| size(&files));
    match (in_volume, in_state) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0) + other.unwrap_or(0)),
    }
}

/// What the files below a directory take of the disk. What a guest has made there
/// costs us neither much time nor much memory.
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
    fn who_has_written_most_is_ended_and_of_equals_the_youngest() {
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
        for (weighed, expected) in table {
            assert_eq!(heaviest(weighed), expected);
        }
    }

    #[test]
    fn what_files_take_is_counted_at_every_depth() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::create_dir_all(path("artifacts/deep")).unwrap();
        std::os::unix::fs::symlink("/", path("root")).unwrap();
        sys::file::replace(&path("log"), &b"7".repeat(100_000)).unwrap();
        sys::file::replace(&path("artifacts/deep/a"), &b"7".repeat(200_000)).unwrap();
        let size = size(place.path());
        assert!((300_000..400_000).contains(&size), "{size}");
        assert_eq!(super::size(&path("missing")), 0);
    }
}
