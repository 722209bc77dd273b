//! The commands about releases of layers.

use clap::{Args, Subcommand};
use client::Client;
use config::layers::{LayerPath, Location, Reference, Release, RepositoryUrl};
use config::{LayerName, ReleaseName};

use crate::exit_code::Failure;
use crate::options::DryRun;
use crate::output::{Output, Table, fields};

const EXAMPLES: &str = "\
Examples:
  buildhost release add products-5 --branch scarthgap --bitbake https://git.example.org/bitbake \\
    --bitbake-branch 2.8 --layer openembedded-core
  buildhost release add local --branch HEAD --bitbake /srv/bitbake --bitbake-branch HEAD";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the releases
    List,
    /// Show everything about a release
    Show {
        /// The release
        name: ReleaseName,
    },
    /// Add a release, or replace one that was added
    ///
    /// It comes before one of the same name from fixtures or of Buildhost.
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// Remove a release that was added
    Remove {
        /// The release
        name: ReleaseName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name of the release
    name: ReleaseName,
    /// The branch of its layers
    #[arg(long, value_name = "BRANCH")]
    branch: Reference,
    /// The repository of BitBake: an address of git, or a directory of the host
    #[arg(long, value_name = "URL")]
    bitbake: RepositoryUrl,
    /// The branch, tag or commit of BitBake
    #[arg(long, value_name = "BRANCH")]
    bitbake_branch: Reference,
    /// The directory of BitBake in its repository
    #[arg(long, value_name = "DIR", default_value = "")]
    bitbake_path: LayerPath,
    /// A layer that new projects have; may be repeated
    #[arg(long = "layer", value_name = "LAYER")]
    layers: Vec<LayerName>,
    /// The description
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(crate) fn run(command: &Command, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        Command::List => list(&client.releases()?, output),
        Command::Show { name } => show(&client.layer_release(name)?, output),
        Command::Add(arguments) => add(client, arguments, output),
        Command::Remove { name, dry_run } => remove(client, name, *dry_run, output),
    }
}

fn list(releases: &[Release], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&releases);
    }
    let mut table = Table::new(["RELEASE", "BRANCH", "BITBAKE", "SOURCE", "DESCRIPTION"]);
    for release in releases {
        table.add([
            release.name.to_string(),
            release.branch.to_string(),
            release.bitbake.reference.to_string(),
            release.source.clone(),
            release.description.clone(),
        ]);
    }
    output.print_table(&table)
}

fn show(release: &Release, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(release);
    }
    let layers: Vec<_> = release.layers.iter().map(LayerName::as_str).collect();
    output.print(&fields(&[
        ("release", release.name.to_string()),
        ("about", release.description.clone()),
        ("branch", release.branch.to_string()),
        ("bitbake", place(&release.bitbake)),
        ("layers", layers.join(" ")),
        ("source", release.source.clone()),
    ]))
}

/// Returns the text of a place: its repository, its reference, and its directory.
pub(crate) fn place(location: &Location) -> String {
    let Location {
        url,
        reference,
        path,
    } = location;
    match path.as_str() {
        "" => format!("{url} at {reference}"),
        path => format!("{url} at {reference}, directory {path}"),
    }
}

fn add(client: &Client, arguments: &Add, output: &Output) -> Result<(), Failure> {
    let release = Release {
        name: arguments.name.clone(),
        description: arguments.description.clone(),
        branch: arguments.branch.clone(),
        bitbake: Location {
            url: arguments.bitbake.clone(),
            reference: arguments.bitbake_branch.clone(),
            path: arguments.bitbake_path.clone(),
        },
        layers: arguments.layers.clone(),
        source: String::new(),
    };
    if arguments.dry_run.enabled {
        return output.plan(format_args!("add release {}", release.name));
    }
    let added = client.add_release(&release)?;
    if output.is_json() {
        return output.print_json(&added.value);
    }
    let verb = if added.is_new { "added" } else { "replaced" };
    output.status(format_args!("{verb} release {}", release.name));
    Ok(())
}

fn remove(
    client: &Client,
    name: &ReleaseName,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        client.layer_release(name)?;
        return output.plan(format_args!("remove release {name}"));
    }
    client.remove_release(name)?;
    output.status(format_args!("removed release {name}"));
    Ok(())
}
