//! The parent of an incremental stream: a complete revision here with the content that it has at
//! the sender. btrfs itself looks at the UUID only.

use std::path::PathBuf;

use config::layout::Entry;

use super::IngestRefusal;
use crate::{MachineView, Result, Volume};
use btrfs::error::IoContext;
use btrfs::stream::Parent;
use contents::content_manifest;

/// The parent of an incremental stream, as it was found here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundParent {
    /// The directory of the revision.
    pub(crate) path: PathBuf,
    /// True if the new revision must have a content manifest of its own, which is verified: the parent has the UUID that the stream names,
    /// but was last changed in another transaction. That is so if one host relayed it to the
    /// other, and also if the sender has changed it.
    pub(crate) must_verify: bool,
}

impl Volume {
    /// Returns the parent of a stream, preferably a revision of the stream's machine.
    ///
    /// # Errors
    /// There is no such revision, it is not complete, or its content may differ from the one at
    /// the sender and nothing would show that.
    pub(super) fn find_parent(&self, view: &MachineView, parent: Parent) -> Result<FoundParent> {
        self.check_parent(view, parent)?;
        let mut candidates = self.candidates(view, parent);
        if candidates.iter().all(|it| it.must_verify) {
            for other in self.views(&[])?.iter().filter(|it| it.name != view.name) {
                candidates.extend(self.candidates(other, parent));
            }
        }
        let exact = candidates.iter().find(|it| !it.must_verify);
        let Some(found) = exact.or(candidates.first()) else {
            return Err(IngestRefusal::NoParent(parent.uuid).into());
        };
        if found.must_verify && !content_manifest::exists(&found.path) {
            return Err(IngestRefusal::ParentDiffers(parent.uuid).into());
        }
        Ok(found.clone())
    }

    /// Returns the complete revisions of a machine that have the UUID of a parent.
    fn candidates(&self, view: &MachineView, parent: Parent) -> Vec<FoundParent> {
        let complete = view.revisions.iter().filter(|it| it.complete);
        complete
            .filter(|it| it.subvolume.has_identity(parent.uuid))
            .map(|it| FoundParent {
                path: self.entry(&view.name, &Entry::Revision(it.revision)),
                must_verify: !it.subvolume.is_in_state(parent.uuid, parent.transaction),
            })
            .collect()
    }

    /// Checks that the parent exists on the file system and is complete.
    fn check_parent(&self, view: &MachineView, parent: Parent) -> Result<()> {
        let candidates = self
            .backend
            .find(self.path(), parent.uuid)
            .context("search", self.path())?;
        if candidates.is_empty() {
            return Err(IngestRefusal::NoParent(parent.uuid).into());
        }
        if candidates.iter().any(|candidate| !candidate.read_only) {
            return Err(IngestRefusal::ParentChanged(parent.uuid).into());
        }
        // A read-only revision may be unfinished and lack content.
        let is_unfinished = view
            .revisions
            .iter()
            .any(|it| !it.complete && it.subvolume.has_identity(parent.uuid));
        if is_unfinished {
            return Err(IngestRefusal::NoParent(parent.uuid).into());
        }
        Ok(())
    }
}
