//! The content manifests of revisions: those inside, or else the records that this host made of
//! their content.

use std::io;
use std::path::PathBuf;

use config::layout::Entry;
use config::task::Digest;
use config::{MachineName, Revision};

use crate::{
    MachineRefusal, MachineView, Refusal, RefusalKind, Result, RevisionView, Subvolume, Volume,
};
use btrfs::error::IoContext;
use contents::content_manifest::{
    self, BYTES_MAX, ContentManifest, Difference, FILE, FormatError, Verified, first_of,
};
use contents::content_record::ContentRecord;

/// A reason not to record the content of a revision, or not to use its record.
#[derive(Debug, thiserror::Error)]
pub enum RecordRefusal {
    /// The revision has neither a content manifest nor a record.
    #[error(
        "revision {1} of `{0}` has no content manifest; `buildhost record {0} {1}` records its content"
    )]
    NoManifest(MachineName, Revision),
    /// The revision was changed after its content was recorded.
    #[error(
        "revision {1} of `{0}` was changed after its content was recorded; `buildhost verify {0} {1}` names the changes, and `buildhost record {0} {1} --again` accepts them"
    )]
    Outdated(MachineName, Revision),
    /// The content differs from its record.
    #[error(
        "the content of `{}` differs from its record: {}{}",
        path.display(),
        first_of(differences),
        if *is_outdated { "; the revision was made writable and changed after it was recorded" } else { "" }
    )]
    Differs {
        /// The revision.
        path: PathBuf,
        /// The differences.
        differences: Vec<Difference>,
        /// True if btrfs knows of a change of the revision.
        is_outdated: bool,
    },
    /// The record cannot be parsed.
    #[error(
        "the record `{}` cannot be parsed; `buildhost record {machine} {revision}` writes it again",
        path.display()
    )]
    Damaged {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: FormatError,
    },
    /// The revision is not complete.
    #[error(
        "revision {1} of `{0}` is not complete: it is arriving, or its transfer was interrupted; retry when `buildhost status {0}` shows it as complete"
    )]
    Incomplete(MachineName, Revision),
    /// A person made the revision writable.
    #[error(
        "revision {revision} is writable, so its content can change; make it read-only first: `btrfs property set {} ro true`",
        path.display()
    )]
    Writable {
        /// The revision.
        revision: Revision,
        /// Its subvolume.
        path: PathBuf,
    },
    /// The revision was changed while it was read.
    #[error("revision {1} of `{0}` was changed while it was read; retry after that has ended")]
    Changing(MachineName, Revision),
}

impl Refusal for RecordRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NoManifest(..)
            | Self::Outdated(..)
            | Self::Damaged { .. }
            | Self::Incomplete(..)
            | Self::Writable { .. } => RefusalKind::Invalid,
            Self::Differs { .. } => RefusalKind::Differs,
            Self::Changing(..) => RefusalKind::InUse,
        }
    }
}

/// The origin of what is known of a revision's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownContent {
    /// Nothing is known.
    Unknown,
    /// The revision has a content manifest.
    Manifest,
    /// This host has recorded the content.
    Recorded,
    /// This host has recorded the content, but the revision was changed after that.
    Outdated,
}

impl Volume {
    /// Compares a revision, by default the current one, with its content manifest, or else with
    /// its record.
    ///
    /// # Errors
    /// The revision has neither or differs from it. The error names the differences.
    pub fn verify(&self, machine: &MachineName, revision: Option<Revision>) -> Result<Verified> {
        let revision = self.resolve_revision(machine, revision)?;
        let _lock = self.lock_revision(machine, revision)?;
        let path = self.entry(machine, &Entry::Revision(revision));
        if let Some(verified) = content_manifest::verify(&path)? {
            return Ok(verified);
        }
        let subvolume = self.committed(machine, revision)?;
        let record = self.content_record(machine, revision)?;
        let record = record.filter(|it| it.is_of(&subvolume));
        let record = record.ok_or_else(|| RecordRefusal::NoManifest(machine.clone(), revision))?;
        let is_outdated = !record.is_up_to_date(&subvolume);
        let (verified, differences) = content_manifest::compare(&path, record.manifest)?;
        if differences.is_empty() {
            return Ok(Verified {
                is_recorded: true,
                ..verified
            });
        }
        Err(RecordRefusal::Differs {
            path,
            differences,
            is_outdated,
        }
        .into())
    }

    /// Returns what is known of a complete revision's content, by default that of the current one.
    ///
    /// # Errors
    /// The revision does not exist, or it is not complete, so that it cannot be recorded.
    pub fn plan_record(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
    ) -> Result<(Revision, KnownContent)> {
        let view = self.view(machine)?;
        let revision = match revision {
            Some(revision) => self.require_recordable(&view, revision)?,
            None => view.require_current()?,
        };
        Ok((revision.revision, self.known_content(machine, revision)))
    }

    /// Records the content of a complete revision beside it. Reads everything; meanwhile the
    /// revision is not deleted.
    ///
    /// # Errors
    /// The revision is not complete or changes meanwhile, or the machine stays locked.
    pub fn record(&self, machine: &MachineName, revision: Revision) -> Result<Verified> {
        self.require_recordable(&self.view(machine)?, revision)?;
        let _in_use = self.lock_revision(machine, revision)?;
        let path = self.entry(machine, &Entry::Revision(revision));
        let before = self.committed(machine, revision)?;
        let manifest = content_manifest::scan_all(&path)?;
        let verified = Verified::of(&manifest);
        let _lock = self.lock(machine)?;
        let record = ContentRecord::new(&before, manifest);
        let after = self.committed(machine, revision)?;
        if !(after.read_only && record.is_up_to_date(&after)) {
            return Err(RecordRefusal::Changing(machine.clone(), revision).into());
        }
        let path = self.entry(machine, &Entry::ContentRecord(revision));
        let written = self.backend.write(&path, record.print().as_bytes());
        written.context("write", &path)?;
        self.commit()?;
        Ok(verified)
    }

    /// Returns true if a revision has a content manifest inside, which was verified before the
    /// revision became current.
    pub fn has_content_manifest(&self, machine: &MachineName, revision: Revision) -> bool {
        content_manifest::exists(&self.entry(machine, &Entry::Revision(revision)))
    }

    /// Returns the digest of a revision's content manifest, or of the content in its record, which is the
    /// same for the same content. It is `None` without them, and if the revision was changed since.
    ///
    /// A revision that was received has the content of its manifest, because a change takes its received
    /// UUID away. One that was changed here is verified, which reads all of it.
    ///
    /// # Errors
    /// The revision or its record cannot be read.
    pub fn content_digest(
        &self,
        machine: &MachineName,
        revision: Revision,
    ) -> Result<Option<Digest>> {
        let subvolume = self.committed(machine, revision)?;
        let path = self.entry(machine, &Entry::Revision(revision));
        if let Some(digest) = content_manifest::digest(&path) {
            let is_received = subvolume.received_uuid.is_some();
            let is_true = is_received || self.has_recorded_content(machine, revision);
            return Ok(Some(digest).filter(|_| is_true));
        }
        let record = self.content_record(machine, revision)?;
        let record = record.filter(|it| it.is_up_to_date(&subvolume));
        Ok(record.map(|it| sys::file::digest_of(it.manifest.print().as_bytes())))
    }

    /// Returns what is known of a revision's content.
    pub fn known_content(&self, machine: &MachineName, revision: &RevisionView) -> KnownContent {
        if self.has_content_manifest(machine, revision.revision) {
            return KnownContent::Manifest;
        }
        let record = self.content_record(machine, revision.revision);
        match record.ok().flatten() {
            Some(record) if record.is_up_to_date(&revision.subvolume) => KnownContent::Recorded,
            Some(record) if record.is_of(&revision.subvolume) => KnownContent::Outdated,
            _ => KnownContent::Unknown,
        }
    }

    /// Returns the content manifest of a complete revision: the one inside, or else the record.
    pub(crate) fn manifest_of(
        &self,
        machine: &MachineName,
        revision: Revision,
    ) -> Result<ContentManifest> {
        let path = self.entry(machine, &Entry::Revision(revision));
        if let Some(manifest) = content_manifest::read(&path)? {
            return Ok(manifest);
        }
        let subvolume = self.committed(machine, revision)?;
        let refusal = match self.content_record(machine, revision)? {
            Some(record) if record.is_up_to_date(&subvolume) => return Ok(record.manifest),
            Some(record) if record.is_of(&subvolume) => RecordRefusal::Outdated,
            _ => RecordRefusal::NoManifest,
        };
        Err(refusal(machine.clone(), revision).into())
    }

    /// Returns true if a revision was created here and has not changed since its content manifest
    /// was written: the manifest is what was changed last.
    pub fn is_as_recorded(&self, machine: &MachineName, revision: Revision) -> bool {
        let path = self.entry(machine, &Entry::Revision(revision));
        let subvolume = self.committed(machine, revision);
        let last_change = self.backend.last_change(&path.join(FILE)).ok().flatten();
        subvolume.is_ok_and(|it| it.received_uuid.is_none() && last_change == Some(it.transaction))
    }

    /// Returns the subvolume of a revision with all its changes. The kernel delays what it shows of
    /// them until they are committed.
    fn committed(&self, machine: &MachineName, revision: Revision) -> Result<Subvolume> {
        self.commit()?;
        let path = self.entry(machine, &Entry::Revision(revision));
        let subvolume = self.backend.info(&path).context("inspect", &path)?;
        let missing = || MachineRefusal::NoRevision(machine.clone(), revision);
        Ok(subvolume.ok_or_else(missing)?)
    }

    /// Returns the record of the subvolume that was this revision; `None` without one.
    fn content_record(
        &self,
        machine: &MachineName,
        revision: Revision,
    ) -> Result<Option<ContentRecord>> {
        let entry = Entry::ContentRecord(revision);
        let path = self.entry(machine, &entry);
        let directory = self.directory(machine);
        let text = match sys::untrusted::read_text(&directory, entry.name(machine), BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.context("read", &path)?,
        };
        let record = ContentRecord::parse(&text);
        Ok(Some(record.map_err(|source| RecordRefusal::Damaged {
            machine: machine.clone(),
            revision,
            path,
            source,
        })?))
    }

    /// Returns a revision whose content cannot change, or the reason why it can.
    fn require_recordable<'v>(
        &self,
        view: &'v MachineView,
        revision: Revision,
    ) -> Result<&'v RevisionView> {
        let machine = view.name.clone();
        Ok(match view.revision(revision) {
            Some(found) if found.complete => found,
            Some(_) if view.arriving.contains(&revision) => {
                return Err(RecordRefusal::Incomplete(machine, revision).into());
            }
            Some(_) => {
                let path = self.entry(&machine, &Entry::Revision(revision));
                return Err(RecordRefusal::Writable { revision, path }.into());
            }
            None => return Err(MachineRefusal::NoRevision(machine, revision).into()),
        })
    }
}
