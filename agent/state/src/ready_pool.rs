//! The pool of ready guests.

use std::collections::BTreeMap;

use config::GuestTag;
use parking_lot::Mutex;
use session::ReadyGuest;
use store::{Snapshot, Uuid, Volume};

/// A ready guest and the snapshot in which it was restored.
#[derive(Debug)]
pub struct PooledGuest {
    /// The guest.
    pub guest: ReadyGuest,
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// The volume of the snapshot.
    pub volume: Volume,
}

/// A place in the pool. It is empty while its guest is being made.
#[derive(Debug)]
struct Place {
    image: Uuid,
    guest: Option<PooledGuest>,
}

/// The ready guests, and those that are being made.
#[derive(Debug, Default)]
pub struct ReadyPool(Mutex<BTreeMap<GuestTag, Place>>);

impl ReadyPool {
    /// Adds a place for a guest that is being made from an image.
    pub fn reserve(&self, tag: GuestTag, image: Uuid) {
        self.0.lock().insert(tag, Place { image, guest: None });
    }

    /// Puts a guest into its place.
    ///
    /// # Errors
    /// Returns the guest if its place was given up meanwhile.
    pub fn put(&self, tag: GuestTag, guest: PooledGuest) -> Result<(), Box<PooledGuest>> {
        match self.0.lock().get_mut(&tag) {
            Some(place) => {
                place.guest = Some(guest);
                Ok(())
            }
            None => Err(Box::new(guest)),
        }
    }

    /// Takes a guest of an image out of the pool, the oldest first.
    pub fn take(&self, image: Uuid) -> Option<PooledGuest> {
        let mut places = self.0.lock();
        let is_it = |place: &Place| place.image == image && place.guest.is_some();
        let tag = *places.iter().find(|(_, place)| is_it(place))?.0;
        places.remove(&tag)?.guest
    }

    /// Removes a place, and returns its guest if that is ready.
    pub fn remove(&self, tag: GuestTag) -> Option<PooledGuest> {
        self.0.lock().remove(&tag)?.guest
    }

    /// Removes all places, and returns the guests that are ready.
    pub fn remove_all(&self) -> Vec<PooledGuest> {
        let places = std::mem::take(&mut *self.0.lock());
        places
            .into_values()
            .filter_map(|place| place.guest)
            .collect()
    }

    /// Returns the image of each ready guest and of those that are being made.
    pub fn images(&self) -> BTreeMap<GuestTag, Uuid> {
        let places = self.0.lock();
        let images = places.iter().map(|(tag, place)| (*tag, place.image));
        images.collect()
    }
}
