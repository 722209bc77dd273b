//! The verbs over machines that are there: `list`, `status`, `delete`.

pub(crate) mod ingest;
pub(crate) mod remote;
pub(crate) mod revisions;
mod show;

use std::time::Duration;

use clap::Subcommand;
use config::MachineName;
use store::{MachineView, RefusalKind, Volume};

use crate::{Common, Failure, Rehearsal, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show all machines of the volume
    List,
    /// Show everything about a machine
    Status {
        /// The machine
        name: MachineName,
    },
    /// Delete a machine with all its images
    ///
    /// It is out of service at once. What runs is waited for.
    Delete {
        /// The machine
        name: MachineName,
        /// How long to wait for builds that use it, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
        /// Delete it even while it is used
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let volume = Volume::open(&common.volume)?;
    match verb {
        Verb::List => list(&volume, voice),
        Verb::Status { name } => show::status(&volume.look(name)?, voice),
        Verb::Delete {
            name,
            timeout,
            force,
            rehearsal,
        } => {
            if rehearsal.dry_run {
                rehearse(&volume.look(name)?, *force, voice)
            } else {
                delete(&volume, name, Duration::from_secs(*timeout), *force, voice)
            }
        }
    }
}

fn list(volume: &Volume, voice: &Voice) -> Result<(), Failure> {
    let names = volume.machines()?;
    let mut views: Vec<MachineView> = Vec::new();
    for name in names {
        match volume.look(&name) {
            Ok(view) if view.is_foreign() => {}
            Ok(view) => views.push(view),
            // Deleted while we look.
            Err(error) if error.kind() == Some(RefusalKind::NotFound) => {}
            Err(error) => voice.error(&error),
        }
    }
    if voice.json() {
        let list = views.iter().map(show::json).collect();
        voice.print_json(&serde_json::Value::Array(list))
    } else {
        if views.is_empty() {
            voice.say(format!("no machines in {}", volume.path().display()));
        }
        voice.print_table(&show::table(&views))
    }
}

fn delete(
    volume: &Volume,
    name: &MachineName,
    timeout: Duration,
    force: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    let deletion = volume.delete(name, timeout, force)?;
    for step in &deletion.steps {
        voice.say(format!("{name}: {step}"));
    }
    if deletion.strangers.is_empty() {
        voice.say(format!("{name} is deleted"));
    } else {
        let strangers = deletion.strangers.join(", ");
        voice.say(format!(
            "{name} is deleted; what is not ours is left there: {strangers}"
        ));
    }
    Ok(())
}

fn rehearse(view: &MachineView, force: bool, voice: &Voice) -> Result<(), Failure> {
    for step in store::delete_plan(view, force) {
        voice.would(format!("{step} of {}", view.name))?;
    }
    Ok(())
}
