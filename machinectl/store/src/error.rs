//! What can go wrong in the store: refusals, which are answers, and failures.

use std::io;
use std::path::{Path, PathBuf};

use config::machine::MachineError;
use config::task::TaskError;
use config::{MachineName, NameError, Revision, ToolchainName};

use crate::Uuid;
use crate::content_manifest::{Difference, RecordError};
use crate::init::Size;
use crate::lock::Holder;
use crate::stream::StreamError;
use sys::command::CommandError;

/// Why an operation did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was asked cannot be had as things are; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operating system failed us.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What we were doing.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Another program failed us.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Why what was asked cannot be had. Each says the way out.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such directory.
    #[error("there is no volume `{}`; make one with `machinectl init`", .0.display())]
    NoVolume(PathBuf),
    /// A mount would hide what is there.
    #[error("`{}` is not empty and not on btrfs; choose another directory", .0.display())]
    NotEmpty(PathBuf),
    /// Too small for a file system.
    #[error("a volume needs at least {0}")]
    TooSmall(Size),
    /// There is nothing to go back to.
    #[error("machine `{0}` has no complete revision before {1}")]
    NoOlder(MachineName, Revision),
    /// Snapshots need btrfs.
    #[error("`{}` is not on btrfs; make a volume with `machinectl init`", .0.display())]
    NotBtrfs(PathBuf),
    /// The machine is not in the volume.
    #[error("there is no machine `{0}`; `machinectl list` shows what there is")]
    NoMachine(MachineName),
    /// The machine has no link to a complete revision.
    #[error(
        "machine `{machine}` has no current revision{}; `machinectl rollback {machine} REVISION` makes one current",
        because(fault.as_ref())
    )]
    NoCurrent {
        /// The machine.
        machine: MachineName,
        /// What is wrong with its link, when there is one.
        fault: Option<String>,
    },
    /// The machine is on its way out.
    #[error(
        "machine `{0}` is being deleted; wait until it is gone, or repeat `machinectl delete {0}`"
    )]
    Deleting(MachineName),
    /// There is no finished image for this toolchain.
    #[error("machine `{0}` has no bootstrapped image for toolchain `{1}` yet")]
    NoImage(MachineName, ToolchainName),
    /// There is no such snapshot.
    #[error("there is no snapshot `{}`", .0.display())]
    NoSnapshot(PathBuf),
    /// Something of that name is there already.
    #[error("`{}` is there already", .0.display())]
    Exists(PathBuf),
    /// It is there, but it is not what the store puts there.
    #[error("`{}` is not a subvolume; whoever made it must move it away", .0.display())]
    NotSubvolume(PathBuf),
    /// Something has the name that a machine's directory would have.
    #[error("`{}` is in the way: it is no directory; whoever made it must move it away", .0.display())]
    NotDirectory(PathBuf),
    /// Somebody else is changing the machine.
    #[error(
        "machine `{machine}` is locked by {}; try again when that has ended",
        people(holders)
    )]
    Locked {
        /// The machine.
        machine: MachineName,
        /// Who holds it.
        holders: Vec<Holder>,
    },
    /// A build or somebody else uses it.
    #[error("`{}` is in use by {}", path.display(), people(holders))]
    InUse {
        /// What is used.
        path: PathBuf,
        /// By whom.
        holders: Vec<Holder>,
    },
    /// `btrfs send` reads it.
    #[error("`{}` is being sent; try again when that has ended", .0.display())]
    Sending(PathBuf),
    /// The revision is not there or not complete.
    #[error("machine `{0}` has no complete revision {1}")]
    NoRevision(MachineName, Revision),
    /// The machine is there already.
    #[error("machine `{0}` is there already; `machinectl upgrade {0}` brings a new revision in")]
    MachineExists(MachineName),
    /// The revision that came is not newer than the current one.
    #[error("revision {revision} is not newer than revision {current} of machine `{machine}`")]
    NotNewer {
        /// The machine.
        machine: MachineName,
        /// What came.
        revision: Revision,
        /// What is current.
        current: Revision,
    },
    /// Another image of this number is there.
    #[error(
        "revision {1} of machine `{0}` is there already, with another content; send it under a higher number"
    )]
    OtherRevision(MachineName, Revision),
    /// The image is named after something else.
    #[error(
        "the stream is named `{name}`, but a revision of machine `{machine}` is named `{machine}-NUMBER`"
    )]
    StreamName {
        /// The machine.
        machine: MachineName,
        /// The stream's name.
        name: String,
    },
    /// The stream cannot be used.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// What an incremental stream builds on is not here.
    #[error(
        "the stream builds on a revision that is not here ({0}); send it in full, without `-p`"
    )]
    NoParent(Uuid),
    /// What an incremental stream builds on can have been changed.
    #[error(
        "what the stream builds on ({0}) has been made writable and may have changed; send it in full, without `-p`"
    )]
    ParentChanged(Uuid),
    /// A writable subvolume that still has the identity of what it was received from.
    #[error("`{}` is writable but still carries the identity it was received with; its snapshots would pass for the original. Take a new one of it first: `btrfs subvolume snapshot`", .0.display())]
    Poisoned(PathBuf),
    /// What was received is not what was announced.
    #[error("what came in as `{}` is not complete; send it again", .0.display())]
    NotWhole(PathBuf),
    /// The content is not what was recorded.
    #[error("the content of `{}` is not what was recorded: {}", .0.display(), some(.1))]
    Differs(PathBuf, Vec<Difference>),
    /// A machine without something that it needs.
    #[error("`{}` lacks `{}`", .0.display(), .1)]
    Lacks(PathBuf, String),
    /// A machine that does not say what it is.
    #[error("`{}` is no machine's manifest", path.display())]
    NoMachineManifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MachineError,
    },
    /// Nobody has recorded the content.
    #[error("`{}` has no record of its content; `machinectl push --from` makes one", .0.display())]
    NoRecord(PathBuf),
    /// The record of the content cannot be read.
    #[error("the record `{}` cannot be used", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The other host cannot be reached, or the connection broke.
    #[error("cannot reach {host}: {said}; what is there is whole, so repeat this when it answers")]
    Unreachable {
        /// The host.
        host: String,
        /// What ssh said.
        said: String,
    },
    /// The other host refuses, or does not understand us.
    #[error("{host}: {said}")]
    Far {
        /// The host.
        host: String,
        /// The exit code of its `machinectl`; `None` when it made no sense.
        code: Option<i32>,
        /// What was said.
        said: String,
    },
    /// There is no space.
    #[error("the disk of `{}` is full; delete machines or enlarge it", .0.display())]
    Full(PathBuf),
    /// The toolchain is not there.
    #[error("there is no toolchain `{0}`; `machinectl toolchain list` shows what there is")]
    NoToolchain(ToolchainName),
    /// A toolchain's link leads out of its directory, or to nothing.
    #[error("`{}` leads out of the toolchain's directory or to nothing; only links inside it are followed", .0.display())]
    LinkOutside(PathBuf),
    /// A toolchain is a flat directory of files.
    #[error("`{}` is not a file; a toolchain is a directory of files", .0.display())]
    NotFile(PathBuf),
    /// A toolchain has nothing to install.
    #[error("`{}` holds no files", .0.display())]
    Empty(PathBuf),
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of ours in the volume cannot be read.
    #[error("`{}` cannot be used", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TaskError,
    },
}

fn because(fault: Option<&String>) -> String {
    fault.map_or_else(String::new, |fault| format!(": {fault}"))
}

/// The first few of many.
fn some(differences: &[Difference]) -> String {
    const SHOWN: usize = 5;
    let shown = differences.iter().take(SHOWN).map(ToString::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    match differences.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

fn people(holders: &[Holder]) -> String {
    let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        "somebody that we cannot see".to_owned()
    } else {
        names.join(", ")
    }
}

/// Says what we were doing when the operating system failed.
pub(crate) trait Doing<T> {
    fn doing(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            action,
            path: path.as_ref().to_owned(),
            source,
        })
    }
}

impl From<StreamError> for StoreError {
    fn from(error: StreamError) -> Self {
        Refusal::from(error).into()
    }
}

impl StoreError {
    /// Whether we lack the rights for it.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Command(CommandError::Failed { stderr, .. }) => {
                stderr.contains("Operation not permitted") || stderr.contains("Permission denied")
            }
            Self::Command(_) | Self::Refused(_) => false,
        }
    }

    /// Whether somebody else uses or changes it, so that trying later may help.
    pub fn is_in_use(&self) -> bool {
        use Refusal::{InUse, Locked, Sending};
        matches!(
            self,
            Self::Refused(InUse { .. } | Locked { .. } | Sending(_))
        )
    }

    /// Whether the disk was full.
    pub fn is_full(&self) -> bool {
        let full = |kind| {
            matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        matches!(self, Self::Io { source, .. } if full(source.kind()))
    }
}
