//! The space that machines take, counted once for each state of their revisions and images.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;
use parking_lot::Mutex;
use store::{MachineUsage, MachineView, Uuid, Volume};
use tracing::debug;

/// The revisions and images that were counted. Complete ones do not change.
type CountedEntries = Vec<Uuid>;

/// The space that machines take. It costs a walk through all files, so an answer is kept until a
/// revision or image comes or goes.
#[derive(Debug, Default)]
pub struct MachineSizes(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counted: BTreeMap<MachineName, (CountedEntries, Option<MachineUsage>)>,
    running: BTreeSet<MachineName>,
}

impl MachineSizes {
    /// Returns the space of a machine if it was counted in its present state; the inner value is
    /// `None` if it could not be counted.
    pub fn known(&self, view: &MachineView) -> Option<Option<MachineUsage>> {
        let counts = self.0.lock();
        let (entries, usage) = counts.counted.get(&view.name)?;
        (*entries == entries_of(view)).then(|| usage.clone())
    }

    /// Counts the space of a machine, unless that happens already. Blocks for seconds.
    pub fn count(&self, volume: &Volume, view: &MachineView) {
        if !self.0.lock().running.insert(view.name.clone()) {
            return;
        }
        let usage = volume.usage(view);
        if let Err(error) = &usage {
            let error = error as &dyn std::error::Error;
            debug!(machine = %view.name, error, "cannot count the space of a machine");
        }
        let mut counts = self.0.lock();
        counts.running.remove(&view.name);
        let counted = (entries_of(view), usage.ok());
        counts.counted.insert(view.name.clone(), counted);
    }

    /// Drops the space of machines that do not exist.
    pub fn retain(&self, exists: impl Fn(&MachineName) -> bool) {
        self.0.lock().counted.retain(|name, _| exists(name));
    }
}

fn entries_of(view: &MachineView) -> CountedEntries {
    let revisions = view.revisions.iter().map(|it| it.uuid);
    revisions
        .chain(view.images.iter().map(|it| it.uuid))
        .collect()
}
