//! Partial revisions: what has arrived of a revision whose transfer was cut or is slow. The next
//! transfer of the same stream continues behind it.
//!
//! A partial revision is a read-only subvolume, and a file that names the parts of the stream that
//! are in it. The next part is received into a snapshot of it.

use std::path::PathBuf;
use std::time::Instant;

use config::layout::Entry;
use config::{MachineName, Revision};
use serde::{Deserialize, Serialize};

use super::IngestRefusal;
use super::receive::Receiver;
use crate::lock::IngestLock;
use crate::{MachineView, Result, Uuid, Volume, clean};
use btrfs::error::IoContext;
use btrfs::stream::{
    Command, Header, Parent, Part, PartialReception, Progress, Received, SendStream, Sender,
    TimeoutReader,
};

/// The maximum size of the file with the parts, in bytes.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// A partial revision, as its receiver describes it to the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRevision {
    /// The revision.
    pub revision: Revision,
    /// The UUID by which the stream names the revision.
    pub uuid: Uuid,
    /// The UUID of the stream's parent; `None` for a full stream.
    pub parent: Option<Uuid>,
    /// The parts of the stream that have arrived.
    pub parts: Vec<Part>,
}

impl PartialRevision {
    /// Returns the number of bytes that have arrived.
    pub fn length(&self) -> u64 {
        self.parts.iter().map(|it| it.length).sum()
    }
}

/// The file with the parts.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The UUID of the subvolume. Another one does not have these parts.
    subvolume: Uuid,
    #[serde(flatten)]
    progress: Progress,
}

impl Volume {
    /// Returns the newest partial revision of a machine; `None` without one that can be continued.
    pub fn partial_revision(&self, view: &MachineView) -> Option<PartialRevision> {
        let newest_first = view.partial.iter().rev();
        let mut continuable = newest_first.filter(|it| view.is_continuable(**it));
        continuable.find_map(|revision| {
            let (_, progress) = self.read_partial(&view.name, *revision)?;
            let header = Header::of_stream(&progress.head).ok()?;
            Some(PartialRevision {
                revision: *revision,
                uuid: header.uuid,
                parent: header.parent.map(|it| it.uuid),
                parts: progress.parts,
            })
        })
    }

    /// Returns the stream that continues a partial revision with its rest.
    ///
    /// # Errors
    /// It cannot be continued any more.
    pub fn resume(
        &self,
        machine: &MachineName,
        partial: &PartialRevision,
        sender: Option<Box<dyn Sender>>,
        rest: TimeoutReader,
    ) -> Result<SendStream> {
        let path = self.entry(machine, &Entry::Partial(partial.revision));
        match self.read_partial(machine, partial.revision) {
            Some((_, progress)) if progress.parts == partial.parts => {
                SendStream::resume(progress, sender, rest)
            }
            _ => Err(IngestRefusal::Incomplete(path).into()),
        }
    }

    /// Returns the subvolume of a partial revision and what it has of the stream.
    fn read_partial(
        &self,
        machine: &MachineName,
        revision: Revision,
    ) -> Option<(Parent, Progress)> {
        let name = Entry::PartialState(revision).name(machine);
        let directory = self.directory(machine);
        let text = sys::untrusted::read_text(&directory, name, STATE_BYTES_MAX).ok()?;
        let state: State = serde_json::from_str(&text).ok()?;
        let path = self.entry(machine, &Entry::Partial(revision));
        let subvolume = self.backend.info(&path).ok()??;
        let base = Parent {
            uuid: subvolume.uuid,
            transaction: subvolume.transaction,
        };
        let is_kept = subvolume.read_only && subvolume.uuid == state.subvolume;
        is_kept.then_some((base, state.progress))
    }

    /// Receives a resumable stream as a revision. What has arrived is kept when the stream is cut,
    /// and now and then.
    pub(super) fn receive_in_parts(
        &self,
        machine: &MachineName,
        revision: Revision,
        stream: SendStream,
        parent: Option<PathBuf>,
        lock: &IngestLock,
        mut applied: impl FnMut(&Command<'_>),
    ) -> Result<()> {
        let directory = self.directory(machine);
        let partial = self.entry(machine, &Entry::Partial(revision));
        let is_resumed = stream.is_rest();
        let mut base = None;
        if is_resumed {
            let kept = self.read_partial(machine, revision);
            let kept = kept.filter(|(_, progress)| stream.progress() == Some(progress));
            let incomplete = || IngestRefusal::Incomplete(partial.clone());
            base = Some(kept.ok_or_else(incomplete)?.0);
        }
        let mut parts = stream.into_parts(parent, is_resumed.then_some(partial));
        loop {
            let began = Instant::now();
            let is_enough = |length| length > 0 && began.elapsed() >= self.part_duration;
            let mut receiver = Receiver::start(&directory, lock)?;
            let Some(mut sink) = receiver.running.child.stdin.take() else {
                return receiver.finish();
            };
            let end = match parts.receive_part(base, &mut sink, is_enough, &mut applied) {
                Ok(end) => end,
                Err(error) => {
                    receiver.abort(sink);
                    return Err(error);
                }
            };
            drop(sink);
            receiver.finish()?;
            match end {
                Received::All => return Ok(()),
                Received::Part => base = Some(self.keep_part(machine, revision, &parts)?),
                Received::Cut(error) => {
                    // The sender's error is the cause, whether the part can be kept or not.
                    let _ = self.keep_part(machine, revision, &parts);
                    return Err(error);
                }
            }
        }
    }

    /// Turns an incomplete revision into a partial one.
    fn keep_part(
        &self,
        machine: &MachineName,
        revision: Revision,
        parts: &PartialReception,
    ) -> Result<Parent> {
        let from = self.entry(machine, &Entry::Revision(revision));
        let partial = self.entry(machine, &Entry::Partial(revision));
        self.discard_partial(machine, revision)?;
        // A writable snapshot has no received UUID, so the next part finds it by its own.
        self.backend
            .snapshot(&from, &partial)
            .context("snapshot", &from)?;
        self.backend
            .make_read_only(&partial)
            .context("make read-only", &partial)?;
        self.backend.delete(&from).context("delete", &from)?;
        let subvolume = self.backend.info(&partial).context("inspect", &partial)?;
        let subvolume = subvolume.ok_or_else(|| IngestRefusal::Incomplete(partial.clone()))?;
        let state = State {
            subvolume: subvolume.uuid,
            progress: parts.progress().clone(),
        };
        let path = self.entry(machine, &Entry::PartialState(revision));
        let text = serde_json::to_vec(&state).map_err(std::io::Error::other);
        let written = text.and_then(|it| self.backend.write(&path, &it));
        written.context("write", &path)?;
        self.commit()?;
        Ok(Parent {
            uuid: subvolume.uuid,
            transaction: subvolume.transaction,
        })
    }

    /// Deletes the partial revisions of a machine. The caller holds its lock.
    pub(super) fn discard_partials(&self, view: &MachineView) -> Result<()> {
        let steps = clean::discard_partials(view);
        steps
            .iter()
            .try_for_each(|step| self.execute(&view.name, step))
    }

    fn discard_partial(&self, machine: &MachineName, revision: Revision) -> Result<()> {
        let state = self.entry(machine, &Entry::PartialState(revision));
        self.backend.unlink(&state).context("remove", &state)?;
        let partial = self.entry(machine, &Entry::Partial(revision));
        self.delete_subvolume(&partial).map(drop)
    }
}
