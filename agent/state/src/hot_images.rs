//! The hot images: those from which guests were restored repeatedly in the last minutes.
//!
//! All guests that are restored from a hot image share the memory of its checkpoint, in one
//! sealed file in the host's memory. It is dropped when the image cools.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use guest::SealedMemory;
use parking_lot::Mutex;
use store::Uuid;

/// The time after the last restore in which an image is hot.
const HOT_FOR: Duration = Duration::from_mins(5);

/// The hot images, and those that may become hot.
#[derive(Debug, Default)]
pub struct HotImages(Mutex<BTreeMap<Uuid, Image>>);

#[derive(Debug)]
struct Image {
    restored: Instant,
    memory: Memory,
}

#[derive(Debug, Clone)]
enum Memory {
    /// No second guest was restored yet.
    Unshared,
    /// A guest's attempt loads it.
    Loading,
    Loaded(SealedMemory),
    /// It could not be loaded; the image has to cool before the next try.
    Failed,
}

/// The memory of a guest to restore.
#[derive(Debug, Clone)]
pub enum RestoreMemory {
    /// That of the guest's own snapshot.
    Own,
    /// That of the guest's own snapshot. The caller loads the shared memory for the guests
    /// after it, and reports that with [`HotImages::loaded`].
    OwnAndLoad,
    /// The shared one.
    Shared(SealedMemory),
}

impl HotImages {
    /// Notes that a guest is restored from an image, and returns the memory that it gets.
    pub fn restore(&self, image: Uuid, now: Instant) -> RestoreMemory {
        let mut images = self.0.lock();
        let known = images.get_mut(&image);
        let Some(known) = known.filter(|image| image.is_hot(now)) else {
            let memory = Memory::Unshared;
            let restored = now;
            images.insert(image, Image { restored, memory });
            return RestoreMemory::Own;
        };
        known.restored = now;
        match &known.memory {
            Memory::Unshared => {
                known.memory = Memory::Loading;
                RestoreMemory::OwnAndLoad
            }
            Memory::Loading | Memory::Failed => RestoreMemory::Own,
            Memory::Loaded(memory) => RestoreMemory::Shared(memory.clone()),
        }
    }

    /// Notes the shared memory of an image, or that it could not be loaded.
    pub fn loaded(&self, image: Uuid, memory: Option<SealedMemory>) {
        if let Some(image) = self.0.lock().get_mut(&image) {
            image.memory = memory.map_or(Memory::Failed, Memory::Loaded);
        }
    }

    /// Drops what is not hot, and the images that are not in `existing`.
    pub fn cool(&self, existing: &BTreeSet<Uuid>, now: Instant) {
        self.0
            .lock()
            .retain(|uuid, image| existing.contains(uuid) && image.is_hot(now));
    }

    /// Returns the number of bytes of shared memory.
    pub fn bytes(&self) -> u64 {
        let images = self.0.lock();
        let bytes = images.values().map(|image| match &image.memory {
            Memory::Loaded(memory) => memory.bytes(),
            _ => 0,
        });
        bytes.sum()
    }
}

impl Image {
    fn is_hot(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.restored) < HOT_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn memory() -> SealedMemory {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("frozen.memory");
        sys::file::replace(&path, &[7; 4096]).unwrap();
        SealedMemory::load(directory.path()).unwrap()
    }

    #[test]
    fn the_second_guest_in_five_minutes_loads_what_the_later_ones_share() {
        let (images, start) = (HotImages::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(matches!(images.restore(IMAGE, at(0)), RestoreMemory::Own));
        assert!(matches!(images.restore(OTHER, at(1)), RestoreMemory::Own));
        let second = images.restore(IMAGE, at(299));
        assert!(matches!(second, RestoreMemory::OwnAndLoad), "{second:?}");
        // Only one guest loads it.
        assert!(matches!(images.restore(IMAGE, at(299)), RestoreMemory::Own));
        images.loaded(IMAGE, Some(memory()));
        assert_eq!(images.bytes(), 4096);
        let third = images.restore(IMAGE, at(598));
        assert!(matches!(third, RestoreMemory::Shared(_)), "{third:?}");
        assert!(matches!(images.restore(OTHER, at(598)), RestoreMemory::Own));
    }

    #[test]
    fn a_cold_or_deleted_image_keeps_no_memory() {
        let (images, start) = (HotImages::default(), Instant::now());
        let all = BTreeSet::from([IMAGE, OTHER]);
        for image in [IMAGE, OTHER] {
            images.restore(image, start);
            images.restore(image, start);
            images.loaded(image, Some(memory()));
        }
        images.cool(&all, start + HOT_FOR - Duration::from_secs(1));
        assert_eq!(images.bytes(), 8192);
        images.cool(&BTreeSet::from([IMAGE]), start);
        assert_eq!(images.bytes(), 4096);
        images.cool(&all, start + HOT_FOR);
        assert_eq!(images.bytes(), 0);
        // It is too late for an image that is gone.
        images.loaded(OTHER, Some(memory()));
        assert_eq!(images.bytes(), 0);
    }

    #[test]
    fn memory_that_cannot_be_loaded_is_not_tried_for_each_guest() {
        let (images, now) = (HotImages::default(), Instant::now());
        images.restore(IMAGE, now);
        images.restore(IMAGE, now);
        images.loaded(IMAGE, None);
        assert!(matches!(images.restore(IMAGE, now), RestoreMemory::Own));
    }
}
