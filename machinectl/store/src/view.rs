//! The content of a machine's directory, read without a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use config::canary::Trial;
use config::layout::Entry;
use config::task::Provenance;
use config::{MachineName, Revision, Tag, ToolchainName};

use crate::{
    MachineRefusal, RefusalKind, Result, Subvolume, Uuid, Volume, image_provenance, lock,
    machine_manifest,
};
use btrfs::error::IoContext;

/// The content of a machine's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// The machine.
    pub name: MachineName,
    /// The current revision: the target of the current link, if that is complete.
    pub current: Option<Revision>,
    /// The fault of a current link that does not lead to a complete revision.
    pub link_fault: Option<String>,
    /// True if the current link leads to something other than a revision of this machine.
    /// Only the person who made the link knows its purpose.
    pub link_unmanaged: bool,
    /// True if the deletion of the machine has begun.
    pub deleting: bool,
    /// True if a link was not renamed to the current link.
    pub incoming: bool,
    /// The state of the ingest.
    pub ingest: IngestState,
    /// The revisions that are marked as unfinished; they need not exist.
    pub arriving: BTreeSet<Revision>,
    /// The partial revisions: the subvolumes with what has arrived of a revision.
    pub partial: BTreeSet<Revision>,
    /// The partial revisions whose parts are known; they need not exist.
    pub partial_states: BTreeSet<Revision>,
    /// The revisions with a note; they need not exist.
    pub notes: BTreeSet<Revision>,
    /// The revisions whose content this host has recorded; they need not exist, and may have
    /// changed.
    pub content_records: BTreeSet<Revision>,
    /// The trials of revisions, which need not exist.
    pub trials: BTreeMap<Revision, Trial>,
    /// The images of revisions for their trials.
    pub trial_images: Vec<(Revision, ImageView)>,
    /// The revisions that must not be pruned; they need not exist.
    pub pins: BTreeSet<Revision>,
    /// The complete revisions that a process reads, such as a sender.
    pub revisions_in_use: BTreeSet<Revision>,
    /// The UUIDs of the sources of images and of snapshots in use.
    pub origins: BTreeSet<Uuid>,
    /// The initial images, oldest first.
    pub revisions: Vec<RevisionView>,
    /// The bootstrapped images.
    pub images: Vec<ImageView>,
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
    /// The names of entries that Buildhost does not manage and never touches.
    pub unmanaged: Vec<String>,
}

/// The state of the ingest of a machine's revisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IngestState {
    /// No revision is being created.
    #[default]
    Idle,
    /// The process that was creating a revision has ended without finishing it.
    Interrupted,
    /// A process is creating a revision.
    Running,
}

/// An initial image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionView {
    /// The number.
    pub revision: Revision,
    /// The subvolume's UUID.
    pub uuid: Uuid,
    /// The UUID of the subvolume that it was received from.
    pub received_uuid: Option<Uuid>,
    /// True if the revision may be used: it is read-only, and its content is on the disk. One
    /// that is incomplete without being marked as arriving was made by a person.
    pub complete: bool,
    /// The properties of the subvolume.
    pub subvolume: Subvolume,
}

/// A bootstrapped image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageView {
    /// The installed toolchain.
    pub toolchain: ToolchainName,
    /// The subvolume's UUID.
    pub uuid: Uuid,
    /// True if the image may be used: it is read-only.
    pub complete: bool,
    /// The sources of the image; `None` if its manifest cannot be read.
    pub provenance: Option<Provenance>,
}

/// A snapshot for a build or a bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotView {
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The last part of the name.
    pub tag: Tag,
    /// True if a process holds the snapshot's lock.
    pub in_use: bool,
}

impl MachineView {
    /// Returns the view of an empty directory.
    pub fn new(name: MachineName) -> Self {
        Self {
            name,
            current: None,
            link_fault: None,
            link_unmanaged: false,
            deleting: false,
            incoming: false,
            ingest: IngestState::Idle,
            arriving: BTreeSet::new(),
            partial: BTreeSet::new(),
            partial_states: BTreeSet::new(),
            notes: BTreeSet::new(),
            content_records: BTreeSet::new(),
            trials: BTreeMap::new(),
            trial_images: Vec::new(),
            pins: BTreeSet::new(),
            revisions_in_use: BTreeSet::new(),
            origins: BTreeSet::new(),
            revisions: Vec::new(),
            images: Vec::new(),
            snapshots: Vec::new(),
            unmanaged: Vec::new(),
        }
    }

    /// Returns true if the machine is in service.
    pub fn is_live(&self) -> bool {
        self.current.is_some()
    }

    /// Returns true if a process uses a snapshot, or reads or creates a revision.
    pub fn is_in_use(&self) -> bool {
        !self.revisions_in_use.is_empty()
            || self.ingest == IngestState::Running
            || self.snapshots.iter().any(|snapshot| snapshot.in_use)
    }

    /// Returns true if a process is creating a revision at present.
    pub fn is_arriving(&self, revision: Revision) -> bool {
        self.ingest == IngestState::Running && self.arriving.contains(&revision)
    }

    /// Returns true if the creation of a revision was interrupted.
    pub fn is_interrupted(&self, revision: Revision) -> bool {
        self.ingest != IngestState::Running && self.arriving.contains(&revision)
    }

    /// Returns true if a transfer can continue a partial revision.
    pub fn is_continuable(&self, revision: Revision) -> bool {
        let is_newer = self.current.is_none_or(|current| current < revision);
        is_newer && self.partial.contains(&revision) && self.partial_states.contains(&revision)
    }

    /// Returns true if no entry of the directory is managed by Buildhost.
    pub fn is_unmanaged(&self) -> bool {
        let empty =
            self.revisions.is_empty() && self.images.is_empty() && self.snapshots.is_empty();
        let empty = empty && self.trial_images.is_empty();
        let idle = self.ingest == IngestState::Idle
            && self.arriving.is_empty()
            && self.partial.is_empty()
            && self.partial_states.is_empty();
        empty && idle && !self.has_link() && !self.deleting
    }

    /// Returns true if there is a current link, even if its target does not exist.
    pub fn has_link(&self) -> bool {
        self.current.is_some() || self.link_fault.is_some()
    }

    /// Returns a revision, complete or not.
    pub fn revision(&self, revision: Revision) -> Option<&RevisionView> {
        self.revisions.iter().find(|view| view.revision == revision)
    }

    /// Returns the current revision.
    pub fn current(&self) -> Option<&RevisionView> {
        self.revision(self.current?)
    }

    /// Returns the image for a toolchain.
    pub fn image(&self, toolchain: &ToolchainName) -> Option<&ImageView> {
        self.images.iter().find(|view| view.toolchain == *toolchain)
    }

    /// Returns the current revision, or the reason why the machine has none.
    pub(crate) fn require_current(&self) -> Result<&RevisionView, MachineRefusal> {
        match self.current() {
            Some(view) => Ok(view),
            None if self.deleting => Err(MachineRefusal::Deleting(self.name.clone())),
            None => Err(MachineRefusal::NoCurrent {
                machine: self.name.clone(),
                fault: self.link_fault.clone(),
            }),
        }
    }

    /// Returns the given revision if it is complete, by default the current one.
    pub(crate) fn resolve(&self, revision: Option<Revision>) -> Result<Revision, MachineRefusal> {
        match revision {
            Some(revision) => self.require_complete(revision),
            None => self.require_current(),
        }
        .map(|view| view.revision)
    }

    /// Returns a revision, or a refusal if it does not exist or is not complete.
    pub(crate) fn require_complete(
        &self,
        revision: Revision,
    ) -> Result<&RevisionView, MachineRefusal> {
        self.revision(revision)
            .filter(|view| view.complete)
            .ok_or_else(|| MachineRefusal::NoRevision(self.name.clone(), revision))
    }
}

impl Volume {
    /// Reads a machine's directory. No lock is taken, so the view may be outdated.
    ///
    /// # Errors
    /// The machine does not exist, or its directory or a managed entry cannot be read.
    pub fn view(&self, machine: &MachineName) -> Result<MachineView> {
        let directory = self.directory(machine);
        let not_found = || MachineRefusal::NotFound(machine.clone());
        // A symbolic link does not count: the directory has the name of another machine.
        if !is_directory(&directory).context("inspect", &directory)? {
            return Err(not_found().into());
        }
        let entries = match directory.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_found().into());
            }
            entries => entries.context("list", &directory)?,
        };
        let mut view = MachineView::new(machine.clone());
        let mut link = None;
        for entry in entries {
            let name = entry.context("list", &directory)?.file_name();
            let path = directory.join(&name);
            let entry = name.to_str().and_then(|name| Entry::parse(machine, name));
            let managed = match entry {
                Some(entry) => self.add_entry(&mut view, &mut link, entry, &path),
                None => Ok(false),
            };
            if !managed.context("inspect", &path)? {
                view.unmanaged.push(name.to_string_lossy().into_owned());
            }
        }
        view.finish(&directory, link.as_deref());
        Ok(view)
    }

    /// Returns the views of some machines, or of all if none are named: then without machines that
    /// were deleted after they were listed.
    ///
    /// # Errors
    /// Those of [`Volume::view`].
    pub fn views(&self, machines: &[MachineName]) -> Result<Vec<MachineView>> {
        if !machines.is_empty() {
            return machines.iter().map(|it| self.view(it)).collect();
        }
        let mut views = Vec::new();
        for machine in self.machines()? {
            match self.view(&machine) {
                Err(error) if error.kind() == Some(RefusalKind::NotFound) => {}
                view => views.push(view?),
            }
        }
        Ok(views)
    }

    /// Returns the reason for which the manifest of a machine's current revision cannot be used;
    /// `None` if it has no manifest, because not every revision is meant for builds, and if the
    /// caller may not read it.
    pub fn manifest_fault(&self, view: &MachineView) -> Option<String> {
        let revision = Entry::Revision(view.current?);
        let directory = self.entry(&view.name, &revision);
        directory
            .join(config::machine::FILE)
            .symlink_metadata()
            .ok()?;
        let fault = machine_manifest(&directory).err()?;
        (!fault.is_denied()).then(|| sys::error_report::chain(&fault))
    }

    /// Adds an entry to a view. Returns false if the entry is not of the kind that its name
    /// announces.
    fn add_entry(
        &self,
        view: &mut MachineView,
        link: &mut Option<PathBuf>,
        entry: Entry,
        path: &Path,
    ) -> io::Result<bool> {
        match entry {
            Entry::Revision(_) | Entry::Image(_) | Entry::TrialImage(..) | Entry::Snapshot(..) => {
                match self.backend.info(path) {
                    // The entry was deleted after it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
                    Ok(None) => return Ok(false),
                    subvolume => {
                        if let Some(subvolume) = subvolume? {
                            view.add_subvolume(entry, path, subvolume);
                        }
                    }
                }
                Ok(true)
            }
            Entry::Current => {
                *link = fs::read_link(path).ok();
                Ok(link.is_some())
            }
            Entry::Incoming => {
                view.incoming = path.is_symlink();
                Ok(view.incoming)
            }
            Entry::Deleting => {
                view.deleting = path.is_symlink();
                Ok(view.deleting)
            }
            Entry::Ingest => {
                let exists = is_directory(path)?;
                if exists {
                    view.ingest = if lock::is_locked(path) {
                        IngestState::Running
                    } else {
                        IngestState::Interrupted
                    };
                }
                Ok(exists)
            }
            Entry::Arriving(revision) => Ok(path.is_symlink() && view.arriving.insert(revision)),
            Entry::Partial(revision) => {
                let is_subvolume = self.backend.info(path)?.is_some();
                if is_subvolume {
                    view.partial.insert(revision);
                }
                Ok(is_subvolume)
            }
            Entry::PartialState(revision) => {
                Ok(is_file(path) && view.partial_states.insert(revision))
            }
            Entry::Note(revision) => Ok(is_file(path) && view.notes.insert(revision)),
            Entry::ContentRecord(revision) => {
                Ok(is_file(path) && view.content_records.insert(revision))
            }
            Entry::Trial(revision) => {
                let exists = is_file(path);
                if exists {
                    let trial = self.read_trial(&view.name, revision);
                    view.trials.insert(revision, trial);
                }
                Ok(exists)
            }
            Entry::Pin(revision) => Ok(path.is_symlink() && view.pins.insert(revision)),
        }
    }
}

impl MachineView {
    fn add_subvolume(&mut self, entry: Entry, path: &Path, subvolume: Subvolume) {
        match entry {
            Entry::Revision(revision) => {
                if subvolume.read_only && lock::is_in_use(path) {
                    self.revisions_in_use.insert(revision);
                }
                self.revisions.push(RevisionView {
                    revision,
                    uuid: subvolume.uuid,
                    received_uuid: subvolume.received_uuid,
                    complete: subvolume.read_only,
                    subvolume,
                });
            }
            Entry::Image(toolchain) => {
                let image = self.image_view(toolchain, path, &subvolume);
                self.images.push(image);
            }
            Entry::TrialImage(revision, toolchain) => {
                let image = self.image_view(toolchain, path, &subvolume);
                self.trial_images.push((revision, image));
            }
            Entry::Snapshot(toolchain, tag) => {
                let in_use = lock::seems_in_use(path);
                if in_use {
                    self.origins.extend(subvolume.parent_uuid);
                    let provenance = image_provenance(path).ok().flatten();
                    self.origins.extend(origin(provenance.as_ref()));
                }
                self.snapshots.push(SnapshotView {
                    toolchain,
                    tag,
                    in_use,
                });
            }
            Entry::Current
            | Entry::Incoming
            | Entry::Deleting
            | Entry::Ingest
            | Entry::Arriving(_)
            | Entry::Partial(_)
            | Entry::PartialState(_)
            | Entry::Note(_)
            | Entry::ContentRecord(_)
            | Entry::Trial(_)
            | Entry::Pin(_) => {}
        }
    }

    /// Returns the view of an image, and adds its source to the origins.
    fn image_view(
        &mut self,
        toolchain: ToolchainName,
        path: &Path,
        subvolume: &Subvolume,
    ) -> ImageView {
        let provenance = image_provenance(path).ok().flatten();
        self.origins.extend(origin(provenance.as_ref()));
        ImageView {
            toolchain,
            uuid: subvolume.uuid,
            complete: subvolume.read_only,
            provenance,
        }
    }

    /// Sorts the entries and evaluates the marks and the current link.
    fn finish(&mut self, directory: &Path, link: Option<&Path>) {
        for revision in &mut self.revisions {
            revision.complete &= !self.arriving.contains(&revision.revision);
        }
        self.revisions.sort_by_key(|revision| revision.revision);
        self.images.sort_by(|a, b| a.toolchain.cmp(&b.toolchain));
        self.trial_images
            .sort_by(|a, b| (a.0, &a.1.toolchain).cmp(&(b.0, &b.1.toolchain)));
        self.snapshots
            .sort_by(|a, b| (&a.toolchain, &a.tag).cmp(&(&b.toolchain, &b.tag)));
        self.unmanaged.sort();
        if let Some(target) = link {
            let entry = entry_name(directory, target).and_then(|it| Entry::parse(&self.name, it));
            self.link_unmanaged = !matches!(entry, Some(Entry::Revision(_)));
            match resolve_link(self, directory, target) {
                Ok(revision) => self.current = Some(revision),
                Err(fault) => self.link_fault = Some(fault),
            }
        }
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|it| it.is_file())
}

fn is_directory(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(data) => Ok(data.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the complete revision that a current link leads to, or the link's fault.
fn resolve_link(view: &MachineView, directory: &Path, target: &Path) -> Result<Revision, String> {
    let shown = target.display();
    let name = entry_name(directory, target)
        .ok_or_else(|| format!("its link leads to `{shown}`, out of its directory"))?;
    let Some(Entry::Revision(revision)) = Entry::parse(&view.name, name) else {
        return Err(format!(
            "its link leads to `{shown}`, which is not a revision"
        ));
    };
    match view.revision(revision) {
        Some(view) if view.complete => Ok(revision),
        Some(_) => Err(format!(
            "its link leads to revision {revision}, which is not complete"
        )),
        None => Err(format!(
            "its link leads to revision {revision}, which does not exist"
        )),
    }
}

/// Returns the name of the entry of `directory` that a link's target denotes. People also
/// write `./name`, `name/` and absolute paths.
fn entry_name<'a>(directory: &Path, target: &'a Path) -> Option<&'a str> {
    let (parent, name) = (target.parent()?, target.file_name()?);
    let is_inside = parent.components().all(|part| part == Component::CurDir)
        || directory.join(parent).canonicalize().ok()? == directory;
    is_inside.then(|| name.to_str()).flatten()
}

/// Returns the UUID of the revision that an image was made from.
fn origin(provenance: Option<&Provenance>) -> Option<Uuid> {
    Uuid::parse_str(&provenance?.revision_uuid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_targets_are_accepted_in_all_spellings_of_an_entry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let absolute = path.join("linux-1");
        for target in [
            "linux-1",
            "./linux-1",
            "linux-1/",
            absolute.to_str().unwrap(),
        ] {
            assert_eq!(
                entry_name(&path, Path::new(target)),
                Some("linux-1"),
                "{target}"
            );
        }
        for target in ["/", "..", "../linux-1", "/tmp/linux-1", "x/linux-1"] {
            assert_eq!(entry_name(&path, Path::new(target)), None, "{target}");
        }
    }
}
