//! Wakes the reconciler when a volume, a machine's directory or a toolchain
//! changes. The watches follow what is there; a slow timer makes up for what the
//! kernel does not tell.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use crate::scheduler::Observed;
use crate::state::AgentState;

/// The directories that are watched.
pub struct Watch {
    watcher: RecommendedWatcher,
    /// Each with its inode: a directory that was replaced must be watched anew.
    watched: BTreeMap<PathBuf, u64>,
}

impl Watch {
    /// Watches nothing yet; wakes `host`.
    pub fn new(agent: &Arc<AgentState>) -> notify::Result<Self> {
        let agent = Arc::clone(agent);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may mean lost events: then it is better to look than to trust.
            if !matches!(event, Ok(event) if is_our_own_looking(event.kind)) {
                agent.stirred.notify_one();
            }
        })?;
        Ok(Self {
            watcher,
            watched: BTreeMap::new(),
        })
    }

    /// Watches exactly the directories of `world`.
    pub fn follow(&mut self, agent: &AgentState, world: &Observed) {
        let wanted = directories(agent, world);
        let gone = |path: &PathBuf, inode: &u64| wanted.get(path) != Some(inode);
        for path in self.watched.extract_if(.., |path, inode| gone(path, inode)) {
            // The kernel drops the watch of a directory that is deleted by itself.
            let _ = self.watcher.unwatch(&path.0);
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

/// Whether an event only tells that somebody reads.
fn is_our_own_looking(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(_))
}

/// The directories that matter, with their inodes.
fn directories(agent: &AgentState, world: &Observed) -> BTreeMap<PathBuf, u64> {
    let volumes = agent.volumes.iter().map(|volume| volume.path().to_owned());
    let machines = world
        .machines
        .values()
        .filter_map(|seen| Some(agent.volumes.get(seen.volume)?.directory(&seen.view.name)));
    let toolchains = agent.toolchains.path();
    let each = world.toolchains.keys().map(|name| toolchains.join(name));
    let all = volumes
        .chain(machines)
        .chain([toolchains.to_owned()])
        .chain(each);
    all.filter_map(|path| std::fs::metadata(&path).ok().map(|data| (path, data.ino())))
        .collect()
}
