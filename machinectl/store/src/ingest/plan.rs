//! The decision about an image, from its properties and the machine's view alone.

use config::layout::Entry;
use config::{MachineName, Revision};

use super::parent::FoundParent;
use super::{IngestRefusal, Intent};
use crate::{MachineRefusal, MachineView, Result, Subvolume, Uuid};

/// The way in which an image becomes the current revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestPlan {
    /// The new current revision.
    pub revision: Revision,
    /// The treatment of the revision's subvolume.
    pub method: Method,
    /// The current revision before.
    pub before: Option<Revision>,
    /// The UUID that the revision must have, be received from or be a snapshot of; `None` for
    /// an import.
    pub(crate) identity: Option<Uuid>,
    /// The parent of an incremental stream.
    pub(crate) parent: Option<FoundParent>,
}

/// The treatment of a revision's subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It is created.
    Create,
    /// An unfinished one of an interrupted ingest is deleted, then it is created.
    Recreate,
    /// It exists and is complete; only the current link is missing.
    Adopt,
}

/// The properties of an image that a plan depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IncomingImage {
    /// The stream's or subvolume's name.
    pub(super) name: String,
    /// True if the name must be `<machine>-<revision>`.
    pub(super) must_be_named: bool,
    /// A revision that the new one must follow.
    pub(super) after: Option<Revision>,
    /// The content.
    pub(super) content: Content,
}

/// The content of an image, as far as it can be identified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A stream of a subvolume, as it was after a transaction.
    Stream {
        /// The UUID that the subvolume was received with, or else its own.
        uuid: Uuid,
        /// The transaction of its last change at the sender.
        transaction: u64,
    },
    /// A subvolume of the volume's file system.
    Subvolume(Subvolume),
    /// Files without an identity.
    Files,
}

impl IncomingImage {
    /// Returns true if a revision has the content of this image.
    fn is_copied_by(&self, revision: &Subvolume) -> bool {
        match &self.content {
            Content::Stream { uuid, transaction } => revision.is_in_state(*uuid, *transaction),
            Content::Subvolume(source) => source.read_only && revision.has_content_of(source),
            Content::Files => false,
        }
    }

    /// Returns the UUID that the revision must have, be received from or be a snapshot of.
    fn identity(&self) -> Option<Uuid> {
        match &self.content {
            Content::Stream { uuid, .. } => Some(*uuid),
            Content::Subvolume(source) => Some(source.stream_uuid()),
            Content::Files => None,
        }
    }
}

/// Decides about an image. The view of a machine that does not exist is empty.
pub(super) fn plan(
    intent: Intent,
    view: &MachineView,
    image: &IncomingImage,
) -> Result<IngestPlan> {
    check_machine(intent, view)?;
    let revision = revision(view, image)?;
    check(intent, view, revision)?;
    Ok(IngestPlan {
        revision,
        method: method(view, revision, image)?,
        before: view.current,
        identity: image.identity(),
        parent: None,
    })
}

/// Checks that a revision may become the current one of a machine.
pub(super) fn check(intent: Intent, view: &MachineView, revision: Revision) -> Result<()> {
    check_machine(intent, view)?;
    match view.current {
        Some(current) if revision <= current => Err(IngestRefusal::NotNewer {
            machine: view.name.clone(),
            revision,
            current,
        }
        .into()),
        _ => Ok(()),
    }
}

fn check_machine(intent: Intent, view: &MachineView) -> Result<()> {
    if view.deleting && !view.has_link() {
        return Err(MachineRefusal::Deleting(view.name.clone()).into());
    }
    match (intent, view.has_link()) {
        (Intent::Add, false) => Ok(()),
        (Intent::Add, true) => Err(IngestRefusal::MachineExists(view.name.clone()).into()),
        // A link to a missing or incomplete revision is replaced, but not one to anything else.
        (Intent::Upgrade, true) if !view.link_unmanaged => Ok(()),
        (Intent::Upgrade, _) => {
            view.require_current()?;
            Ok(())
        }
    }
}

fn method(view: &MachineView, revision: Revision, image: &IncomingImage) -> Result<Method> {
    let machine = || view.name.clone();
    match view.revision(revision) {
        None => Ok(Method::Create),
        // A person has made it writable while the link leads to it, and must decide about it.
        Some(existing) if !existing.complete && view.link_fault.is_some() => {
            Err(MachineRefusal::NoCurrent {
                machine: machine(),
                fault: view.link_fault.clone(),
            }
            .into())
        }
        Some(existing) if existing.complete && image.is_copied_by(&existing.subvolume) => {
            Ok(Method::Adopt)
        }
        Some(existing) if existing.complete => {
            Err(IngestRefusal::OtherContent(machine(), revision).into())
        }
        Some(_) if view.arriving.contains(&revision) => Ok(Method::Recreate),
        Some(_) => Err(IngestRefusal::Writable(machine(), revision).into()),
    }
}

/// Returns the number of the revision: the one in the image's name, or else the next one.
fn revision(view: &MachineView, image: &IncomingImage) -> Result<Revision> {
    match Entry::parse(&view.name, &image.name) {
        Some(Entry::Revision(revision)) => Ok(revision),
        _ if image.must_be_named => Err(wrong_name(&view.name, &image.name).into()),
        // An ingest was interrupted before it made the link.
        _ if let Some(copy) = newest_copy(view, image) => Ok(copy),
        _ => {
            let revisions = view.revisions.iter().map(|view| view.revision.0);
            let last = revisions.chain(image.after.map(|it| it.0)).max();
            Ok(Revision(last.unwrap_or(0).saturating_add(1)))
        }
    }
}

/// Returns the newest revision with the image's content, if it is newer than the current one.
fn newest_copy(view: &MachineView, image: &IncomingImage) -> Option<Revision> {
    view.revisions
        .iter()
        .rfind(|it| it.complete && image.is_copied_by(&it.subvolume))
        .map(|it| it.revision)
        .filter(|revision| Some(*revision) > view.current)
}

fn wrong_name(machine: &MachineName, name: &str) -> IngestRefusal {
    IngestRefusal::StreamName {
        machine: machine.clone(),
        name: name.chars().take(100).collect(),
    }
}
