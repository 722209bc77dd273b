//! Machines as JSON.

use serde_json::{Value, json};
use store::MachineView;

use super::{ShownMachine, time};

/// Returns the images that were made for trials as JSON.
fn trial_images(view: &MachineView) -> Vec<Value> {
    let images = view.trial_images.iter();
    let json = images.map(|(revision, image)| {
        json!({
            "toolchain": image.toolchain,
            "complete": image.complete,
            "revision": revision,
        })
    });
    json.collect()
}

/// Returns a machine as JSON. The keys are stable.
pub(in crate::machine) fn json(machine: &ShownMachine) -> Value {
    let view = &machine.view;
    let candidate = view.candidate().map(|(view, _)| view.revision);
    let revisions: Vec<_> = view
        .revisions
        .iter()
        .map(|revision| {
            let mut object = json!({
                "revision": revision.revision,
                "complete": revision.complete,
                "arriving": view.is_arriving(revision.revision),
                "current": Some(revision.revision) == view.current,
                "pinned": view.pins.contains(&revision.revision),
                "uuid": revision.uuid.to_string(),
                "transaction": revision.subvolume.transaction,
                "received_uuid": revision.received_uuid.map(|uuid| uuid.to_string()),
                "received_transaction": revision.subvolume.received_transaction,
                "created": time(revision.subvolume.created),
                "note": machine.notes.get(&revision.revision),
                "on_trial": candidate == Some(revision.revision),
                "trial": view.trials.get(&revision.revision),
                "bytes": machine.of_revision(revision).map(|it| it.bytes),
                "bytes_exclusive": machine.of_revision(revision).map(|it| it.exclusive),
            });
            if let Some(manifests) = &machine.content_manifests {
                object["content_manifest"] = json!(manifests.get(&revision.revision));
                object["content_recorded"] = json!(machine.recorded.contains(&revision.revision));
            }
            object
        })
        .collect();
    let images: Vec<_> = view
        .images
        .iter()
        .map(|image| {
            json!({
                "toolchain": image.toolchain,
                "complete": image.complete,
                "revision": view.made_from(image),
                "up_to_date": view.is_of_current(image),
                "bytes": machine.of_image(image).map(|it| it.bytes),
                "bytes_exclusive": machine.of_image(image).map(|it| it.exclusive),
            })
        })
        .collect();
    let snapshots: Vec<_> = view
        .snapshots
        .iter()
        .map(|snapshot| {
            json!({
                "toolchain": snapshot.toolchain,
                "tag": snapshot.tag,
                "in_use": snapshot.in_use,
            })
        })
        .collect();
    json!({
        "machine": view.name,
        "current": view.current,
        "fault": view.link_fault,
        "unusable": machine.manifest_fault,
        "deleting": view.deleting,
        "failed_bootstraps": machine.bootstraps.failed,
        "waiting_bootstraps": machine.bootstraps.waiting,
        "bytes": machine.usage.as_ref().map(|it| it.bytes),
        "revisions": revisions,
        "images": images,
        "trial_images": trial_images(view),
        "snapshots": snapshots,
        "strangers": view.unmanaged,
    })
}
