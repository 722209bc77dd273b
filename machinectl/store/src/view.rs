//! What a machine's directory shows, read without a lock.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use config::layout::Entry;
use config::task::{BOOTSTRAP, Provenance};
use config::{MachineName, Revision, Tag, ToolchainName};

use crate::error::IoContext;
use crate::subvolumes::Subvolume;
use crate::{Refusal, RefusalKind, Result, Uuid, Volume, lock};

/// A manifest of ours is much shorter.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;

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
        }
    }
}

/// What a machine's directory shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// The machine.
    pub name: MachineName,
    /// The revision in effect: where the current link leads, if that is complete.
    pub current: Option<Revision>,
    /// What is wrong with the current link, when there is one that leads to no
    /// complete revision.
    pub link_fault: Option<String>,
    /// The current link leads to what is no revision of this machine: only a person
    /// who made it knows why.
    pub link_elsewhere: bool,
    /// The machine is on its way out: the link of a deletion is there.
    pub deleting: bool,
    /// A link was left on its way to become the current one.
    pub incoming: bool,
    /// The revisions that are being made, or were when somebody died; also of ones
    /// that are not there.
    pub arriving: BTreeSet<Revision>,
    /// The revisions that are kept from being pruned; also of ones that are gone.
    pub pins: BTreeSet<Revision>,
    /// Complete revisions that somebody reads, as a sender does; they stay meanwhile.
    pub held: BTreeSet<Revision>,
    /// The identities of what images, and snapshots in use, were made from.
    pub origins: BTreeSet<Uuid>,
    /// The initial images, oldest first.
    pub revisions: Vec<RevisionView>,
    /// The bootstrapped images.
    pub images: Vec<ImageView>,
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
    /// Everything that is not ours; never touched.
    pub strangers: Vec<String>,
}

/// An initial image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionView {
    /// Its number.
    pub revision: Revision,
    /// Its own identity.
    pub uuid: Uuid,
    /// The identity that it was received with.
    pub received_uuid: Option<Uuid>,
    /// Whether it may be used: it is read-only, and its content is on the disk.
    pub complete: bool,
    /// All that btrfs knows.
    pub subvolume: Subvolume,
}

/// A bootstrapped image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageView {
    /// The toolchain that is installed.
    pub toolchain: ToolchainName,
    /// The UUID of its subvolume.
    pub uuid: Uuid,
    /// Whether it may be used: it is read-only.
    pub complete: bool,
    /// What it was made from; `None` when its manifest cannot be read.
    pub provenance: Option<Provenance>,
}

/// A snapshot for a build or a bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotView {
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The rest of its name.
    pub tag: Tag,
    /// Whether somebody holds it.
    pub in_use: bool,
}

impl MachineView {
    /// A machine of which nothing is there.
    pub fn new(name: MachineName) -> Self {
        Self {
            name,
            current: None,
            link_fault: None,
            link_elsewhere: false,
            deleting: false,
            incoming: false,
            arriving: BTreeSet::new(),
            pins: BTreeSet::new(),
            held: BTreeSet::new(),
            origins: BTreeSet::new(),
            revisions: Vec::new(),
            images: Vec::new(),
            snapshots: Vec::new(),
            strangers: Vec::new(),
        }
    }

    /// Whether the machine is in service.
    pub fn is_live(&self) -> bool {
        self.current.is_some()
    }

    /// Whether somebody uses one of its snapshots or reads one of its revisions.
    pub fn is_used(&self) -> bool {
        !self.held.is_empty() || self.snapshots.iter().any(|snapshot| snapshot.in_use)
    }

    /// Whether nothing in the directory says that it has to do with us.
    pub fn is_foreign(&self) -> bool {
        let empty =
            self.revisions.is_empty() && self.images.is_empty() && self.snapshots.is_empty();
        empty && !self.has_link() && !self.deleting && self.arriving.is_empty()
    }

    /// Whether a link says that this is a machine, even when it leads nowhere.
    pub fn has_link(&self) -> bool {
        self.current.is_some() || self.link_fault.is_some()
    }

    /// A revision that is there, complete or not.
    pub fn revision(&self, revision: Revision) -> Option<&RevisionView> {
        self.revisions.iter().find(|view| view.revision == revision)
    }

    /// The revision in effect.
    pub fn current(&self) -> Option<&RevisionView> {
        self.revision(self.current?)
    }

    /// The image for a toolchain.
    pub fn image(&self, toolchain: &ToolchainName) -> Option<&ImageView> {
        self.images.iter().find(|view| view.toolchain == *toolchain)
    }

    /// The error of somebody who needs the current revision.
    pub(crate) fn need_current(&self) -> Result<&RevisionView, MachineRefusal> {
        match self.current() {
            Some(view) => Ok(view),
            None if self.deleting => Err(MachineRefusal::Deleting(self.name.clone())),
            None => Err(MachineRefusal::NoCurrent {
                machine: self.name.clone(),
                fault: self.link_fault.clone(),
            }),
        }
    }
}

impl Volume {
    /// Where an entry of a machine is or would be.
    pub fn entry(&self, machine: &MachineName, entry: &Entry) -> PathBuf {
        self.directory(machine).join(entry.name(machine))
    }

    /// Looks at a machine. Takes no lock, so what it shows may be old; what it does
    /// not know it reports as a stranger.
    ///
    /// # Errors
    /// When there is no such machine, or its directory or an entry of ours in it cannot
    /// be read.
    pub fn look(&self, machine: &MachineName) -> Result<MachineView> {
        let directory = self.directory(machine);
        // A link to a directory is none: its name says another machine.
        if !is_directory(&directory).context("look at", &directory)? {
            return Err(MachineRefusal::NotFound(machine.clone()).into());
        }
        let entries = match directory.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(MachineRefusal::NotFound(machine.clone()).into());
            }
            entries => entries.context("list", &directory)?,
        };
        let mut view = MachineView::new(machine.clone());
        let mut link = None;
        for entry in entries {
            let name = entry.context("list", &directory)?.file_name();
            let path = directory.join(&name);
            let known = name.to_str().and_then(|name| Entry::read(machine, name));
            let taken = match known {
                Some(entry) => self.take_in(&mut view, &mut link, entry, &path),
                None => Ok(false),
            };
            if !taken.context("look at", &path)? {
                view.strangers.push(name.to_string_lossy().into_owned());
            }
        }
        for it in &mut view.revisions {
            it.complete &= !view.arriving.contains(&it.revision);
        }
        view.revisions.sort_by_key(|revision| revision.revision);
        view.images.sort_by(|a, b| a.toolchain.cmp(&b.toolchain));
        view.snapshots
            .sort_by(|a, b| (&a.toolchain, &a.tag).cmp(&(&b.toolchain, &b.tag)));
        view.strangers.sort();
        if let Some(target) = link {
            let name = inside(&directory, &target);
            let entry = name.and_then(|name| Entry::read(machine, name));
            view.link_elsewhere = !matches!(entry, Some(Entry::Revision(_)));
            match follow(&view, &directory, &target) {
                Ok(revision) => view.current = Some(revision),
                Err(fault) => view.link_fault = Some(fault),
            }
        }
        Ok(view)
    }

    /// Adds an entry to a view. False when it only has a name of ours.
    fn take_in(
        &self,
        view: &mut MachineView,
        link: &mut Option<PathBuf>,
        entry: Entry,
        path: &Path,
    ) -> io::Result<bool> {
        let subvolume = match &entry {
            Entry::Revision(_) | Entry::Image(_) | Entry::Snapshot(..) => {
                match self.backend.info(path) {
                    // Deleted while we look.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
                    found => found?,
                }
            }
            _ => None,
        };
        Ok(match entry {
            Entry::Current => {
                *link = fs::read_link(path).ok();
                link.is_some()
            }
            Entry::Incoming => {
                view.incoming = path.is_symlink();
                view.incoming
            }
            Entry::Deleting => {
                view.deleting = path.is_symlink();
                view.deleting
            }
            Entry::Arriving(revision) => path.is_symlink() && view.arriving.insert(revision),
            Entry::Pin(revision) => path.is_symlink() && view.pins.insert(revision),
            Entry::Revision(revision) => subvolume
                .map(|subvolume| {
                    if subvolume.read_only && lock::is_held(path) {
                        view.held.insert(revision);
                    }
                    view.revisions.push(RevisionView {
                        revision,
                        uuid: subvolume.uuid,
                        received_uuid: subvolume.received_uuid,
                        complete: subvolume.read_only,
                        subvolume,
                    });
                })
                .is_some(),
            Entry::Image(toolchain) => subvolume
                .map(|subvolume| {
                    let provenance = provenance(path);
                    view.origins.extend(origin(provenance.as_ref()));
                    view.images.push(ImageView {
                        toolchain,
                        uuid: subvolume.uuid,
                        complete: subvolume.read_only,
                        provenance,
                    });
                })
                .is_some(),
            Entry::Snapshot(toolchain, tag) => subvolume
                .map(|subvolume| {
                    let in_use = lock::in_use(path);
                    if in_use {
                        view.origins.extend(subvolume.parent_uuid);
                        view.origins.extend(origin(provenance(path).as_ref()));
                    }
                    view.snapshots.push(SnapshotView {
                        toolchain,
                        tag,
                        in_use,
                    });
                })
                .is_some(),
        })
    }
}

fn is_directory(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(data) => Ok(data.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where a current link leads, or what is wrong with it.
fn follow(view: &MachineView, directory: &Path, target: &Path) -> Result<Revision, String> {
    let shown = target.display();
    let name = inside(directory, target)
        .ok_or_else(|| format!("its link leads to `{shown}`, out of its directory"))?;
    match Entry::read(&view.name, name) {
        Some(Entry::Revision(revision)) => match view.revision(revision) {
            Some(view) if view.complete => Ok(revision),
            Some(_) => Err(format!(
                "its link leads to revision {revision}, which is not complete"
            )),
            None => Err(format!(
                "its link leads to revision {revision}, which is not there"
            )),
        },
        _ => Err(format!("its link leads to `{shown}`, which is no revision")),
    }
}

/// The one name in `directory` that a link's target means. People also write
/// `./name`, `name/` and whole paths.
fn inside<'a>(directory: &Path, target: &'a Path) -> Option<&'a str> {
    let (parent, name) = (target.parent()?, target.file_name()?);
    let here = parent.components().all(|part| part == Component::CurDir)
        || directory.join(parent).canonicalize().ok()? == directory;
    here.then(|| name.to_str()).flatten()
}

/// The revision that an image was made from.
fn origin(provenance: Option<&Provenance>) -> Option<Uuid> {
    Uuid::parse_str(&provenance?.revision_uuid).ok()
}

/// What an image says of itself.
fn provenance(image: &Path) -> Option<Provenance> {
    Provenance::parse(&small_file(&image.join(BOOTSTRAP)).ok()?).ok()
}

/// The text of a small file, never through a link: a guest may have made it.
pub(crate) fn small_file(path: &Path) -> io::Result<String> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_people_write_them() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().canonicalize().unwrap();
        let whole = here.join("linux-1");
        for target in ["linux-1", "./linux-1", "linux-1/", whole.to_str().unwrap()] {
            assert_eq!(
                inside(&here, Path::new(target)),
                Some("linux-1"),
                "{target}"
            );
        }
        for target in ["/", "..", "../linux-1", "/tmp/linux-1", "x/linux-1"] {
            assert_eq!(inside(&here, Path::new(target)), None, "{target}");
        }
    }
}
