//! The reasons why a machine or one of its revisions cannot be used.

use config::text::join_and;
use config::{MachineName, Revision};

use crate::{Refusal, RefusalKind};

/// A reason why a machine or one of its revisions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineRefusal {
    /// The volume has no directory of this name.
    #[error("there is no machine `{0}`; `buildhost list` lists all machines")]
    NotFound(MachineName),
    /// The machine's link does not lead to a complete revision.
    #[error(
        "machine `{machine}` has no current revision{}; `buildhost rollback {machine} REVISION` makes one current",
        fault.as_ref().map_or_else(String::new, |fault| format!(": {fault}"))
    )]
    NoCurrent {
        /// The machine.
        machine: MachineName,
        /// The fault of the link, if there is a link.
        fault: Option<String>,
    },
    /// The deletion of the machine has begun.
    #[error(
        "machine `{0}` is being deleted; wait for the end of the deletion, or repeat `buildhost delete {0}`"
    )]
    Deleting(MachineName),
    /// The machine has pinned revisions, and is to be deleted.
    #[error(
        "machine `{machine}` has pinned revisions ({}); unpin them (`buildhost unpin {machine} REVISION`), or delete them too with `--force`, which also deletes snapshots in use",
        join_and(revisions)
    )]
    Pinned {
        /// The machine.
        machine: MachineName,
        /// The pinned revisions.
        revisions: Vec<Revision>,
    },
    /// The revision does not exist or is not complete.
    #[error("machine `{0}` has no complete revision {1}; `buildhost status {0}` lists them")]
    NoRevision(MachineName, Revision),
    /// No complete revision precedes this one.
    #[error("machine `{0}` has no complete revision before {1}")]
    NoOlderRevision(MachineName, Revision),
}

impl Refusal for MachineRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotFound(_)
            | Self::NoCurrent { .. }
            | Self::NoRevision(..)
            | Self::NoOlderRevision(..) => RefusalKind::NotFound,
            Self::Deleting(_) => RefusalKind::Deleting,
            Self::Pinned { .. } => RefusalKind::Invalid,
        }
    }
}
