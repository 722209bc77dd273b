//! Sending: revisions as streams, to files, and to other build hosts by ssh.

mod export;
mod provide;
mod refusal;
mod remote;
mod remote_view;
pub mod session;
mod size;
mod ssh;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use config::layout::Entry;
use config::{MachineName, Revision};

pub use export::ExportFormat;
pub use provide::provide;
pub use refusal::RemoteRefusal;
pub use remote::{RemoteHost, RemoteSession, RemoteStream};
pub use remote_view::{RemoteRevision, RemoteView};

use crate::ingest::PartialRevision;
use crate::{ContentIdentity, MachineView, Result, RevisionView, Uuid, Volume, btrfs_progs};
use btrfs::stream::{BtrfsSend, SendStream, TimeoutReader};
use contents::content_manifest;

/// A revision that is being sent.
#[derive(Debug)]
pub struct OutgoingStream {
    /// The revision.
    pub revision: Revision,
    /// The parent of an incremental stream; `None` for a full one.
    pub parent: Option<Revision>,
    /// The stream.
    pub stream: SendStream,
    /// The locks that prevent the deletion of the revision and its parent.
    locks: Vec<File>,
}

impl OutgoingStream {
    /// Copies the stream up to its end; returns the number of bytes.
    ///
    /// # Errors
    /// The sender fails, or the sink cannot be written to.
    pub fn copy_to(self, sink: impl Write) -> Result<u64> {
        let Self { stream, locks, .. } = self;
        let copied = stream.copy_to(sink);
        drop(locks);
        copied
    }
}

/// Returns the newest complete revision, other than the one to send, that the receiver has
/// too. `known` are the UUIDs that the receiver has.
fn newest_known(view: &MachineView, revision: Revision, known: &[Uuid]) -> Option<Revision> {
    view.revisions
        .iter()
        .filter(|it| it.complete && it.revision != revision)
        .rfind(|it| known.contains(&it.subvolume.stream_uuid()))
        .map(|it| it.revision)
}

impl Volume {
    /// Starts to send a complete revision, by default the current one.
    ///
    /// # Errors
    /// There is no such revision, or it cannot be sent.
    pub fn send(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
    ) -> Result<OutgoingStream> {
        self.send_to(1, machine, revision, known)
    }

    /// Starts to send a revision, as [`Volume::send`] does, to a receiver that understands a
    /// version of the stream format. From version 2 on, content that is compressed here is sent so.
    ///
    /// # Errors
    /// Those of [`Volume::send`].
    pub fn send_to(
        &self,
        stream_version: u32,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
    ) -> Result<OutgoingStream> {
        let options: &[_] = if stream_version.min(btrfs_progs::stream_version()) >= 2 {
            &["--proto", "2", "--compressed-data"]
        } else {
            &[]
        };
        let sending = self.start_send(machine, revision, known, options)?;
        let stream = SendStream::open_from(Some(Box::new(sending.sender)), sending.output)?;
        Ok(OutgoingStream {
            revision: sending.revision,
            parent: sending.parent,
            stream,
            locks: sending.locks,
        })
    }

    /// Starts to send a revision, as [`Volume::send_to`] does, behind what the receiver has from a
    /// transfer that was cut. The second value is false if the stream begins at its start: nothing
    /// was received before, or something has changed at one end.
    ///
    /// # Errors
    /// Those of [`Volume::send`].
    pub fn send_rest(
        &self,
        stream_version: u32,
        machine: &MachineName,
        revision: Revision,
        known: &[Uuid],
        partial: Option<&PartialRevision>,
    ) -> Result<(OutgoingStream, bool)> {
        let start = || self.send_to(stream_version, machine, Some(revision), known);
        let mut outgoing = start()?;
        let header = outgoing.stream.header();
        let names = (header.uuid, header.parent.map(|it| it.uuid));
        match partial.filter(|it| (it.uuid, it.parent) == names) {
            None => Ok((outgoing, false)),
            Some(partial) if outgoing.stream.skip(&partial.parts)? => Ok((outgoing, true)),
            Some(_) => Ok((start()?, false)),
        }
    }

    /// Returns the given revision if it is complete, by default the current one.
    ///
    /// # Errors
    /// There is no such revision.
    pub fn resolve_revision(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
    ) -> Result<Revision> {
        Ok(self.view(machine)?.resolve(revision)?)
    }

    fn start_send(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
        options: &[&str],
    ) -> Result<Sending> {
        let view = self.view(machine)?;
        let revision = view.resolve(revision)?;
        let parent = newest_known(&view, revision, known);
        let locks = [Some(revision), parent]
            .into_iter()
            .flatten()
            .map(|revision| self.lock_revision(machine, revision))
            .collect::<Result<Vec<_>>>()?;
        let path = |revision| self.entry(machine, &Entry::Revision(revision));
        let parent_path = parent.map(path);
        let (sender, output) = BtrfsSend::start(&path(revision), parent_path.as_deref(), options)?;
        Ok(Sending {
            revision,
            parent,
            sender,
            output,
            locks,
        })
    }

    /// Returns true if a revision, with the identity `here`, has the same content as one on another
    /// host. Verifies it if its identity alone does not tell.
    pub fn is_same_content(
        &self,
        machine: &MachineName,
        revision: Revision,
        here: &ContentIdentity,
        there: &ContentIdentity,
    ) -> bool {
        let is_unchanged = || self.has_recorded_content(machine, revision);
        here.has_same_content(there) || (here.may_have_same_content(there) && is_unchanged())
    }

    /// Returns true if a revision has the content that its manifest names. Verifies it if its
    /// inodes do not tell.
    pub fn has_recorded_content(&self, machine: &MachineName, revision: Revision) -> bool {
        self.is_as_recorded(machine, revision) || self.verify(machine, Some(revision)).is_ok()
    }

    /// Returns the identities of a machine's complete revisions. Reads their content manifests.
    pub fn content_identities(&self, view: &MachineView) -> BTreeMap<Revision, ContentIdentity> {
        let identity = |it: &RevisionView| {
            let directory = self.entry(&view.name, &Entry::Revision(it.revision));
            let manifest = content_manifest::digest(&directory);
            (it.revision, ContentIdentity::new(&it.subvolume, manifest))
        };
        let complete = view.revisions.iter().filter(|it| it.complete);
        complete.map(identity).collect()
    }
}

/// A running `btrfs send`, with the locks of what it reads.
struct Sending {
    revision: Revision,
    parent: Option<Revision>,
    sender: BtrfsSend,
    output: TimeoutReader,
    locks: Vec<File>,
}

/// Quotes a path for a shell.
fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
