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

use crate::host::Host;
use crate::reconcile::World;

/// The directories that are watched.
pub struct Watch {
    watcher: RecommendedWatcher,
    /// Each with its inode: a directory that was replaced must be watched anew.
    watched: BTreeMap<PathBuf, u64>,
}

impl Watch {
    /// Watches nothing yet; wakes `host`.
    pub fn new(host: &Arc<Host>) -> notify::Result<Self> {
        let host = Arc::clone(host);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may mean lost events: then it is better to look than to trust.
            if !matches!(event, Ok(event) if is_our_own_looking(event.kind)) {
                host.stirred.notify_one();
            }
        })?;
        Ok(Self {
            watcher,
            watched: BTreeMap::new(),
        })
    }

    /// Watches exactly the directories of `world`.
    pub fn follow(&mut self, host: &Host, world: &World) {
        let wanted = directories(host, world);
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
fn directories(host: &Host, world: &World) -> BTreeMap<PathBuf, u64> {
    let volumes = host.volumes.iter().map(|volume| volume.path().to_owned());
    let machines = world
        .machines
        .values()
        .filter_map(|seen| Some(host.volumes.get(seen.volume)?.directory(&seen.view.name)));
    let toolchains = host.toolchains.path();
    let each = world.toolchains.keys().map(|name| toolchains.join(name));
    let all = volumes
        .chain(machines)
        .chain([toolchains.to_owned()])
        .chain(each);
    all.filter_map(|path| std::fs::metadata(&path).ok().map(|data| (path, data.ino())))
        .collect()
}
