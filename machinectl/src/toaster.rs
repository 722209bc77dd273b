//! Toaster's management commands under their own names, for scripts that use them.
//! docs/toaster.md lists the differences.

mod buildimport;
mod check;
mod loaddata;
mod lsupdates;
mod perf;
mod runbuilds;

use std::path::PathBuf;

use clap::Subcommand;
use client::Client;
use config::BuildId;
use config::builds::{ListQuery, Target};

use crate::build::plan_deletion;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use buildimport::Buildimport;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List builds, the oldest first: number, machine, toolchain and target
    Buildslist,
    /// Delete builds with their records, logs and artifacts; skip missing ones
    Builddelete {
        /// The builds
        #[arg(required = true, value_name = "BUILD")]
        builds: Vec<BuildId>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Load fixtures: files with releases, layers and settings, in XML or JSON
    ///
    /// A file replaces the one that was loaded under its name. A file with a fault changes nothing.
    Loaddata {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Add or delete a project, as from a build directory of BitBake
    Buildimport(Box<Buildimport>),
    /// Update the layers from the layer indexes
    Lsupdates {
        /// Only from this index; it need not be in the settings
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Measure the response times of the public pages
    Perf {
        /// The agent's address, as in its setting http.listen
        #[arg(long, default_value = "http://localhost:8000")]
        url: String,
    },
    /// Check the agent's settings and the paths in them
    Checksettings {
        /// The file of the settings
        #[arg(long, value_name = "FILE", default_value = "/etc/buildhost/agent.toml")]
        config: PathBuf,
    },
    /// Compatibility stub for Toaster's build runner; the agent runs builds itself
    Runbuilds,
    /// Check that a server could listen on an address
    Checksocket {
        /// The address
        #[arg(value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8000")]
        address: String,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Buildslist => list(&options.client()?, output),
        Command::Builddelete { builds, dry_run } => {
            delete(&options.client()?, builds, *dry_run, output)
        }
        Command::Loaddata { files, dry_run } => {
            loaddata::run(&options.client()?, files, *dry_run, output)
        }
        Command::Buildimport(arguments) => arguments.run(&options.client()?, output),
        Command::Lsupdates { url, dry_run } => {
            let client = options.client()?;
            lsupdates::run(&client, url.as_deref(), *dry_run, output)
        }
        Command::Perf { url } => perf::run(url.trim_end_matches('/'), output),
        Command::Checksettings { config } => check::settings(config, output),
        Command::Runbuilds => runbuilds::run(options, output),
        Command::Checksocket { address } => check::socket(address, output),
    }
}

fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let mut next = Some(ListQuery {
        reverse: true,
        ..ListQuery::default()
    });
    while let Some(query) = next {
        let builds = client.builds(&query)?;
        for build in &builds {
            output.print(&format!(
                "{}: {} {} {}\n",
                build.id,
                build.machine,
                build.toolchain,
                recipes(&build.target)
            ))?;
        }
        next = query.next(&builds);
    }
    Ok(())
}

/// Returns the recipes of a target, without their tasks, as Toaster prints them.
pub(crate) fn recipes(target: &Target) -> String {
    let recipe = |name: &'_ str| name.split(':').next().unwrap_or_default().to_owned();
    target.names().map(recipe).collect::<Vec<_>>().join(",")
}

/// Deletes builds. Missing builds and builds that cannot be deleted now are skipped.
fn delete(
    client: &Client,
    builds: &[BuildId],
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let mut refused = false;
    for id in builds {
        let deleted = if dry_run.enabled {
            plan_deletion(client, *id, output)
        } else {
            client.delete_build(*id).map_err(Failure::from)
        };
        match deleted {
            Ok(()) => {}
            Err(failure) if failure.status == ExitStatus::NotFound => {
                output.print(&format!("build {id} does not exist, skipping...\n"))?;
            }
            Err(failure) if failure.status == ExitStatus::Refused => {
                output.error(failure.error.as_ref());
                refused = true;
            }
            Err(failure) => return Err(failure),
        }
    }
    if refused {
        let text = "some builds could not be deleted";
        return Err(Failure::new(ExitStatus::Refused, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_targets_are_listed_without_their_tasks() {
        let target = "a-img:do_populate_sdk b-img".parse().unwrap();
        assert_eq!(recipes(&target), "a-img,b-img");
    }
}
