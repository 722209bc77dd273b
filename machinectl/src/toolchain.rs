//! The commands about toolchains.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use config::ToolchainName;
use serde_json::json;
use store::toolchains::{self, ToolchainRefusal, Toolchains};
use store::{Change, StoreError};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a toolchain from a directory of files, or replace it
    ///
    /// Guests that are fetching the old toolchain continue with it.
    Add {
        /// The toolchain
        #[arg(value_name = "TOOLCHAIN")]
        name: ToolchainName,
        /// The directory; links within it are preserved
        directory: PathBuf,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the toolchains
    List,
    /// Delete a toolchain
    Delete {
        /// The toolchain
        #[arg(value_name = "TOOLCHAIN")]
        name: ToolchainName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let root = &options.toolchains;
    match command {
        Command::Add {
            name,
            directory,
            dry_run,
        } if dry_run.enabled => {
            toolchains::check(directory)?;
            let verb = if root.join(name).is_dir() {
                "replace"
            } else {
                "add"
            };
            output.plan(format_args!("{verb} toolchain {name}"))
        }
        Command::Add {
            name, directory, ..
        } => add(root, name, directory, output),
        // Nothing was added yet.
        Command::List if !root.exists() => {
            output.status(format_args!("no toolchains in {}", root.display()));
            if output.is_json() {
                return output.print_json(&json!([]));
            }
            Ok(())
        }
        Command::List => list(&Toolchains::open(root)?, output),
        Command::Delete { name, dry_run } => {
            delete(&Toolchains::open(root)?, name, *dry_run, output)
        }
    }
}

fn add(
    root: &Path,
    name: &ToolchainName,
    directory: &Path,
    output: &Output,
) -> Result<(), Failure> {
    std::fs::create_dir_all(root).map_err(|error| {
        let text = format!("cannot create {}: {error}", root.display());
        Failure::new(ExitStatus::Failure, text)
    })?;
    let toolchains = Toolchains::open(root)?;
    let existed = toolchains.list()?.contains(name);
    output.status(match (toolchains.add(name, directory)?, existed) {
        (Change::Unchanged, _) => format!("toolchain {name} is unchanged"),
        (Change::Changed, true) => format!("replaced toolchain {name}"),
        (Change::Changed, false) => format!("added toolchain {name}"),
    });
    Ok(())
}

fn delete(
    toolchains: &Toolchains,
    name: &ToolchainName,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if !toolchains.list()?.contains(name) {
        return Err(StoreError::from(ToolchainRefusal::NotFound(name.clone())).into());
    }
    if dry_run.enabled {
        return output.plan(format_args!("delete toolchain {name}"));
    }
    toolchains.delete(name)?;
    output.status(format_args!("deleted toolchain {name}"));
    Ok(())
}

fn list(toolchains: &Toolchains, output: &Output) -> Result<(), Failure> {
    let mut table = Table::new(["TOOLCHAIN", "FILES", "IDENTITY"]);
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
    if output.is_json() {
        return output.print_json(&list);
    }
    if table.is_empty() {
        output.status(format_args!(
            "no toolchains in {}",
            toolchains.path().display()
        ));
    }
    output.print_table(&table)
}
