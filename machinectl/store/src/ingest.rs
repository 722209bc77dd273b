//! Ingest: new machines and revisions from streams, subvolumes and imports.
//!
//! A subvolume of the volume's own file system is not sent but snapshotted read-only. That
//! takes milliseconds and no space, and the copy cannot differ. An incremental stream with
//! the subvolume as its parent finds the original; after the original was deleted, only a
//! full stream is accepted.

mod parent;
mod partial;
mod plan;
mod receive;
mod refusal;

use std::io;
use std::path::{Path, PathBuf};

use config::canary::Decider;
use config::layout::Entry;
use config::{MachineName, Revision};

pub use partial::PartialRevision;
pub use plan::{IngestPlan, Method};
pub use refusal::IngestRefusal;
use serde::{Deserialize, Serialize};

use crate::lock::{IngestLock, MachineLock};
use crate::{Change, MachineView, Note, RefusalKind, Result, StoreError, Uuid, Volume};
use btrfs::error::IoContext;
use btrfs::stream::{Command, SendStream};
use contents::content_manifest;
use contents::content_manifest::{ContentManifest, ManifestUpdate};
pub use contents::import;
use contents::import::Import;
use plan::{Content, IncomingImage};

/// The purpose of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// The first revision of a new machine.
    Add,
    /// The next revision of an existing machine.
    Upgrade,
}

/// The source of an image.
#[derive(Debug)]
pub enum Source {
    /// A `btrfs send` stream.
    Stream(SendStream),
    /// A subvolume on the volume's own file system; see [`Volume::shares_file_system`].
    Subvolume(PathBuf),
    /// As [`Source::Subvolume`], with a content manifest that is added to the revision, so
    /// that every receiver can verify it.
    WorkingSubvolume {
        /// The subvolume.
        path: PathBuf,
        /// A revision, such as the newest one on another host, that the new one must follow.
        after: Option<Revision>,
    },
    /// A disk image, directory or archive. The revision has a content manifest.
    Import(Import),
}

/// The way in which a new revision is published.
#[derive(Debug, Clone, Default)]
pub struct Publication<'a> {
    /// The note on it.
    pub note: Option<&'a Note>,
    /// The decider of its trial; `None` to make it current at once. The first revision of a machine
    /// has nothing to be compared with, and becomes current, unless a farm decides: then it is refused.
    pub trial: Option<Decider>,
}

impl Source {
    /// Returns a working subvolume whose revision gets the next number of its machine.
    pub fn working_subvolume(path: PathBuf) -> Self {
        Self::WorkingSubvolume { path, after: None }
    }
}

/// Returns true if a revision still has the content manifest of its parent, which says nothing
/// about what the stream has changed.
fn has_manifest_of(revision: &Path, parent: &Path) -> bool {
    content_manifest::digest(revision) == content_manifest::digest(parent)
}

/// Adds the source and a known cause to the error of a snapshot.
fn snapshot_result(result: io::Result<()>, source: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
            Err(IngestRefusal::SwapFile(source.to_owned()).into())
        }
        result => result.context("snapshot", source),
    }
}

impl Volume {
    /// Returns [`Intent::Upgrade`] for a machine with a current link, [`Intent::Add`] for a new one.
    pub fn intent(&self, machine: &MachineName) -> Intent {
        if self.view(machine).is_ok_and(|view| view.has_link()) {
            Intent::Upgrade
        } else {
            Intent::Add
        }
    }

    /// Determines how [`Volume::ingest`] would accept an image. Changes nothing.
    ///
    /// # Errors
    /// The image would be refused.
    pub fn plan_ingest(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: &Source,
    ) -> Result<IngestPlan> {
        let view = match self.view(machine) {
            Err(error) if error.kind() == Some(RefusalKind::NotFound) && intent == Intent::Add => {
                let directory = self.directory(machine);
                if directory.symlink_metadata().is_ok() {
                    return Err(IngestRefusal::NotDirectory(directory).into());
                }
                MachineView::new(machine.clone())
            }
            view => view?,
        };
        let mut plan = plan::plan(intent, &view, &self.incoming_image(source)?)?;
        if let Source::Stream(stream) = source
            && plan.method != Method::Adopt
            && let Some(parent) = stream.header().parent
        {
            plan.parent = Some(self.find_parent(&view, parent)?);
        }
        Ok(plan)
    }

    /// Accepts an image and makes it the current revision. Other revisions do not change. The
    /// revision is on the disk when this returns.
    ///
    /// # Errors
    /// The machine is as it was before. After a crash at most an unfinished revision remains,
    /// which is replaced by the same image or deleted by the next clean-up.
    pub fn ingest(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: Source,
    ) -> Result<IngestPlan> {
        self.ingest_with(intent, machine, source, Publication::default())
    }

    /// Accepts an image, as [`Volume::ingest`] does, and publishes it as requested. On trial, it does
    /// not become current yet.
    ///
    /// # Errors
    /// Those of [`Volume::ingest`].
    pub fn ingest_with(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: Source,
        publication: Publication<'_>,
    ) -> Result<IngestPlan> {
        // An image that can be refused now leaves no trace, not even a directory.
        self.plan_ingest(intent, machine, &source)?;
        let directory = self.directory(machine);
        let created = self
            .backend
            .create_directory(&directory)
            .context("create", &directory)?;
        let result = self.ingest_into(intent, machine, source, publication);
        if result.is_err() && created == Change::Changed {
            // This fails if another process has started to use the directory.
            let _ = self.backend.remove_directory(&directory);
            let _ = self.commit();
        }
        result
    }

    fn ingest_into(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: Source,
        publication: Publication<'_>,
    ) -> Result<IngestPlan> {
        let (lock, ingest) = self.lock_for_ingest(machine)?;
        let result = self.ingest_locked(intent, machine, source, publication, lock, &ingest);
        if result.is_err() {
            // The next ingest or clean-up removes what is left; the caller reports the first error.
            let _ = self.end_ingest(machine, &ingest);
        }
        result
    }

    /// Creates a revision and publishes it. The machine is locked to begin and to publish, but
    /// not while the revision is written.
    fn ingest_locked(
        &self,
        intent: Intent,
        machine: &MachineName,
        source: Source,
        publication: Publication<'_>,
        lock: MachineLock,
        ingest: &IngestLock,
    ) -> Result<IngestPlan> {
        // The machine may have changed before it was locked.
        let plan = self.plan_ingest(intent, machine, &source)?;
        let view = self.view(machine)?;
        if plan.method == Method::Adopt {
            self.publish(&view, plan.revision, publication, ingest)?;
            return Ok(plan);
        }
        let parent = plan.parent.as_ref();
        // Without it, the parent could be deleted while the stream still refers to it.
        let parent_lock = parent.map(|it| self.lock_shared(&it.path)).transpose()?;
        if plan.method == Method::Recreate {
            let path = self.entry(machine, &Entry::Revision(plan.revision));
            self.backend
                .delete(&path)
                .context("delete the unfinished", &path)?;
        }
        let is_rest = matches!(&source, Source::Stream(stream) if stream.is_rest());
        if !is_rest {
            self.discard_partials(&view)?;
        }
        self.mark_arriving(machine, plan.revision)?;
        drop(lock);
        let written = self.write_revision(machine, &plan, source, ingest);
        drop(parent_lock);
        // The revision is marked, so nobody else changes it without the lock.
        let lock = self.lock(machine);
        let finished = match (written, lock) {
            (Ok(()), Ok(_lock)) => {
                self.publish_arrived(intent, machine, plan.revision, publication, ingest)
            }
            (Err(error), _) | (_, Err(error)) => {
                self.undo(machine, plan.revision, &error);
                Err(error)
            }
        };
        finished.map(|()| plan)
    }

    /// Makes a complete revision the current one or puts it on trial, and ends the ingest.
    fn publish(
        &self,
        view: &MachineView,
        revision: Revision,
        publication: Publication<'_>,
        ingest: &IngestLock,
    ) -> Result<()> {
        if let Some(note) = publication.note {
            self.write_note(&view.name, revision, note)?;
        }
        if let Some(Decider::Farm(_)) = publication.trial {
            view.require_current()?;
        }
        match publication.trial.filter(|_| view.is_live()) {
            Some(decider) => self.begin_trial(view, revision, decider)?,
            None => self.link_revision(&view.name, revision)?,
        }
        self.discard_partials(view)?;
        self.end_ingest(&view.name, ingest)?;
        self.commit()
    }

    /// Publishes a revision that was written while the machine was not locked, if it still may
    /// become the current one. The caller holds the lock.
    fn publish_arrived(
        &self,
        intent: Intent,
        machine: &MachineName,
        revision: Revision,
        publication: Publication<'_>,
        ingest: &IngestLock,
    ) -> Result<()> {
        let published = self.view(machine).and_then(|view| {
            plan::check(intent, &view, revision)?;
            self.publish(&view, revision, publication, ingest)
        });
        if let Err(error) = &published {
            let current = self.view(machine).ok().and_then(|view| view.current);
            if current != Some(revision) {
                self.undo(machine, revision, error);
            }
        }
        published
    }

    /// Creates the read-only subvolume of a revision and checks it.
    fn write_revision(
        &self,
        machine: &MachineName,
        plan: &IngestPlan,
        source: Source,
        lock: &IngestLock,
    ) -> Result<()> {
        let path = self.entry(machine, &Entry::Revision(plan.revision));
        match source {
            Source::Stream(stream) => {
                return self.receive_revision(machine, plan, stream, lock);
            }
            Source::Subvolume(from) => {
                snapshot_result(self.backend.snapshot_read_only(&from, &path), &from)?;
            }
            Source::WorkingSubvolume { path: from, .. } => {
                self.copy_working_subvolume(machine, &from, &path)?;
            }
            Source::Import(import) => {
                self.backend.create(&path).context("create", &path)?;
                import.fill(&path)?;
                self.finish_content(&path, &content_manifest::scan_all(&path)?)?;
            }
        }
        self.check_complete(&path, plan.identity)
    }

    /// Creates a revision from a stream, and verifies its content where that can be done.
    fn receive_revision(
        &self,
        machine: &MachineName,
        plan: &IngestPlan,
        stream: SendStream,
        lock: &IngestLock,
    ) -> Result<()> {
        let path = self.entry(machine, &Entry::Revision(plan.revision));
        let header = stream.header().clone();
        let parent = plan.parent.as_ref();
        let parent_path = parent.map(|it| it.path.clone());
        let exact = parent.filter(|it| !it.must_verify);
        let mut update = exact
            .filter(|_| !stream.is_rest())
            .and_then(|it| content_manifest::update_of(&it.path));
        let applied = |command: &Command<'_>| {
            if let Some(update) = &mut update {
                update.apply(command);
            }
        };
        if stream.progress().is_some() {
            let revision = plan.revision;
            self.receive_in_parts(machine, revision, stream, parent_path, lock, applied)?;
        } else {
            let directory = self.directory(machine);
            receive::receive(stream, parent_path, &directory, lock, applied)?;
        }
        self.check_complete(&path, plan.identity)?;
        let verified = match update {
            Some(update) => content_manifest::verify_update(&path, update),
            None => content_manifest::verify(&path),
        };
        let verified = verified.map_err(|error| match error.kind() {
            Some(RefusalKind::Differs) if parent.is_some() => {
                IngestRefusal::WrongContentOnParent(error).into()
            }
            Some(RefusalKind::Differs) => IngestRefusal::WrongContent(error).into(),
            _ => error,
        })?;
        if let (Some(named), Some(found)) = (header.parent, parent)
            && found.must_verify
            && (verified.is_none() || has_manifest_of(&path, &found.path))
        {
            return Err(IngestRefusal::ParentDiffers(named.uuid).into());
        }
        Ok(())
    }

    /// Creates a revision with a content manifest from a subvolume. Only what differs from an
    /// earlier revision is read, if there is one with a manifest.
    fn copy_working_subvolume(
        &self,
        machine: &MachineName,
        from: &Path,
        path: &Path,
    ) -> Result<()> {
        let Some((base, mut update)) = self.manifest_base(machine) else {
            snapshot_result(self.backend.snapshot(from, path), from)?;
            return self.finish_content(path, &content_manifest::scan_all(path)?);
        };
        let _base_lock = self.lock_shared(&base)?;
        snapshot_result(self.backend.snapshot_read_only(from, path), from)?;
        let changes = SendStream::changes(&base, path);
        let manifest = changes
            .and_then(|it| it.inspect(|command| update.apply(command)))
            .and_then(|()| update.finish(path))
            .or_else(|_| content_manifest::scan_all(path))?;
        self.backend
            .make_writable(path)
            .context("make writable", path)?;
        self.finish_content(path, &manifest)
    }

    /// Returns the newest revision that was created here and has not changed since its content
    /// manifest was written.
    fn manifest_base(&self, machine: &MachineName) -> Option<(PathBuf, ManifestUpdate)> {
        let view = self.view(machine).ok()?;
        view.revisions.iter().rev().find_map(|it| {
            let path = self.entry(machine, &Entry::Revision(it.revision));
            let is_own = it.complete && it.received_uuid.is_none();
            let is_base = is_own && self.is_as_recorded(machine, it.revision);
            let update = is_base.then(|| content_manifest::update_of(&path))??;
            Some((path, update))
        })
    }

    /// Adds the content manifest to a revision and makes it read-only.
    fn finish_content(&self, path: &Path, manifest: &ContentManifest) -> Result<()> {
        content_manifest::write(self.backend.as_ref(), path, manifest)?;
        self.backend
            .make_read_only(path)
            .context("make read-only", path)
    }

    /// Returns true if a subvolume is on the volume's own file system, and `None` if the path
    /// is not a subvolume.
    ///
    /// # Errors
    /// The subvolume cannot be inspected.
    pub fn shares_file_system(&self, path: &Path) -> Result<Option<bool>> {
        let Some(subvolume) = self.backend.info(path).context("inspect", path)? else {
            return Ok(None);
        };
        let same = self
            .backend
            .find(self.path(), subvolume.uuid)
            .context("search", self.path())?;
        Ok(Some(same.iter().any(|it| it.uuid == subvolume.uuid)))
    }

    /// Returns a subvolume as a source. One on another file system is sent as a stream.
    ///
    /// # Errors
    /// The path is not a subvolume, or it must be sent and is writable.
    pub fn subvolume_source(&self, path: &Path) -> Result<Source> {
        match self.shares_file_system(path)? {
            None => return Err(IngestRefusal::NotSubvolume(path.to_owned()).into()),
            Some(true) => return Ok(Source::Subvolume(path.to_owned())),
            Some(false) => {}
        }
        let subvolume = self.backend.info(path).context("inspect", path)?;
        if subvolume.is_some_and(|it| !it.read_only) {
            return Err(IngestRefusal::WritableElsewhere(path.to_owned()).into());
        }
        Ok(Source::Stream(SendStream::of_subvolume(path)?))
    }

    /// Checks that a new revision is read-only and is the announced one.
    fn check_complete(&self, path: &Path, identity: Option<Uuid>) -> Result<()> {
        let subvolume = self.backend.info(path).context("inspect", path)?;
        let is_announced = subvolume.is_some_and(|it| {
            let known = [Some(it.uuid), it.received_uuid, it.parent_uuid];
            it.read_only && (identity.is_none() || known.contains(&identity))
        });
        if is_announced {
            Ok(())
        } else {
            Err(IngestRefusal::Incomplete(path.to_owned()).into())
        }
    }

    /// Marks a revision as unfinished.
    ///
    /// btrfs writes content later than names and flags, so after a power failure a revision
    /// can be read-only and yet lack content. It commits these marks in order: the mark is
    /// never lost while a later change of the revision is kept.
    fn mark_arriving(&self, machine: &MachineName, revision: Revision) -> Result<()> {
        let mark = self.entry(machine, &Entry::Arriving(revision));
        let target = Entry::Revision(revision).name(machine);
        // An interrupted ingest may have left its mark.
        self.backend.unlink(&mark).context("remove", &mark)?;
        self.backend
            .symlink(Path::new(&target), &mark)
            .context("create the link", &mark)
    }

    /// Deletes what a failed ingest has created. If that fails too, the next clean-up does it;
    /// the caller reports the first error.
    fn undo(&self, machine: &MachineName, revision: Revision, error: &StoreError) {
        let files = [
            Entry::Incoming,
            Entry::Note(revision),
            Entry::Trial(revision),
        ];
        for entry in files {
            let _ = self.backend.unlink(&self.entry(machine, &entry));
        }
        let path = self.entry(machine, &Entry::Revision(revision));
        if self.backend.delete(&path).is_ok() {
            let mark = self.entry(machine, &Entry::Arriving(revision));
            let _ = self.backend.unlink(&mark);
        }
        let _ = self.commit();
        if error.is_full() {
            // btrfs frees the space of the deleted subvolume in the background.
            let _ = self.reclaim();
        }
    }

    /// Returns the properties of an image that the plan depends on.
    fn incoming_image(&self, source: &Source) -> Result<IncomingImage> {
        match source {
            Source::Stream(stream) => Ok(IncomingImage {
                name: stream.header().name.clone(),
                must_be_named: true,
                after: None,
                content: Content::Stream {
                    uuid: stream.header().uuid,
                    transaction: stream.header().transaction,
                },
            }),
            Source::Subvolume(path) => self.incoming_subvolume(path, None),
            Source::WorkingSubvolume { path, after } => {
                if self.shares_file_system(path)? == Some(false) {
                    return Err(IngestRefusal::OtherFileSystem(path.clone()).into());
                }
                self.incoming_subvolume(path, *after)
            }
            Source::Import(_) => Ok(IncomingImage {
                name: String::new(),
                must_be_named: false,
                after: None,
                content: Content::Files,
            }),
        }
    }

    fn incoming_subvolume(&self, path: &Path, after: Option<Revision>) -> Result<IncomingImage> {
        let path = path.to_owned();
        let Some(subvolume) = self.backend.info(&path).context("inspect", &path)? else {
            return Err(if path.symlink_metadata().is_ok() {
                IngestRefusal::NotSubvolume(path).into()
            } else {
                IngestRefusal::NoSource(path).into()
            });
        };
        if !subvolume.read_only && subvolume.received_uuid.is_some() {
            return Err(IngestRefusal::WritableReceived(path).into());
        }
        let inner = self.backend.inner(&path).context("inspect", &path)?;
        if !inner.is_empty() {
            return Err(IngestRefusal::InnerSubvolumes { path, inner }.into());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(IncomingImage {
            name: name.into_owned(),
            must_be_named: false,
            after,
            content: Content::Subvolume(subvolume),
        })
    }
}
