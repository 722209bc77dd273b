//! Thinks: what is held for a person gives way to what the host needs.

use config::BuildId;

use super::{Pair, Step, World};

impl World {
    /// What is let go of: everything where there is too little room, or of a machine
    /// that goes; and one guest when a candidate in `order` is not in `starting`, or an
    /// image is to be made and is not.
    pub(super) fn yielding(&self, starting: &[Step], order: &[BuildId]) -> Vec<Step> {
        let unwanted = |(_, (pair, _)): &(&BuildId, &(Pair, bool))| {
            let seen = self.machines.get(&pair.machine);
            self.halt(&pair.machine).is_some() || seen.is_none_or(|seen| seen.view.deleting)
        };
        let (gone, stay): (Vec<_>, Vec<_>) = self.jobs.held.iter().partition(unwanted);
        let mut steps: Vec<_> = gone.into_iter().map(|(id, _)| Step::Release(*id)).collect();
        let mut guests = stay.into_iter().filter(|(_, (_, guest))| *guest);
        let waits = |id: &BuildId| !starting.contains(&Step::Build(*id));
        let made = |pair: &Pair| {
            let mut steps = starting.iter();
            steps.any(|step| matches!(step, Step::Bootstrap(it, _) if it == pair))
        };
        let awaited = order.iter().any(waits) || self.needed().iter().any(|pair| !made(pair));
        if steps.is_empty()
            && awaited
            && let Some((oldest, _)) = guests.next()
        {
            steps.push(Step::GiveWay(*oldest));
        }
        steps
    }
}
