//! The facts that an image or a revision states about itself, read once: both are
//! immutable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use config::machine::Machine;
use parking_lot::Mutex;
use store::Uuid;

/// The facts that an image or a revision states about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The machine's manifest, or the reason for which it cannot be used.
    pub machine: Result<Machine, String>,
    /// The checkpoint of a guest in it.
    pub checkpoint: CheckpointFacts,
}

/// The facts about the checkpoint in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// `true` if there is one.
    pub exists: bool,
    /// The reason for which none can be made of this image.
    pub unsupported: Option<String>,
    /// Its size on disk, in bytes.
    pub bytes: u64,
}

impl ImageFacts {
    /// Reads the facts from the directory of an image, a revision or a snapshot.
    pub fn read(directory: &Path) -> Self {
        let machine = store::machine_manifest(directory);
        Self {
            machine: machine.map_err(|error| sys::error_report::chain(&error)),
            checkpoint: CheckpointFacts {
                exists: guest::checkpoint::exists(directory),
                unsupported: guest::checkpoint::unsupported_reason(directory),
                bytes: guest::checkpoint::memory_bytes(directory),
            },
        }
    }
}

/// The facts of the images and revisions that exist, each read once.
#[derive(Debug, Default)]
pub struct ImageFactsCache(Mutex<BTreeMap<Uuid, Arc<ImageFacts>>>);

impl ImageFactsCache {
    /// Returns the facts of a complete image or revision. A manifest that cannot be read
    /// now is read again the next time.
    pub fn get(&self, uuid: Uuid, directory: &Path) -> Arc<ImageFacts> {
        if let Some(facts) = self.0.lock().get(&uuid) {
            return Arc::clone(facts);
        }
        let facts = Arc::new(ImageFacts::read(directory));
        if facts.machine.is_ok() {
            self.0.lock().insert(uuid, Arc::clone(&facts));
        }
        facts
    }

    /// Drops the facts of everything that is not in `existing`.
    pub fn retain(&self, existing: &BTreeSet<Uuid>) {
        self.0.lock().retain(|uuid, _| existing.contains(uuid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_once_it_can_be_read_and_never_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ImageFactsCache::default();
        let uuid = Uuid::from_u128(1);
        assert!(cache.get(uuid, directory.path()).machine.is_err());
        let manifest = directory.path().join(config::machine::FILE);
        let text = ": 1\nid: x\nsummary: y\nram-minimum: 262144\n";
        sys::file::replace(&manifest, text.as_bytes()).unwrap();
        assert!(cache.get(uuid, directory.path()).machine.is_ok());
        std::fs::remove_file(&manifest).unwrap();
        assert!(cache.get(uuid, directory.path()).machine.is_ok());
        cache.retain(&BTreeSet::new());
        assert!(cache.get(uuid, directory.path()).machine.is_err());
    }
}
