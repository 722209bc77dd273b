//! The hot images: those from which guests were restored repeatedly in the last minutes.
//!
//! All guests that are restored from a hot image share the memory of its checkpoint, in one
//! sealed file in the host's memory. It is dropped when the image cools.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use guest::SealedMemory;
use parking_lot::Mutex;
use store::Uuid;

/// The number of restores that are remembered of each image.
const RESTORES_MAX: usize = 64;
/// The time within which restores count as simultaneous.
const TOGETHER: Duration = Duration::from_secs(1);
/// The time after the last restore in which an image is hot.
const HOT_FOR: Duration = Duration::from_mins(5);

/// The hot images, and those that may become hot.
#[derive(Debug, Default)]
pub struct HotImages(Mutex<BTreeMap<Uuid, Image>>);

#[derive(Debug)]
struct Image {
    /// The times of the last restores, the latest last.
    restores: VecDeque<Instant>,
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
            let first = Image {
                restores: VecDeque::from([now]),
                memory: Memory::Unshared,
            };
            images.insert(image, first);
            return RestoreMemory::Own;
        };
        known.restores.push_back(now);
        if known.restores.len() > RESTORES_MAX {
            known.restores.pop_front();
        }
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

    /// Returns the shared memory of an image, if it is loaded.
    pub fn memory(&self, image: Uuid) -> Option<SealedMemory> {
        match &self.0.lock().get(&image)?.memory {
            Memory::Loaded(memory) => Some(memory.clone()),
            _ => None,
        }
    }

    /// Returns the hot images, each with the number of ready guests that it should have: as many
    /// as the builds that arrived together lately, but at most `most`.
    pub fn wanted(&self, now: Instant, most: usize) -> BTreeMap<Uuid, usize> {
        let images = self.0.lock();
        let hot = images
            .iter()
            .filter(|(_, image)| image.is_hot(now) && image.restores.len() > 1);
        hot.map(|(uuid, image)| (*uuid, image.arrivals(now).min(most)))
            .filter(|(_, wanted)| *wanted > 0)
            .collect()
    }

    /// Lets an image cool at once.
    pub fn forget(&self, image: Uuid) {
        self.0.lock().remove(&image);
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
        let last = self.restores.back();
        last.is_some_and(|last| now.saturating_duration_since(*last) < HOT_FOR)
    }

    /// Returns the largest number of restores in a row, among the last ones, that began within
    /// [`TOGETHER`].
    fn arrivals(&self, now: Instant) -> usize {
        let recent = |time: &&Instant| now.saturating_duration_since(**time) < HOT_FOR;
        let times: Vec<_> = self.restores.iter().filter(recent).collect();
        let count_from = |start: usize| {
            let since = |time: &&&Instant| time.saturating_duration_since(*times[start]) < TOGETHER;
            times[start..].iter().take_while(since).count()
        };
        (0..times.len()).map(count_from).max().unwrap_or(0)
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
        guest::checkpoint::seal_memory(directory.path()).unwrap()
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
        images.cool(&all, start + Duration::from_secs(299));
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
    fn as_many_guests_are_wanted_as_builds_arrived_together() {
        let (images, start) = (HotImages::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        images.restore(IMAGE, at(0));
        assert!(images.wanted(at(0), 8).is_empty());
        for time in [60_000, 60_300, 60_900, 61_800, 120_000] {
            images.restore(IMAGE, at(time));
        }
        assert_eq!(images.wanted(at(120_000), 8), BTreeMap::from([(IMAGE, 3)]));
        assert_eq!(images.wanted(at(120_000), 2), BTreeMap::from([(IMAGE, 2)]));
        assert!(images.wanted(at(120_000), 0).is_empty());
        // The burst is forgotten before the image cools.
        assert_eq!(images.wanted(at(400_000), 8), BTreeMap::from([(IMAGE, 1)]));
        assert!(images.wanted(at(420_000), 8).is_empty());
        for _ in 0..2 * RESTORES_MAX {
            images.restore(OTHER, at(0));
        }
        assert_eq!(images.wanted(at(0), 1000)[&OTHER], RESTORES_MAX);
        images.forget(OTHER);
        assert!(!images.wanted(at(0), 1000).contains_key(&OTHER));
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
