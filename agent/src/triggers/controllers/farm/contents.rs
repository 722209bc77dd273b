//! The contents of the revisions that this host offers: the current ones, and those on trial. Each is read
//! once, and again after a change.

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

/// The state of an offered revision, on which its content depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OfferedRevision {
    volume: VolumeId,
    revision: Revision,
    uuid: Uuid,
    transaction: u64,
    is_recorded: bool,
}

impl OfferedRevision {
    /// Returns the current revision of a machine, and the one on trial.
    fn all(state: &Located) -> impl Iterator<Item = Self> {
        let candidate = state.view.candidate().map(|(it, _)| it.revision);
        let offered = state.view.current.into_iter().chain(candidate);
        offered.filter_map(|it| Self::of(state, it))
    }

    fn of(state: &Located, revision: Revision) -> Option<Self> {
        let found = state.view.revision(revision)?;
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
    of: OfferedRevision,
    /// The time and the result; `None` while it is read.
    read: Option<(Instant, Option<Digest>)>,
}

/// The contents of the offered revisions.
#[derive(Debug, Default)]
pub(super) struct Contents(BTreeMap<(MachineName, Revision), Reading>);

impl Contents {
    /// Returns the content of an offered revision, if it is known.
    pub(super) fn of(
        &self,
        observed: &Observed,
        machine: &MachineName,
        revision: Revision,
    ) -> Option<Digest> {
        let of = OfferedRevision::of(observed.machines.get(machine)?, revision)?;
        let known = self.0.get(&(machine.clone(), revision));
        known.filter(|it| it.of == of)?.read.as_ref()?.1.clone()
    }

    /// Returns the revisions whose contents must be read now, and notes that they are.
    pub(super) fn begin(
        &mut self,
        observed: &Observed,
        now: Instant,
    ) -> Vec<(MachineName, OfferedRevision)> {
        let mut begun = Vec::new();
        let machines = observed.machines.iter();
        for (machine, of) in
            machines.flat_map(|(name, state)| OfferedRevision::all(state).map(move |it| (name, it)))
        {
            let key = (machine.clone(), of.revision);
            let known = self.0.get(&key).filter(|it| it.of == of);
            let is_known = known.is_some_and(|it| match &it.read {
                None | Some((_, Some(_))) => true,
                Some((read, None)) => now.saturating_duration_since(*read) < AGAIN,
            });
            if !is_known {
                begun.push((machine.clone(), of.clone()));
                self.0.insert(key, Reading { of, read: None });
            }
        }
        begun
    }

    /// Notes a content that was read. Returns true if it says something new.
    pub(super) fn note(
        &mut self,
        machine: &MachineName,
        of: &OfferedRevision,
        content: Option<Digest>,
        now: Instant,
    ) -> bool {
        let Some(reading) = self
            .0
            .get_mut(&(machine.clone(), of.revision))
            .filter(|it| it.of == *of)
        else {
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
    of: &OfferedRevision,
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
