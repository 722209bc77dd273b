//! Subvolumes, and the backends that change them: btrfs ([`BtrfsBackend`]), and plain
//! directories for tests (`FakeBackend`, with the feature `fake`). One contract suite tests
//! both.

mod backend;
mod btrfs;
#[cfg(any(test, feature = "fake"))]
mod fake;
mod inode;
mod names;

use std::path::PathBuf;
use std::time::SystemTime;

pub use backend::SubvolumeBackend;
pub use btrfs::{BtrfsBackend, is_btrfs};
#[cfg(any(test, feature = "fake"))]
pub use fake::FakeBackend;
pub use uuid::Uuid;

use crate::{Refusal, RefusalKind};

/// The refusal to replace or delete an entry that should be a subvolume and is not.
#[derive(Debug, thiserror::Error)]
#[error("`{}` exists but is not a subvolume; move it away", .0.display())]
pub struct NotSubvolume(pub PathBuf);

impl Refusal for NotSubvolume {
    fn kind(&self) -> RefusalKind {
        RefusalKind::Invalid
    }
}

/// The effect of an idempotent operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The requested state existed before.
    Unchanged,
    /// The operation changed something.
    Changed,
}

/// The properties of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its own UUID.
    pub uuid: Uuid,
    /// The UUID of the subvolume that it is a snapshot of.
    pub parent_uuid: Option<Uuid>,
    /// The UUID of the subvolume that it was received from. Only a complete receive sets it.
    pub received_uuid: Option<Uuid>,
    /// The transaction of its creation.
    pub created_transaction: u64,
    /// The transaction of its last change. Together with the UUID it identifies the content.
    pub transaction: u64,
    /// The sender's transaction, if it was received. Together with the received UUID it
    /// identifies the content.
    pub received_transaction: Option<u64>,
    /// True if it cannot be written to.
    pub read_only: bool,
    /// The time of its creation.
    pub created: SystemTime,
}

impl Subvolume {
    /// Returns the UUID by which an incremental stream refers to the subvolume.
    pub fn stream_uuid(&self) -> Uuid {
        self.received_uuid.unwrap_or(self.uuid)
    }

    /// Returns true if an incremental stream with this parent may refer to the subvolume.
    pub fn has_identity(&self, identity: Uuid) -> bool {
        self.uuid == identity || self.received_uuid == Some(identity)
    }

    /// Returns true if the subvolume is the one that a stream names, or a received copy of it,
    /// in the state of that transaction.
    pub fn is_in_state(&self, uuid: Uuid, transaction: u64) -> bool {
        let own = (Some(self.uuid), Some(self.transaction));
        let received = (self.received_uuid, self.received_transaction);
        [own, received].contains(&(Some(uuid), Some(transaction)))
    }

    /// Returns true if the subvolume is a snapshot of another one that has not changed since, or
    /// a received copy of it or of what it was received from.
    pub fn has_content_of(&self, source: &Self) -> bool {
        let is_snapshot =
            self.parent_uuid == Some(source.uuid) && source.transaction <= self.created_transaction;
        let state = source.received_transaction.unwrap_or(source.transaction);
        is_snapshot || self.is_in_state(source.stream_uuid(), state)
    }
}
