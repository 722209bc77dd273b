//! The command that updates the layers from layer indexes.

use client::Client;
use config::layers::{Update, UpdateRequest};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// Updates the layers and prints a line about each index.
pub(super) fn run(
    client: &Client,
    url: Option<&str>,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let from = url.unwrap_or("the layer indexes of the settings");
        return output.plan(format_args!("update the layers from {from}"));
    }
    let url = url.map(str::to_owned);
    let updates = client.update_layers(&UpdateRequest { url })?;
    if output.is_json() {
        output.print_json(&updates)?;
    }
    for update in &updates {
        for note in &update.notes {
            output.status(format_args!("{}: {note}", update.source));
        }
        if !output.is_json() && update.fault.is_empty() {
            output.print(&format!("{}\n", line(update)))?;
        }
    }
    let faults: Vec<_> = updates.iter().map(|it| it.fault.as_str()).collect();
    let faults: Vec<_> = faults
        .into_iter()
        .filter(|fault| !fault.is_empty())
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(ExitStatus::Unreachable, faults.join("\n")))
    }
}

/// Returns the line about an index.
fn line(update: &Update) -> String {
    let Update {
        source,
        layers,
        left,
        changed,
        ..
    } = update;
    match (changed, left) {
        (false, _) => format!("{source}: unchanged, {layers} layers"),
        (true, 0) => format!("{source}: {layers} layers"),
        (true, left) => format!("{source}: {layers} layers, {left} have left it"),
    }
}
