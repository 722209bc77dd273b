//! Ready guests: how many wait for the next builds of each hot image.

use std::collections::BTreeMap;

use config::ImageKey;
use config::builds::StartKind;
use jiff::SignedDuration;
use store::{Uuid, VolumeId};

use super::{Action, Observed, ReadyStart};

/// The time after the start of a build in which no ready guest is made: the builds that start have
/// the processors.
pub const REFILL_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// The ready guests that an image should have.
struct Target {
    key: ImageKey,
    volume: VolumeId,
    /// The number that may stay.
    most: usize,
    /// The number up to which others are made.
    least: usize,
}

impl Observed {
    /// Returns the ready guests to make and to end.
    pub(super) fn ready_guests(&self) -> Vec<Action> {
        let mut targets = self.ready_targets();
        let mut actions = Vec::new();
        for (tag, image) in &self.ready {
            match targets.get_mut(image) {
                Some(target) if target.most > 0 => {
                    target.most -= 1;
                    target.least = target.least.saturating_sub(1);
                }
                _ => actions.push(Action::DiscardReadyGuest(*tag)),
            }
        }
        let may_make = !self.is_starting_builds();
        let missing = targets
            .into_iter()
            .filter(|(_, target)| may_make && target.least > 0)
            .flat_map(|(image, target)| {
                let start = ReadyStart {
                    image,
                    key: target.key,
                    volume: target.volume,
                };
                std::iter::repeat_n(Action::PrepareGuest(start), target.least)
            });
        actions.extend(missing);
        actions
    }

    /// Returns true if a build has started less than [`REFILL_PAUSE`] ago.
    fn is_starting_builds(&self) -> bool {
        let mut running = self.running.values();
        running.any(|build| self.now.duration_since(build.since) < REFILL_PAUSE)
    }

    fn ready_targets(&self) -> BTreeMap<Uuid, Target> {
        let keys = self.start_modes.iter();
        let restored = keys.filter(|(_, mode)| mode.start == StartKind::Restored);
        restored
            .filter_map(|(key, _)| self.ready_target(key))
            .collect()
    }

    /// Returns the target of an image; `None` if it is not hot, if its builds cannot start
    /// now, or if its guests need countable resources.
    fn ready_target(&self, key: &ImageKey) -> Option<(Uuid, Target)> {
        let image = self.image(key)?.uuid;
        let wanted = *self.hot_images.get(&image)?;
        let state = self.machines.get(&key.machine)?;
        let in_service = state.view.current.is_some()
            && self.drained.is_none()
            && self.capacity.pressure.is_none()
            && self.halt(&key.machine).is_none();
        if !in_service {
            return None;
        }
        let request = self.requests.get(key)?;
        // A ready guest would have a countable resource before a build needs it.
        if !request.counts.is_empty() {
            return None;
        }
        let memory = request.memory;
        // They give way before the host runs out of memory, and come back only when there is
        // plenty of it, so that they do not come and go.
        let available = self.capacity.available;
        let target = Target {
            key: key.clone(),
            volume: state.volume,
            most: if available < memory { 0 } else { wanted },
            least: if available < 2 * memory { 0 } else { wanted },
        };
        Some((image, target))
    }
}
