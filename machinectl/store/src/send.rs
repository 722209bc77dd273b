//! Sending a revision: to a pipe, or to another build host by ssh.

mod export;

mod remote;

mod measure;

use std::fs::File;
use std::path::Path;

use config::layout::Entry;
use config::{MachineName, Revision};

pub use export::Form;
pub use remote::{FarSide, FarView, RemoteRefusal};

use crate::stream::input::{Patient, Sender};
use crate::{MachineRefusal, MachineView, Result, Uuid, Volume};

/// A revision on its way out.
#[derive(Debug)]
pub struct Parting {
    /// Which revision.
    pub revision: Revision,
    /// What the stream builds on; `None` for a full one.
    pub parent: Option<Revision>,
    /// The `btrfs send` that makes the stream.
    pub sender: Sender,
    /// The stream.
    pub stream: Patient,
    /// Keep what is sent, and what the stream builds on, from being deleted.
    #[expect(dead_code, reason = "it is held, not read")]
    holds: Vec<File>,
}

/// The newest complete revision, other than the one to be sent, that the receiver
/// has too: `known` are the identities of what is there. Thinks only.
pub fn common_parent(view: &MachineView, revision: Revision, known: &[Uuid]) -> Option<Revision> {
    let complete = view
        .revisions
        .iter()
        .filter(|it| it.complete && it.revision != revision);
    let mut common = complete.filter(|it| known.contains(&it.subvolume.stream_uuid()));
    common.next_back().map(|it| it.revision)
}

impl Volume {
    /// Starts to send a complete revision; the current one when none is named.
    ///
    /// # Errors
    /// When there is no such revision.
    pub fn send(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
    ) -> Result<Parting> {
        self.start(machine, revision, known, &[])
    }

    /// Which revision [`Volume::send`] would send.
    ///
    /// # Errors
    /// When there is no such revision.
    pub fn plan_send(&self, machine: &MachineName, revision: Option<Revision>) -> Result<Revision> {
        let view = self.look(machine)?;
        match revision {
            None => Ok(view.need_current()?.revision),
            Some(revision) if view.revision(revision).is_some_and(|it| it.complete) => Ok(revision),
            Some(revision) => Err(MachineRefusal::NoRevision(machine.clone(), revision).into()),
        }
    }

    fn start(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
        options: &[&str],
    ) -> Result<Parting> {
        let revision = self.plan_send(machine, revision)?;
        let view = self.look(machine)?;
        let path = |revision| self.entry(machine, &Entry::Revision(revision));
        let parent = common_parent(&view, revision, known);
        let parent_path = parent.map(path);
        let holds = [Some(revision), parent].into_iter().flatten();
        let holds = holds.map(|revision| self.hold_revision(machine, revision));
        let holds = holds.collect::<Result<Vec<_>>>()?;
        let (sender, stream) =
            Sender::start_with(&path(revision), parent_path.as_deref(), options)?;
        Ok(Parting {
            revision,
            parent,
            sender,
            stream,
            holds,
        })
    }

    /// The identities under which streams can build on what this machine has here.
    pub fn identities(&self, machine: &MachineName) -> Vec<Uuid> {
        let Ok(view) = self.look(machine) else {
            return Vec::new();
        };
        let complete = view.revisions.iter().filter(|it| it.complete);
        complete
            .flat_map(|it| [Some(it.uuid), it.received_uuid])
            .flatten()
            .collect()
    }
}

/// A path as one word of a shell.
fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
