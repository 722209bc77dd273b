//! Whether an image may come in, and how. Thinks only.

use config::layout::Entry;
use config::{MachineName, Revision};

use super::{IngestRefusal, Intent, Parcel};
use crate::{MachineRefusal, MachineView, Result};

/// How an image comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// It is made under this number.
    Make(Revision),
    /// A half of it lies there, from a time that was cut short; it goes, and the
    /// image is made.
    MakeAnew(Revision),
    /// It is there, whole; only the link is missing.
    Adopt(Revision),
}

impl Plan {
    /// The revision that will be current.
    pub fn revision(self) -> Revision {
        match self {
            Self::Make(revision) | Self::MakeAnew(revision) | Self::Adopt(revision) => revision,
        }
    }
}

/// Decides. A machine that is not there has an empty view.
pub(super) fn plan(intent: Intent, view: &MachineView, parcel: &Parcel) -> Result<Plan> {
    let machine = || view.name.clone();
    if view.deleting && !view.has_link() {
        return Err(MachineRefusal::Deleting(machine()).into());
    }
    match (intent, view.has_link()) {
        (Intent::Upgrade, true) if view.link_elsewhere => {
            view.need_current()?;
        }
        (Intent::Add, false) | (Intent::Upgrade, true) => {}
        (Intent::Add, true) => return Err(IngestRefusal::MachineExists(machine()).into()),
        (Intent::Upgrade, false) => {
            view.need_current()?;
        }
    }
    let revision = revision(view, parcel)?;
    match view.current {
        Some(current) if revision <= current => {
            return Err(IngestRefusal::NotNewer {
                machine: machine(),
                revision,
                current,
            }
            .into());
        }
        _ => {}
    }
    match view.revision(revision) {
        None => Ok(Plan::Make(revision)),
        // Somebody has made it writable and left the link on it: theirs to settle.
        Some(there) if !there.complete && view.link_fault.is_some() => {
            Err(MachineRefusal::NoCurrent {
                machine: machine(),
                fault: view.link_fault.clone(),
            }
            .into())
        }
        Some(there) if !there.complete => Ok(Plan::MakeAnew(revision)),
        Some(there) if parcel.is_copy(&there.subvolume) => Ok(Plan::Adopt(revision)),
        Some(_) => Err(IngestRefusal::OtherContent(machine(), revision).into()),
    }
}

/// The number that the image gets: what its name says, else the next one.
fn revision(view: &MachineView, parcel: &Parcel) -> Result<Revision> {
    match Entry::read(&view.name, &parcel.name) {
        Some(Entry::Revision(revision)) => Ok(revision),
        _ if parcel.must_be_named => Err(wrong_name(&view.name, &parcel.name).into()),
        // From a time that was cut short, before its link was made.
        _ if let Some(copy) = newest_copy(view, parcel) => Ok(copy),
        _ => {
            let last = view.revisions.iter().map(|view| view.revision.0).max();
            Ok(Revision(last.unwrap_or(0).saturating_add(1)))
        }
    }
}

fn newest_copy(view: &MachineView, parcel: &Parcel) -> Option<Revision> {
    let newest = view
        .revisions
        .iter()
        .rfind(|it| it.complete && parcel.is_copy(&it.subvolume))?;
    (Some(newest.revision) > view.current).then_some(newest.revision)
}

fn wrong_name(machine: &MachineName, name: &str) -> IngestRefusal {
    IngestRefusal::StreamName {
        machine: machine.clone(),
        name: name.chars().take(100).collect(),
    }
}
