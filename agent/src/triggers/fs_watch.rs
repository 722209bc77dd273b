//! Starts a round of the scheduler when a watched directory changes: a volume, the
//! directory of a machine, a toolchain. A slow timer covers events that the kernel loses.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use state::AgentState;

/// The watches of directories.
pub struct Watch {
    watcher: RecommendedWatcher,
    /// The watched directories and their inodes: a directory that was replaced needs a new
    /// watch.
    watched: BTreeMap<PathBuf, u64>,
}

impl Watch {
    /// Returns watches of no directory that wake the scheduler of `agent`.
    pub fn new(agent: &Arc<AgentState>) -> notify::Result<Self> {
        let agent = Arc::clone(agent);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // After an error, events may be missing.
            if !matches!(event, Ok(event) if is_read(event.kind)) {
                agent.stirred.notify_one();
            }
        })?;
        Ok(Self {
            watcher,
            watched: BTreeMap::new(),
        })
    }

    /// Watches exactly these directories, given with their inodes.
    pub fn follow(&mut self, wanted: BTreeMap<PathBuf, u64>) {
        let is_stale = |path: &PathBuf, inode: &u64| wanted.get(path) != Some(inode);
        for (path, _) in self
            .watched
            .extract_if(.., |path, inode| is_stale(path, inode))
        {
            // The kernel removes the watch of a deleted directory by itself.
            let _ = self.watcher.unwatch(&path);
        }
        for (path, inode) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path, inode);
                }
                Err(error) => warn!(path = %path.display(), %error, "cannot watch a directory"),
            }
        }
    }
}

/// Returns the inodes of directories. Those that do not exist are left out. Blocks.
pub fn inodes(directories: Vec<PathBuf>) -> BTreeMap<PathBuf, u64> {
    directories
        .into_iter()
        .filter_map(|path| {
            let inode = std::fs::metadata(&path).ok()?.ino();
            Some((path, inode))
        })
        .collect()
}

/// Returns true if an event only tells that a file was read.
fn is_read(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(_))
}
