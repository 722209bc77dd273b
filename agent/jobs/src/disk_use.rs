//! The disk space that the guests of jobs take.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use config::builds::Build;
use config::layout::Entry;
use config::{ImageKey, Tag};
use planner::JobId;
use store::{Volume, space};
use sys::blocking::blocking;

use state::{AgentState, DiskUse};

/// The maximum number of files of a guest that are counted.
const ENTRIES_MAX: usize = 200_000;

/// The file systems on which the files of a guest are measured.
#[derive(Debug, Clone, Copy)]
pub struct Disks<'d> {
    /// The volumes.
    pub volumes: &'d [&'d Volume],
    /// `true` for the state directory.
    pub state: bool,
}

/// Notes the free space of a volume and of the state directory for the builds that run.
pub(super) async fn note_available(agent: &AgentState, volume: &Volume) {
    let reserve = agent.settings().paths.reserve_bytes;
    let paths = [
        volume.path().to_owned(),
        agent.settings().paths.state.clone(),
    ];
    let measured = blocking(move || paths.map(|path| (space::bytes_free(&path).ok(), path)));
    for (free, path) in measured.await {
        if let Some(free) = free {
            agent
                .jobs
                .note_available(&path, free.saturating_sub(reserve));
        }
    }
}

/// Returns the use of the volume of a build whose guest has ended and whose snapshot exists;
/// `None` if the volume has its reserve.
pub(super) async fn of_short_volume(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &Build,
) -> Option<DiskUse> {
    let (task_agent, measured, key) = (Arc::clone(agent), volume.clone(), ImageKey::of(build));
    let job = JobId::Build(build.id);
    let written = blocking(move || {
        let reserve = task_agent.settings().paths.reserve_bytes;
        if measured.free().ok()? >= reserve {
            return None;
        }
        let disks = Disks {
            volumes: &[&measured],
            state: false,
        };
        Some(bytes_written(&task_agent, disks, &job, &key).unwrap_or_default())
    });
    let written = written.await?;
    Some(DiskUse {
        directory: volume.path().to_owned(),
        written,
        available: agent.jobs.available(build.id, volume.path()),
    })
}

/// Returns the bytes that a job has written on disks; `None` if it writes elsewhere. Blocks.
pub fn bytes_written(
    agent: &AgentState,
    disks: Disks<'_>,
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
        // It has no guest.
        JobId::Fork(_) => return None,
        JobId::Copy(copy) => {
            let files = agent.paths.debug_sessions().join(copy.to_string());
            let tag = copy.to_string().parse().ok()?;
            (tag, Entry::Image(toolchain()), Some(files))
        }
    };
    let snapshot = Entry::Snapshot(toolchain(), tag.clone());
    let in_volume = disks
        .volumes
        .iter()
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
    let in_state = files.filter(|_| disks.state).map(|files| size(&files));
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
    use super::*;

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
