//! The verbs over toolchains.

use std::path::PathBuf;

use clap::Subcommand;
use config::ToolchainName;
use serde_json::json;
use store::toolchains::ToolchainRefusal;
use store::toolchains::{self, Toolchains};
use store::{Change, StoreError};

use crate::{Common, Ending, Failure, Rehearsal, Table, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a directory's files a toolchain, or the new state of one
    ///
    /// Guests that are fetching the old state go on with it.
    Add {
        /// The toolchain
        name: ToolchainName,
        /// The directory; links inside it are kept
        directory: PathBuf,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Show all toolchains
    List,
    /// Delete a toolchain
    Delete {
        /// The toolchain
        name: ToolchainName,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    if let Verb::Add { rehearsal, .. } = verb
        && !rehearsal.dry_run
    {
        let made = std::fs::create_dir_all(&common.toolchains);
        made.map_err(|error| {
            Failure::new(
                Ending::Failed,
                format!("cannot make {}: {error}", common.toolchains.display()),
            )
        })?;
    }
    if let Verb::Add {
        name,
        directory,
        rehearsal: Rehearsal { dry_run: true },
    } = verb
    {
        toolchains::check(directory)?;
        let there = common.toolchains.join(name).is_dir();
        let would = if there { "replace" } else { "make" };
        return voice.would(format!("{would} toolchain {name}"));
    }
    let toolchains = Toolchains::open(&common.toolchains)?;
    match verb {
        Verb::List => list(&toolchains, voice),
        Verb::Add {
            name, directory, ..
        } => {
            let there = toolchains.list()?.contains(name);
            match (toolchains.add(name, directory)?, there) {
                (Change::Unchanged, _) => voice.say(format!("toolchain {name} is so already")),
                (Change::Changed, true) => voice.say(format!("toolchain {name} is replaced")),
                (Change::Changed, false) => voice.say(format!("toolchain {name} is added")),
            }
            Ok(())
        }
        Verb::Delete { name, rehearsal } => {
            if !toolchains.list()?.contains(name) {
                return Err(StoreError::from(ToolchainRefusal::NotFound(name.clone())).into());
            }
            if rehearsal.dry_run {
                return voice.would(format!("delete toolchain {name}"));
            }
            toolchains.delete(name)?;
            voice.say(format!("toolchain {name} is deleted"));
            Ok(())
        }
    }
}

fn list(toolchains: &Toolchains, voice: &Voice) -> Result<(), Failure> {
    let mut table = Table::new(&["TOOLCHAIN", "FILES", "IDENTITY"]);
    let mut list = Vec::new();
    for name in toolchains.list()? {
        match toolchains.load(&name) {
            Ok(toolchain) => {
                let files: Vec<_> = toolchain.files.keys().collect();
                list.push(json!({ "toolchain": name, "files": files, "id": toolchain.id }));
                let id = toolchain.id.as_str().chars().take(16).collect();
                table.add([name.to_string(), files.len().to_string(), id]);
            }
            Err(error) => {
                list.push(json!({ "toolchain": name, "fault": error.to_string() }));
                table.add([name.to_string(), String::new(), format!("broken: {error}")]);
            }
        }
    }
    if voice.json() {
        return voice.print_json(&list.into());
    }
    if table.is_empty() {
        voice.say(format!("no toolchains in {}", toolchains.path().display()));
    }
    voice.print_table(&table)
}
