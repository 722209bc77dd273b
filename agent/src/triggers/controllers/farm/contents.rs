//! The contents of the current revisions of this host. Each is read once, and again after a change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use config::task::Digest;
use config::{MachineName, Revision};
use planner::Observed;
use state::AgentState;
use store::{Located, Uuid, VolumeId};
use tracing::warn;

/// The pause before a content that was not known is read again: a person may have recorded it.
const AGAIN: Duration = Duration::from_secs(10);

/// The state of a current revision, on which its content depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CurrentRevision {
    volume: VolumeId,
    revision: Revision,
    uuid: Uuid,
    transaction: u64,
    is_recorded: bool,
}

impl CurrentRevision {
    fn of(state: &Located) -> Option<Self> {
        let revision = state.view.current?;
        let mut revisions = state.view.revisions.iter();
        let found = revisions.find(|it| it.revision == revision)?;
        Some(Self {
            volume: state.volume,
            revision,
            uuid: found.uuid,
            transaction: found.subvolume.transaction,
            is_recorded: state.view.content_records.contains(&revision),
        })
    }
}

/// A content that is read, or that was.
#[derive(Debug)]
struct Reading {
    of: CurrentRevision,
    /// The time and the result; `None` while it is read.
    read: Option<(Instant, Option<Digest>)>,
}

/// The contents of the machines.
#[derive(Debug, Default)]
pub(super) struct Contents(BTreeMap<MachineName, Reading>);

impl Contents {
    /// Returns the content of a machine's current revision, if it is known.
    pub(super) fn of(&self, observed: &Observed, machine: &MachineName) -> Option<Digest> {
        let current = CurrentRevision::of(observed.machines.get(machine)?)?;
        let known = self.0.get(machine).filter(|it| it.of == current)?;
        known.read.as_ref()?.1.clone()
    }

    /// Returns the revisions whose contents must be read now, and notes that they are.
    pub(super) fn begin(
        &mut self,
        observed: &Observed,
        now: Instant,
    ) -> Vec<(MachineName, CurrentRevision)> {
        let mut begun = Vec::new();
        for (machine, state) in &observed.machines {
            let Some(of) = CurrentRevision::of(state) else {
                continue;
            };
            let known = self.0.get(machine).filter(|it| it.of == of);
            let is_known = known.is_some_and(|it| match &it.read {
                None | Some((_, Some(_))) => true,
                Some((read, None)) => now.saturating_duration_since(*read) < AGAIN,
            });
            if !is_known {
                begun.push((machine.clone(), of.clone()));
                self.0.insert(machine.clone(), Reading { of, read: None });
            }
        }
        begun
    }

    /// Notes a content that was read. Returns true if it says something new.
    pub(super) fn note(
        &mut self,
        machine: &MachineName,
        of: &CurrentRevision,
        content: Option<Digest>,
        now: Instant,
    ) -> bool {
        let Some(reading) = self.0.get_mut(machine).filter(|it| it.of == *of) else {
            return false;
        };
        let is_known = content.is_some();
        reading.read = Some((now, content));
        is_known
    }
}

/// Reads the content of a revision. Blocks.
pub(super) fn read(
    agent: &AgentState,
    machine: &MachineName,
    of: &CurrentRevision,
) -> Option<Digest> {
    let read = agent
        .volumes
        .get(of.volume)?
        .content_digest(machine, of.revision);
    read.unwrap_or_else(|error| {
        let (error, revision) = (&error as &dyn std::error::Error, of.revision);
        warn!(%machine, %revision, error, "cannot read the content of a revision");
        None
    })
}
