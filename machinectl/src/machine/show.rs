//! How machines are shown to people and to programs.

use std::time::SystemTime;

use serde_json::{Value, json};
use store::{ImageView, MachineView, RevisionView};

use crate::{Failure, Table, Voice};

/// All machines, a row each.
pub(super) fn table(views: &[MachineView]) -> Table {
    let mut table = Table::new(&[
        "MACHINE",
        "CURRENT",
        "REVISIONS",
        "TOOLCHAINS",
        "BUILDS",
        "STATE",
    ]);
    for view in views {
        let ready = view.images.iter().filter(|image| image.complete);
        let used = view
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.in_use)
            .count();
        table.add([
            view.name.to_string(),
            view.current
                .map_or_else(String::new, |current| current.to_string()),
            view.revisions.len().to_string(),
            ready
                .map(|image| image.toolchain.to_string())
                .collect::<Vec<_>>()
                .join(","),
            used.to_string(),
            state(view),
        ]);
    }
    table
}

/// One machine, with everything that its directory holds.
pub(super) fn status(view: &MachineView, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&json(view));
    }
    voice.print(&format!("{}: {}\n", view.name, state(view)))?;
    let mut snapshots = Table::new(&["SNAPSHOT", "TOOLCHAIN", "STATE"]);
    for snapshot in &view.snapshots {
        let state = if snapshot.in_use {
            "in use"
        } else {
            "left over"
        };
        snapshots.add([
            snapshot.tag.to_string(),
            snapshot.toolchain.to_string(),
            state.to_owned(),
        ]);
    }
    let mut strangers = Table::new(&["NOT OURS"]);
    for stranger in &view.strangers {
        strangers.add([stranger.clone()]);
    }
    for table in [revisions(view), images(view), snapshots, strangers] {
        if !table.is_empty() {
            voice.print("\n")?;
            voice.print_table(&table)?;
        }
    }
    Ok(())
}

fn revisions(view: &MachineView) -> Table {
    let mut table = Table::new(&["REVISION", "STATE", "CREATED", "UUID", "RECEIVED AS"]);
    for revision in &view.revisions {
        let mut state = match revision {
            _ if Some(revision.revision) == view.current => "current",
            RevisionView { complete: true, .. } => "complete",
            _ => "half",
        }
        .to_owned();
        if view.pins.contains(&revision.revision) {
            state.push_str(", pinned");
        }
        table.add([
            revision.revision.to_string(),
            state,
            time(revision.subvolume.created),
            revision.uuid.to_string(),
            revision
                .received_uuid
                .map_or_else(String::new, |uuid| uuid.to_string()),
        ]);
    }
    table
}

fn images(view: &MachineView) -> Table {
    let mut table = Table::new(&["TOOLCHAIN", "IMAGE", "MADE FROM"]);
    for image in &view.images {
        let made_from =
            made_from(view, image).map_or_else(String::new, |it| format!("revision {it}"));
        let state = match image {
            ImageView {
                complete: false, ..
            } => "half",
            _ if is_current(view, image) => "ready",
            _ => "of an older revision",
        };
        table.add([image.toolchain.to_string(), state.to_owned(), made_from]);
    }
    table
}

/// What a machine's state is, in a few words.
fn state(view: &MachineView) -> String {
    match (view.current, &view.link_fault) {
        (Some(_), _) => "in service".to_owned(),
        (None, Some(fault)) => format!("broken: {fault}"),
        (None, None) if view.deleting => "being deleted".to_owned(),
        (None, None) => "not a machine yet: no current link".to_owned(),
    }
}

fn made_from(view: &MachineView, image: &ImageView) -> Option<u32> {
    let uuid = &image.provenance.as_ref()?.revision_uuid;
    let found = view
        .revisions
        .iter()
        .find(|revision| revision.uuid.to_string() == *uuid);
    found.map(|revision| revision.revision.0)
}

fn is_current(view: &MachineView, image: &ImageView) -> bool {
    view.current
        .is_some_and(|current| made_from(view, image) == Some(current.0))
}

/// A machine for programs. The keys are a promise.
pub(super) fn json(view: &MachineView) -> Value {
    let revisions = view.revisions.iter().map(|revision| {
        json!({
            "revision": revision.revision,
            "complete": revision.complete,
            "current": Some(revision.revision) == view.current,
            "pinned": view.pins.contains(&revision.revision),
            "uuid": revision.uuid.to_string(),
            "received_uuid": revision.received_uuid.map(|uuid| uuid.to_string()),
            "created": time(revision.subvolume.created),
        })
    });
    let images = view.images.iter().map(|image| {
        json!({
            "toolchain": image.toolchain,
            "complete": image.complete,
            "revision": made_from(view, image),
            "up_to_date": is_current(view, image),
        })
    });
    let snapshots = view.snapshots.iter().map(|snapshot| {
        json!({
            "toolchain": snapshot.toolchain,
            "tag": snapshot.tag,
            "in_use": snapshot.in_use,
        })
    });
    json!({
        "machine": view.name,
        "current": view.current,
        "fault": view.link_fault,
        "deleting": view.deleting,
        "revisions": revisions.collect::<Vec<_>>(),
        "images": images.collect::<Vec<_>>(),
        "snapshots": snapshots.collect::<Vec<_>>(),
        "strangers": view.strangers,
    })
}

/// Seconds are enough for people and programs alike.
fn time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).ok();
    time.map_or_else(String::new, |time| {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    })
}
