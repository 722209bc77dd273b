//! Bringing an image in: as a `btrfs send` stream, or from a subvolume of this host.
//!
//! A subvolume on the volume's own file system is not sent but snapshotted
//! read-only: that takes milliseconds and no space, and the copy cannot differ. An
//! incremental stream that builds on it finds the original; when that is gone, a
//! full stream is needed, and the refusal says so.

mod plan;

mod receive;

pub mod import;

use std::path::{Path, PathBuf};

use config::layout::Entry;
use config::{MachineName, Revision};

pub use plan::Plan;

use crate::error::IoContext;
use crate::stream::Stream;
use crate::stream::input::Patient;
use crate::{
    LockRefusal, MachineView, Refusal, RefusalKind, Result, Uuid, Volume, content_manifest, lock,
};
use import::Import;

/// A reason not to accept an image.
#[derive(Debug, thiserror::Error)]
pub enum IngestRefusal {
    /// The name of the machine's directory is taken.
    #[error("`{}` is in the way: it is no directory; move it away", .0.display())]
    NotDirectory(PathBuf),
    /// The machine exists.
    #[error("machine `{0}` is there already; `buildhost upgrade {0}` adds a revision")]
    MachineExists(MachineName),
    /// The source is not a subvolume.
    #[error("`{}` is not a subvolume; `buildhost import` accepts directories", .0.display())]
    NotSubvolume(PathBuf),
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
        "revision {1} of machine `{0}` is there already, with another content; send it under a higher number"
    )]
    OtherContent(MachineName, Revision),
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
    #[error(
        "the stream builds on a revision that is not here ({0}); send it in full, without `-p`"
    )]
    NoParent(Uuid),
    /// The parent of an incremental stream may have changed.
    #[error(
        "the parent of the stream ({0}) has been made writable and may have changed; send it in full, without `-p`"
    )]
    ParentChanged(Uuid),
    /// The subvolume was received and then made writable.
    #[error("`{}` is writable but still carries the identity it was received with; its snapshots would pass for the original. Take a new snapshot of it first: `btrfs subvolume snapshot`", .0.display())]
    Poisoned(PathBuf),
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
            Self::MachineExists(_) | Self::OtherContent(..) => RefusalKind::Exists,
            Self::NotNewer { .. } => RefusalKind::NotNewer,
            Self::StreamName { .. } => RefusalKind::WrongName,
            Self::NoParent(_) | Self::ParentChanged(_) => RefusalKind::NoParent,
            Self::Incomplete(_) => RefusalKind::BadStream,
            Self::Full(_) => RefusalKind::Full,
            Self::NotDirectory(_) | Self::NotSubvolume(_) | Self::Poisoned(_) => {
                RefusalKind::Invalid
            }
        }
    }
}

/// What is to be done with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It makes a new machine.
    Add,
    /// It becomes the current revision of a machine that is there.
    Upgrade,
}

/// Where an image comes from.
#[derive(Debug)]
pub enum Source {
    /// A stream that somebody sends.
    Stream(Stream<Patient>),
    /// A subvolume on the volume's own file system; see [`Volume::holds`].
    Subvolume(PathBuf),
    /// The same, but the content is read and recorded in the revision, so that it
    /// can be checked wherever it is sent.
    Work(PathBuf),
    /// What is no subvolume; its content is recorded too.
    Import(Import),
}

/// What must be known of an image to decide about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// The name that it comes with.
    pub(crate) name: String,
    /// Whether that name must be `<machine>-<revision>`.
    pub(crate) must_be_named: bool,
    /// Two images of one identity have one content; `None` when it is made here.
    pub(crate) identity: Option<Uuid>,
    /// The content cannot change any more.
    pub(crate) fixed: bool,
}

impl Parcel {
    /// Whether a revision holds what would come in.
    fn is_copy(&self, there: &crate::Subvolume) -> bool {
        let known = [Some(there.stream_uuid()), there.parent_uuid];
        self.fixed && self.identity.is_some() && known.contains(&self.identity)
    }
}

/// An image that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// How it came in; its revision is the current one now.
    pub plan: Plan,
    /// The revision that was current before.
    pub before: Option<Revision>,
}

impl Volume {
    /// What [`Volume::bring_in`] would do now. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Volume::bring_in`] that can be known before.
    pub fn plan_arrival(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: &Source,
    ) -> Result<Plan> {
        let view = match self.look(machine) {
            Err(error) if error.kind() == Some(RefusalKind::NotFound) && intent == Intent::Add => {
                let directory = self.directory(machine);
                if directory.symlink_metadata().is_ok() {
                    return Err(IngestRefusal::NotDirectory(directory).into());
                }
                MachineView::new(machine.clone())
            }
            view => view?,
        };
        let parcel = self.parcel(source)?;
        let plan = plan::plan(intent, &view, &parcel)?;
        if let (Source::Stream(stream), Plan::Make(_) | Plan::MakeAnew(_)) = (source, plan)
            && let Some(parent) = stream.header().parent
        {
            self.check_parent(machine, parent)?;
        }
        Ok(plan)
    }

    /// Brings an image in and makes it the current revision, on the disk before
    /// this returns. A revision that was there before is not touched.
    ///
    /// # Errors
    /// Then everything is as it was before. Killed, it leaves at most a half
    /// revision, which the next clean-up removes, and the same stream before that.
    pub fn bring_in(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: Source,
    ) -> Result<Arrival> {
        // Refused without a trace, if it can be known now.
        self.plan_arrival(intent, machine, &source)?;
        let directory = self.directory(machine);
        let made = self
            .backend
            .make_directory(&directory)
            .context("make", &directory)?;
        let result = self.bring_in_there(intent, machine, source);
        if result.is_err() && made == crate::Change::Changed {
            // It is empty, unless somebody else has begun to use it.
            let _ = self.backend.remove_directory(&directory);
            let _ = self.commit();
        }
        result
    }

    fn bring_in_there(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: Source,
    ) -> Result<Arrival> {
        let locked = self.lock(machine)?;
        let plan = self.plan_arrival(intent, machine, &source)?;
        let before = self.look(machine)?.current;
        let revision = plan.revision();
        let path = self.entry(machine, &Entry::Revision(revision));
        if plan == Plan::MakeAnew(revision) {
            // A receive by hand knows nothing of our locks.
            let mut holders = lock::visitors(&self.directory(machine));
            holders.retain(|holder| holder.name == "btrfs");
            if !holders.is_empty() {
                return Err(LockRefusal::InUse { path, holders }.into());
            }
            self.backend
                .delete(&path)
                .context("delete the half of", &path)?;
        }
        if plan != Plan::Adopt(revision) {
            self.mark_arriving(machine, revision)?;
            let identity = self.parcel(&source)?.identity;
            let streamed = matches!(source, Source::Stream(_));
            let made = match source {
                Source::Stream(stream) => {
                    receive::receive(stream, &self.directory(machine), &locked)
                }
                Source::Subvolume(from) => {
                    self.backend.freeze(&from, &path).context("snapshot", &from)
                }
                Source::Work(from) => self.record(&from, &path),
                Source::Import(import) => self.import(&import, &path),
            };
            let whole = made.and_then(|()| self.check_whole(&path, identity));
            let whole = whole.and_then(|()| {
                if streamed {
                    content_manifest::check(&path)
                } else {
                    Ok(None)
                }
            });
            if let Err(error) = whole {
                self.undo(machine, revision, &error);
                return Err(error);
            }
        }
        let published = self.publish_revision(machine, revision);
        if let Err(error) = published {
            let current = self.look(machine).ok().and_then(|view| view.current);
            if current != Some(revision) && plan != Plan::Adopt(revision) {
                self.undo(machine, revision, &error);
            }
            return Err(error);
        }
        Ok(Arrival { plan, before })
    }

    /// Whether a subvolume is on the volume's own file system; `None` when the path
    /// is no subvolume at all.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn holds(&self, path: &Path) -> Result<Option<bool>> {
        let Some(found) = self.backend.info(path).context("look at", path)? else {
            return Ok(None);
        };
        let same = self
            .backend
            .find(&self.path, found.uuid)
            .context("search", &self.path)?;
        Ok(Some(same.iter().any(|it| it.uuid == found.uuid)))
    }

    /// What came in must be whole and must be what was announced.
    fn check_whole(&self, path: &Path, identity: Option<Uuid>) -> Result<()> {
        match self.backend.info(path).context("look at", path)? {
            Some(made) if made.read_only => {
                let known = [Some(made.uuid), made.received_uuid, made.parent_uuid];
                if identity.is_none() || known.contains(&identity) {
                    return Ok(());
                }
                Err(IngestRefusal::Incomplete(path.to_owned()).into())
            }
            _ => Err(IngestRefusal::Incomplete(path.to_owned()).into()),
        }
    }

    fn record(&self, from: &Path, path: &Path) -> Result<()> {
        self.backend
            .snapshot(from, path)
            .context("snapshot", from)?;
        content_manifest::write(self.backend.as_ref(), path)?;
        self.backend.seal(path).context("make read-only", path)
    }

    fn import(&self, import: &Import, path: &Path) -> Result<()> {
        self.backend.create(path).context("make", path)?;
        import.fill(path)?;
        content_manifest::write(self.backend.as_ref(), path)?;
        self.backend.seal(path).context("make read-only", path)
    }

    /// Says that a revision is being made. A power cut can leave one that is read-only
    /// and yet lacks content, because btrfs writes content later than names and
    /// flags; it never leaves a later change without an earlier one of these.
    fn mark_arriving(&self, machine: &MachineName, revision: Revision) -> Result<()> {
        let mark = self.entry(machine, &Entry::Arriving(revision));
        let target = Entry::Revision(revision).name(machine);
        // One that was left by somebody who died.
        self.backend.unlink(&mark).context("remove", &mark)?;
        self.backend
            .link(Path::new(&target), &mark)
            .context("make the link", &mark)
    }

    /// Takes back what was made. If that fails too, the next clean-up does it; the
    /// first error is the one to tell.
    fn undo(&self, machine: &MachineName, revision: Revision, error: &crate::StoreError) {
        let _ = self.backend.unlink(&self.entry(machine, &Entry::Incoming));
        let made = self.entry(machine, &Entry::Revision(revision));
        if self.backend.delete(&made).is_ok() {
            let arriving = self.entry(machine, &Entry::Arriving(revision));
            let _ = self.backend.unlink(&arriving);
        }
        let _ = self.commit();
        if error.is_full() {
            // Space that deleting gave back is seen only after another commit.
            let _ = self.commit();
        }
    }

    fn parcel(&self, source: &Source) -> Result<Parcel> {
        match source {
            Source::Stream(stream) => Ok(Parcel {
                name: stream.header().name.clone(),
                must_be_named: true,
                identity: Some(stream.header().uuid),
                fixed: true,
            }),
            Source::Subvolume(path) | Source::Work(path) => {
                let found = self.backend.info(path).context("look at", path)?;
                let Some(found) = found else {
                    return Err(IngestRefusal::NotSubvolume(path.clone()).into());
                };
                if !found.read_only && found.received_uuid.is_some() {
                    return Err(IngestRefusal::Poisoned(path.clone()).into());
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                Ok(Parcel {
                    name: name.into_owned(),
                    must_be_named: false,
                    identity: Some(found.stream_uuid()),
                    fixed: found.read_only,
                })
            }
            Source::Import(_) => Ok(Parcel {
                name: String::new(),
                must_be_named: false,
                identity: None,
                fixed: false,
            }),
        }
    }

    /// An incremental stream needs its parent, and needs it unchanged: btrfs itself
    /// would build on a changed one without a word.
    fn check_parent(&self, machine: &MachineName, parent: Uuid) -> Result<()> {
        let found = self
            .backend
            .find(&self.path, parent)
            .context("search", &self.path)?;
        if found.is_empty() {
            return Err(IngestRefusal::NoParent(parent).into());
        }
        if found.iter().any(|found| !found.read_only) {
            return Err(IngestRefusal::ParentChanged(parent).into());
        }
        // One that is read-only and was never finished may lack content.
        let mut unfinished = match self.look(machine) {
            Ok(view) => view.revisions.into_iter().filter(|it| !it.complete),
            Err(error) if error.kind() == Some(RefusalKind::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        if unfinished.any(|it| it.subvolume.has_identity(parent)) {
            return Err(IngestRefusal::NoParent(parent).into());
        }
        Ok(())
    }
}
