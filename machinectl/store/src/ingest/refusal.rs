//! The reasons not to accept an image.

use std::path::PathBuf;

use config::{MachineName, Revision, printable};

use crate::{Refusal, RefusalKind, StoreError, Uuid};
use contents::content_manifest;

/// A reason not to accept an image.
#[derive(Debug, thiserror::Error)]
pub enum IngestRefusal {
    /// The name of the machine's directory is taken.
    #[error("`{}` exists but is not a directory; move it away", .0.display())]
    NotDirectory(PathBuf),
    /// The machine exists.
    #[error("machine `{0}` already exists; `buildhost upgrade {0}` adds a revision")]
    MachineExists(MachineName),
    /// The source is not a subvolume.
    #[error("`{}` is not a subvolume; `buildhost import` accepts directories", .0.display())]
    NotSubvolume(PathBuf),
    /// The source does not exist.
    #[error("there is no `{}`", .0.display())]
    NoSource(PathBuf),
    /// The source is on another file system.
    #[error(
        "`{}` is not on the file system of the volume; `buildhost import` copies it",
        .0.display()
    )]
    OtherFileSystem(PathBuf),
    /// The source has subvolumes inside.
    #[error(
        "`{}` contains the subvolumes {}, which a snapshot leaves out; replace them by directories, or use `buildhost import`, which copies their content",
        path.display(),
        listed(inner)
    )]
    InnerSubvolumes {
        /// The source.
        path: PathBuf,
        /// The subvolumes in it, relative to it.
        inner: Vec<PathBuf>,
    },
    /// The source is writable and on another file system.
    #[error(
        "`{path}` is writable and on another file system, so it cannot be sent; make it read-only (`btrfs property set -ts {path} ro true`), or use `buildhost import`, which copies it",
        path = .0.display()
    )]
    WritableElsewhere(PathBuf),
    /// The source contains an active swap file.
    #[error(
        "`{}` contains an active swap file, which btrfs cannot snapshot; `swapon --show` lists it, `swapoff FILE` releases it",
        .0.display()
    )]
    SwapFile(PathBuf),
    /// The revision is not newer than the current one.
    #[error("revision {revision} is not newer than revision {current} of machine `{machine}`")]
    NotNewer {
        /// The machine.
        machine: MachineName,
        /// The new revision.
        revision: Revision,
        /// The current revision.
        current: Revision,
    },
    /// The number is taken by a revision with other content.
    #[error(
        "revision {1} of machine `{0}` exists with other content, or was relayed or changed; send it under a higher number"
    )]
    OtherContent(MachineName, Revision),
    /// The number is taken by a writable revision that no ingest left behind.
    #[error(
        "revision {1} of machine `{0}` is writable, and a person may be working in it; make it read-only, delete it (`btrfs property set`, `btrfs subvolume delete`), or send another number"
    )]
    Writable(MachineName, Revision),
    /// The stream is named after another machine.
    #[error(
        "the stream is named `{name}`, but a revision of machine `{machine}` is named `{machine}-NUMBER`"
    )]
    StreamName {
        /// The machine.
        machine: MachineName,
        /// The stream's name.
        name: String,
    },
    /// The parent of an incremental stream is missing.
    #[error("the parent of the stream ({0}) does not exist here; send it in full, without `-p`")]
    NoParent(Uuid),
    /// The parent of an incremental stream may have changed.
    #[error(
        "the parent of the stream ({0}) has been made writable and may have changed; send it in full, without `-p`"
    )]
    ParentChanged(Uuid),
    /// The parent of an incremental stream may have other content at the sender.
    #[error(
        "the parent of the stream ({0}) may have other content at its sender, who has relayed it or changed it; send it in full, without `-p`"
    )]
    ParentDiffers(Uuid),
    /// The content of a received revision differs from its manifest.
    #[error(
        "{0}; delete `{file}` at the sender if it is older than the content",
        file = content_manifest::FILE
    )]
    WrongContent(StoreError),
    /// The content of a revision that was received on top of a parent differs from its manifest.
    #[error(
        "{0}; its parent was changed here or at its sender: send it in full, without `-p`; or delete `{file}` there if it is older than the content",
        file = content_manifest::FILE
    )]
    WrongContentOnParent(StoreError),
    /// The subvolume was received and then made writable.
    #[error(
        "`{}` is writable but still has the UUID it was received with, so its snapshots would be taken for the original; take a new snapshot of it first: `btrfs subvolume snapshot`",
        .0.display()
    )]
    WritableReceived(PathBuf),
    /// The received subvolume is not the announced one, or is not finished.
    #[error("the received `{}` is not complete; send it again", .0.display())]
    Incomplete(PathBuf),
    /// The disk is full.
    #[error("the disk of `{}` is full; delete machines or enlarge it", .0.display())]
    Full(PathBuf),
}

impl Refusal for IngestRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::MachineExists(_) | Self::OtherContent(..) | Self::Writable(..) => {
                RefusalKind::Exists
            }
            Self::NotNewer { .. } => RefusalKind::NotNewer,
            Self::StreamName { .. } => RefusalKind::WrongName,
            Self::NoParent(_) | Self::ParentChanged(_) | Self::ParentDiffers(_) => {
                RefusalKind::NoParent
            }
            Self::Incomplete(_) => RefusalKind::BadStream,
            Self::WrongContent(_) | Self::WrongContentOnParent(_) => RefusalKind::Differs,
            Self::Full(_) => RefusalKind::Full,
            Self::NoSource(_) => RefusalKind::NotFound,
            Self::NotDirectory(_)
            | Self::NotSubvolume(_)
            | Self::OtherFileSystem(_)
            | Self::WritableElsewhere(_)
            | Self::SwapFile(_)
            | Self::InnerSubvolumes { .. }
            | Self::WritableReceived(_) => RefusalKind::Invalid,
        }
    }
}

/// Returns the names of subvolumes, as a sentence lists them.
fn listed(inner: &[PathBuf]) -> String {
    let names = inner
        .iter()
        .map(|it| format!("`{}`", printable(&it.to_string_lossy())));
    names.collect::<Vec<_>>().join(", ")
}
