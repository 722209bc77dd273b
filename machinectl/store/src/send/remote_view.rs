//! Machines on other hosts, as those describe them.

use config::Revision;
use serde::{Deserialize, Serialize};

use crate::{ContentIdentity, MachineView, Note, RevisionView, Volume};

/// A machine on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteView {
    /// The current revision.
    pub current: Option<Revision>,
    /// The fault of a current link that does not lead to a complete revision.
    #[serde(default)]
    pub fault: Option<String>,
    /// All revisions.
    pub revisions: Vec<RemoteRevision>,
}

/// A revision on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRevision {
    /// The number.
    pub revision: Revision,
    /// True if it can be the parent of a stream.
    pub complete: bool,
    /// The identity of its content.
    #[serde(flatten)]
    pub content: ContentIdentity,
    /// The note on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
}

impl RemoteView {
    /// Describes a machine of this host. Reads the content manifests.
    pub(super) fn of(volume: &Volume, view: &MachineView) -> Self {
        let mut contents = volume.content_identities(view);
        let revision = |it: &RevisionView| RemoteRevision {
            revision: it.revision,
            complete: it.complete,
            content: contents
                .remove(&it.revision)
                .unwrap_or_else(|| ContentIdentity::new(&it.subvolume, None)),
            note: volume.note(&view.name, it.revision),
        };
        Self {
            current: view.current,
            fault: view.link_fault.clone(),
            revisions: view.revisions.iter().map(revision).collect(),
        }
    }

    /// Returns true if there is a current link, even if its target does not exist.
    pub fn has_link(&self) -> bool {
        self.current.is_some() || self.fault.is_some()
    }

    /// Returns a complete revision.
    pub fn revision(&self, revision: Revision) -> Option<&RemoteRevision> {
        let mut complete = self.revisions.iter().filter(|it| it.complete);
        complete.find(|it| it.revision == revision)
    }
}
