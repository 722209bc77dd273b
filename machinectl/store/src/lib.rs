//! The store of machine images: all operations on volumes and toolchains.
//!
//! The directories are the database. A [`Volume`] shows machine directories and changes
//! them; each change holds the machine's lock and follows an order that survives a power
//! failure. [`toolchains::Toolchains`] keeps the files that guests install. Neither needs a
//! running agent.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod clean;
mod content_identity;
pub mod default_paths;
mod delete;
pub mod doctor;
mod image_files;
pub mod ingest;
pub mod init;
mod lock;
mod machine_change;
mod machine_refusal;
mod machine_state;
mod mount_table;
mod note;
mod pin;
pub mod prune;
mod publish;
pub mod pull;
mod revision_content;
mod revision_diff;
mod rollback;
pub mod send;
mod snapshot;
pub mod space;
pub mod toolchains;
mod trial;
mod usage;
mod view;
mod volume;
pub mod volumes;

pub use btrfs::{
    Change, Refusal, RefusalKind, Result, StoreError, Subvolume, SubvolumeBackend, Uuid,
    btrfs_progs, stream, subvolumes,
};
pub use clean::{CleanReport, Step};
pub use config::machines::Note;
pub use content_identity::ContentIdentity;
pub use contents::content_manifest;
pub use contents::machine_manifest::{ManifestRefusal, image_provenance, machine_manifest};
pub use delete::{DeleteReport, check_delete, plan_delete};
pub use ingest::{IngestPlan, Intent, Method, Publication, Source};
pub use lock::{Holder, LockRefusal};
pub use machine_change::{MachineChange, MachineStep};
pub use machine_refusal::MachineRefusal;
pub use revision_content::{KnownContent, RecordRefusal};
pub use revision_diff::EntryDifference;
pub use snapshot::{Snapshot, SnapshotRefusal, SnapshotSource, SourceRevision};
pub use trial::TrialRefusal;
pub use usage::{MachineUsage, UnknownUsage, Usage};
pub use view::{ImageView, IngestState, MachineView, RevisionView, SnapshotView};
pub use volume::{LOCK_TIMEOUT, PART_DURATION, Volume, VolumeRefusal};
pub use volumes::{Inventory, Located, VolumeId, Volumes};
