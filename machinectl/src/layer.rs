//! The commands about layers and their sources.

use clap::{Args, Subcommand};
use client::Client;
use config::layers::{
    Layer, LayerContent, LayerPath, LayerQuery, LayerSource, Location, Reference, RepositoryUrl,
};
use config::{LayerName, ReleaseName};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table, count, fields, or_empty, time};
use crate::release::place;

const EXAMPLES: &str = "\
Examples:
  buildhost layer add meta-camera https://git.example.org/meta-camera --branch wrynose --release wrynose
  buildhost layer add meta-board /srv/layers/meta-board";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the layers that projects can have
    List {
        /// Only layers of this release
        #[arg(long)]
        release: Option<ReleaseName>,
        /// Only layers with this text in their name or summary
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show a layer with its machines, distributions and recipes, as far as they are known
    Show {
        /// The layer
        name: LayerName,
        /// Only as it belongs to this release
        #[arg(long)]
        release: Option<ReleaseName>,
    },
    /// Add a layer, or replace one that was added
    ///
    /// It comes before one of the same name from fixtures or a layer index. The directory of a
    /// layer without git is built as it is at that time.
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// Remove a layer that was added
    Remove {
        /// The layer
        name: LayerName,
        /// As it belongs to this release
        #[arg(long)]
        release: Option<ReleaseName>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the sources of layers, with their last update and its fault
    Sources,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name of the layer
    name: LayerName,
    /// The repository: an address of git, or a directory of the host
    url: RepositoryUrl,
    /// The branch, tag or commit
    #[arg(long, value_name = "BRANCH", default_value = "HEAD")]
    branch: Reference,
    /// The directory of the layer in the repository
    #[arg(long, value_name = "DIR", default_value = "")]
    path: LayerPath,
    /// The release that it belongs to; by default it belongs to all
    #[arg(long)]
    release: Option<ReleaseName>,
    /// A layer that it needs; may be repeated
    #[arg(long = "needs", value_name = "LAYER")]
    depends: Vec<LayerName>,
    /// The summary
    #[arg(long, value_name = "TEXT", default_value = "")]
    summary: String,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = options.client()?;
    match command {
        Command::List { release, search } => {
            let query = LayerQuery {
                release: release.clone(),
                search: search.clone(),
            };
            list(&client.layers(&query)?, output)
        }
        Command::Show { name, release } => show(&client.layer(name, release.as_ref())?, output),
        Command::Add(arguments) => add(&client, arguments, output),
        Command::Remove {
            name,
            release,
            dry_run,
        } => remove(&client, name, release.as_ref(), *dry_run, output),
        Command::Sources => sources(&client.layer_sources()?, output),
    }
}

fn list(layers: &[Layer], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&layers);
    }
    let mut table = Table::new(["LAYER", "RELEASE", "BRANCH", "SOURCE", "SUMMARY"]);
    for layer in layers {
        table.add([
            layer.name.to_string(),
            or_empty(layer.release.as_ref()),
            layer.location.reference.to_string(),
            source(layer),
            layer.summary.clone(),
        ]);
    }
    output.print_table(&table)
}

fn source(layer: &Layer) -> String {
    if layer.gone {
        format!("{} (gone)", layer.source)
    } else {
        layer.source.clone()
    }
}

fn show(contents: &[LayerContent], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&contents);
    }
    for content in contents {
        let layer = &content.layer;
        let depends: Vec<_> = layer.depends.iter().map(LayerName::as_str).collect();
        let names = |all: &[config::layers::Described]| {
            let names: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
            names.join(" ")
        };
        let recipes = content.recipes.len();
        output.print(&fields(&[
            ("layer", layer.name.to_string()),
            ("release", or_empty(layer.release.as_ref())),
            ("about", layer.summary.clone()),
            ("place", place(&layer.location)),
            ("page", layer.web_url.clone()),
            ("needs", depends.join(" ")),
            ("source", source(layer)),
            ("machines", names(&content.machines)),
            ("distros", names(&content.distros)),
            (
                "recipes",
                if recipes > 0 {
                    count(recipes, "recipe")
                } else {
                    String::new()
                },
            ),
        ]))?;
    }
    Ok(())
}

fn add(client: &Client, arguments: &Add, output: &Output) -> Result<(), Failure> {
    let layer = Layer {
        name: arguments.name.clone(),
        release: arguments.release.clone(),
        location: Location {
            url: arguments.url.clone(),
            reference: arguments.branch.clone(),
            path: arguments.path.clone(),
        },
        summary: arguments.summary.clone(),
        web_url: String::new(),
        depends: arguments.depends.clone(),
        source: String::new(),
        gone: false,
    };
    if arguments.dry_run.enabled {
        let at = place(&layer.location);
        return output.plan(format_args!("add layer {}: {at}", layer.name));
    }
    let added = client.add_layer(&layer)?;
    if output.is_json() {
        return output.print_json(&added.value);
    }
    let verb = if added.is_new { "added" } else { "replaced" };
    output.status(format_args!("{verb} layer {}", layer.name));
    Ok(())
}

fn remove(
    client: &Client,
    name: &LayerName,
    release: Option<&ReleaseName>,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        client.layer(name, release)?;
        return output.plan(format_args!("remove layer {name}"));
    }
    client.remove_layer(name, release)?;
    output.status(format_args!("removed layer {name}"));
    Ok(())
}

fn sources(sources: &[LayerSource], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&sources);
    }
    let mut table = Table::new(["SOURCE", "LAYERS", "UPDATED", "FAULT"]);
    for source in sources {
        table.add([
            source.name.clone(),
            source.layers.to_string(),
            or_empty(source.updated.map(time)),
            source.fault.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    output.print_table(&table)
}
