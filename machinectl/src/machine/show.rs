//! Machines as text and as JSON.

mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use config::task::Digest;
use config::{Revision, printable};
use store::{
    ImageView, KnownContent, MachineUsage, MachineView, Note, RevisionView, Usage, Volume,
};

use super::bootstraps::Bootstraps;
use crate::exit_code::Failure;
use crate::output::{Output, Table, mebibytes, or_empty};
pub(super) use json::json;

/// A machine with everything that is shown of it.
pub(super) struct ShownMachine {
    view: MachineView,
    manifest_fault: Option<String>,
    /// The hash of each revision's content manifest; `None` if they were not read.
    content_manifests: Option<BTreeMap<Revision, Digest>>,
    /// The revisions whose content was recorded here and has not changed since.
    recorded: BTreeSet<Revision>,
    /// The notes on revisions.
    notes: BTreeMap<Revision, Note>,
    /// The space; `None` if it was not counted.
    usage: Option<MachineUsage>,
    /// The failed and waiting bootstraps that the agent tells of.
    bootstraps: Bootstraps,
}

impl ShownMachine {
    /// Reads what is not in the view of a machine.
    pub(super) fn new(volume: &Volume, view: MachineView) -> Self {
        let manifest_fault = volume.manifest_fault(&view);
        let notes = view.notes.iter().copied();
        let notes = notes.filter_map(|it| Some((it, volume.note(&view.name, it)?)));
        Self {
            notes: notes.collect(),
            view,
            manifest_fault,
            content_manifests: None,
            recorded: BTreeSet::new(),
            usage: None,
            bootstraps: Bootstraps::default(),
        }
    }

    /// Reads what is not in the view of a machine, and the content manifests.
    pub(super) fn in_detail(volume: &Volume, view: MachineView) -> Self {
        let manifests = volume.content_identities(&view).into_iter();
        let manifests = manifests.filter_map(|(it, content)| Some((it, content.content_manifest?)));
        let content_manifests = Some(manifests.collect());
        let is_recorded =
            |it: &&RevisionView| volume.known_content(&view.name, it) == KnownContent::Recorded;
        let recorded = view.revisions.iter().filter(is_recorded);
        Self {
            content_manifests,
            recorded: recorded.map(|it| it.revision).collect(),
            ..Self::new(volume, view)
        }
    }

    /// Adds the space, if it was counted.
    pub(super) fn with_usage(self, usage: Option<MachineUsage>) -> Self {
        Self { usage, ..self }
    }

    /// Adds the failed and waiting bootstraps.
    pub(super) fn with_bootstraps(self, bootstraps: Bootstraps) -> Self {
        Self { bootstraps, ..self }
    }

    fn of_revision(&self, revision: &RevisionView) -> Option<&Usage> {
        self.usage.as_ref()?.revisions.get(&revision.revision)
    }

    fn of_image(&self, image: &ImageView) -> Option<&Usage> {
        self.usage.as_ref()?.images.get(&image.toolchain)
    }
}

/// Returns a table of machines, with their sizes if these were counted.
pub(super) fn table(machines: &[ShownMachine], with_sizes: bool) -> Table {
    let size = with_sizes.then_some("SIZE");
    let headings = ["MACHINE", "CURRENT", "REVISIONS"].into_iter().chain(size);
    let headings = headings.chain(["TOOLCHAINS", "BUILDS", "STATE"]);
    let mut table = Table::new(headings);
    for machine in machines {
        let view = &machine.view;
        let toolchains: Vec<_> = view
            .images
            .iter()
            .filter(|image| image.complete)
            .map(|image| image.toolchain.to_string())
            .collect();
        let used = view.snapshots.iter().filter(|snapshot| snapshot.in_use);
        let size = || or_empty(machine.usage.as_ref().map(|it| mebibytes(it.bytes)));
        let cells = [
            view.name.to_string(),
            or_empty(view.current),
            view.revisions.len().to_string(),
        ];
        let cells = cells.into_iter().chain(with_sizes.then(size));
        table.add(cells.chain([
            toolchains.join(","),
            used.count().to_string(),
            state_in_table(machine),
        ]));
    }
    table
}

/// Returns the state of a machine, and the toolchains with which its bootstrap failed.
fn state_in_table(machine: &ShownMachine) -> String {
    let state = state(machine);
    let failed = &machine.bootstraps.failed;
    if failed.is_empty() {
        return state;
    }
    let failed: Vec<_> = failed
        .iter()
        .map(|(it, error)| format!("{it}: {error}"))
        .collect();
    format!("{state}; bootstrap failed: {}", failed.join("; "))
}

/// Prints a machine with everything in its directory.
pub(super) fn status(
    machine: &ShownMachine,
    volume: &Volume,
    output: &Output,
) -> Result<(), Failure> {
    let space = volume.space()?;
    if output.is_json() {
        let mut object = json(machine);
        object["volume"] = serde_json::json!({
            "path": volume.path(), "bytes": space.total, "bytes_free": space.free,
        });
        return output.print_json(&object);
    }
    let view = &machine.view;
    output.print(&format!("{}: {}\n", view.name, printable(&state(machine))))?;
    for (toolchain, error) in &machine.bootstraps.failed {
        let error = printable(error);
        output.print(&format!(
            "its bootstrap with toolchain {toolchain} failed: {error}\n"
        ))?;
    }
    for (toolchain, reason) in &machine.bootstraps.waiting {
        let reason = printable(reason);
        output.print(&format!(
            "its image with toolchain {toolchain} is not made yet: {reason}\n"
        ))?;
    }
    if let Some(usage) = &machine.usage {
        output.print(&format!("size: {}\n", mebibytes(usage.bytes)))?;
    }
    let (free, total) = (mebibytes(space.free), mebibytes(space.total));
    output.print(&format!("free in the volume: {free} of {total}\n"))?;
    for table in [
        revisions(machine),
        notes(machine),
        trials(view),
        images(machine),
        snapshots(view),
        unmanaged(view),
    ] {
        if !table.is_empty() {
            output.print("\n")?;
            output.print_table(&table)?;
        }
    }
    Ok(())
}

/// The headings of the columns of [`sizes`], if the space was counted.
fn size_headings(machine: &ShownMachine) -> impl Iterator<Item = &'static str> {
    let headings = machine.usage.as_ref().map(|_| ["SIZE", "OWN"]);
    headings.into_iter().flatten()
}

/// Returns the size of an entry and what it shares with no other, if the space was counted.
fn sizes(machine: &ShownMachine, usage: Option<&Usage>) -> impl Iterator<Item = String> {
    let text = |bytes: fn(&Usage) -> u64| or_empty(usage.map(bytes).map(mebibytes));
    let texts = machine.usage.as_ref();
    let texts = texts.map(|_| [text(|it| it.bytes), text(|it| it.exclusive)]);
    texts.into_iter().flatten()
}

fn revisions(machine: &ShownMachine) -> Table {
    let view = &machine.view;
    let headings = ["REVISION", "STATE", "CREATED"].into_iter();
    let headings = headings.chain(size_headings(machine));
    let mut table = Table::new(headings.chain(["UUID", "RECEIVED AS"]));
    for revision in &view.revisions {
        let state = view.revision_state(revision);
        let pinned = if view.pins.contains(&revision.revision) {
            ", pinned"
        } else {
            ""
        };
        let cells = [
            revision.revision.to_string(),
            format!("{state}{pinned}"),
            time(revision.subvolume.created),
        ];
        let cells = cells
            .into_iter()
            .chain(sizes(machine, machine.of_revision(revision)));
        table.add(cells.chain([revision.uuid.to_string(), or_empty(revision.received_uuid)]));
    }
    table
}

fn notes(machine: &ShownMachine) -> Table {
    let mut table = Table::new(["REVISION", "AUTHOR", "SOURCE", "NOTE"]);
    let view = &machine.view;
    let existing = |revision: &Revision| view.revision(*revision).is_some();
    for (revision, note) in machine.notes.iter().filter(|(it, _)| existing(it)) {
        let cells = [&note.author, &note.source, &note.text];
        let cells = cells.map(|text| printable(text).to_string());
        table.add(std::iter::once(revision.to_string()).chain(cells));
    }
    table
}

fn trials(view: &MachineView) -> Table {
    let mut table = Table::new(["REVISION", "TRIAL", "SINCE", "VERDICT", "REASON"]);
    let candidate = view.candidate().map(|(view, _)| view.revision);
    let promoted = view.unfinished_promotion();
    for (revision, trial) in &view.trials {
        if view.revision(*revision).is_none() {
            continue;
        }
        let verdict = match &trial.end {
            Some(end) => end.verdict.to_string(),
            None if candidate == Some(*revision) => "undecided".to_owned(),
            None if promoted == Some(*revision) => "being promoted".to_owned(),
            None => "superseded".to_owned(),
        };
        let reason = trial.end.as_ref().map(|end| end.reason.as_str());
        table.add([
            revision.to_string(),
            trial.decider().to_string(),
            trial.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            verdict,
            printable(reason.unwrap_or_default()).to_string(),
        ]);
    }
    table
}

fn images(machine: &ShownMachine) -> Table {
    let view = &machine.view;
    let headings = ["TOOLCHAIN", "IMAGE", "MADE FROM"].into_iter();
    let mut table = Table::new(headings.chain(size_headings(machine)));
    for (revision, image) in &view.trial_images {
        let state = if image.complete {
            "for the trial"
        } else {
            "incomplete"
        };
        let cells = [
            image.toolchain.to_string(),
            state.to_owned(),
            format!("revision {revision}"),
        ];
        table.add(cells.into_iter().chain(sizes(machine, None)));
    }
    for image in &view.images {
        let state = view.image_state(image);
        let made_from = view
            .made_from(image)
            .map(|number| format!("revision {number}"));
        let cells = [
            image.toolchain.to_string(),
            state.to_owned(),
            or_empty(made_from),
        ];
        table.add(
            cells
                .into_iter()
                .chain(sizes(machine, machine.of_image(image))),
        );
    }
    table
}

fn snapshots(view: &MachineView) -> Table {
    let mut table = Table::new(["SNAPSHOT", "TOOLCHAIN", "STATE"]);
    for snapshot in &view.snapshots {
        let state = if snapshot.in_use { "in use" } else { "orphan" };
        table.add([
            snapshot.tag.to_string(),
            snapshot.toolchain.to_string(),
            state.to_owned(),
        ]);
    }
    table
}

fn unmanaged(view: &MachineView) -> Table {
    let mut table = Table::new(["UNMANAGED"]);
    for name in &view.unmanaged {
        table.add([name.clone()]);
    }
    table
}

/// Returns the state of a machine in a few words.
fn state(machine: &ShownMachine) -> String {
    machine.view.state(machine.manifest_fault.as_deref())
}

/// Returns a time in UTC, to the second. JSON and tables use the same form.
fn time(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).ok();
    or_empty(time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ")))
}
