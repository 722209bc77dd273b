//! The commands about projects of BitBake.

mod bisect;
mod build;
mod change;
mod import;
mod parse;

use clap::{Args, Subcommand};
use client::Client;
use config::projects::{BitbakeTarget, NewProject, Project, ProjectLayer, Variable, VariableName};
use config::{LayerName, MachineName, ProjectName, ReleaseName};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table, fields, or_empty, time};
use bisect::Bisect;
use build::Build;
use import::Import;
use parse::{layer_argument, variable_argument};

const EXAMPLES: &str = "\
Examples:
  buildhost project add camera --release wrynose --host-machine debian --set MACHINE=qemuarm64 \\
    --layer meta-oe --layer meta-camera=https://git.example.org/meta-camera@wrynose \\
    --target core-image-minimal
  buildhost project build camera busybox:do_compile --follow";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the projects
    List,
    /// Show everything about a project
    Show {
        /// The project
        name: ProjectName,
    },
    /// Add a project, with the default layers of its release and the default variables
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// Add a project from a file of kas or bitbake-setup, or from a build directory
    ///
    /// Its layers have the repositories of the file, or those that are checked out. What cannot be carried over is refused.
    Import(Box<Import>),
    /// Set variables, targets and the machine of a project
    Set(Box<Set>),
    /// Add layers to a project, with those that they need, and remove layers
    Layer(Box<LayerChange>),
    /// Resolve a project to commits and submit its build; prints the number of the build
    Build(Box<Build>),
    /// Find the first commit of a layer with which a project fails, and print it
    ///
    /// Builds the project with commits between a good and a bad one, on the first line of descent.
    Bisect(Box<Bisect>),
    /// Remove a project; its builds stay
    Remove {
        /// The project
        name: ProjectName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name of the project
    name: ProjectName,
    /// The release; by default that of the fixtures' setting DEFAULT_RELEASE, else the newest
    /// long-term release
    #[arg(long)]
    release: Option<ReleaseName>,
    /// The machine of this host that builds the project
    #[arg(long, value_name = "MACHINE")]
    host_machine: Option<MachineName>,
    /// A layer: its name, or `NAME=URL`, `NAME=URL@BRANCH` or `NAME=URL@BRANCH:DIR`; may be
    /// repeated
    #[arg(long = "layer", value_name = "LAYER", value_parser = layer_argument)]
    layers: Vec<ProjectLayer>,
    /// A variable of BitBake's configuration; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = variable_argument)]
    variables: Vec<Variable>,
    /// A target that is built by default; may be repeated
    #[arg(long = "target", value_name = "TARGET[:TASK]")]
    targets: Vec<BitbakeTarget>,
    /// Add neither the default layers nor the default variables
    #[arg(long)]
    no_defaults: bool,
    /// Replace the project of the same name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The project
    name: ProjectName,
    /// Variables to set
    #[arg(value_name = "NAME=VALUE", value_parser = variable_argument)]
    variables: Vec<Variable>,
    /// A variable to remove; may be repeated
    #[arg(long, value_name = "NAME")]
    unset: Vec<VariableName>,
    /// The targets that are built by default, in place of those before; may be repeated
    #[arg(long = "target", value_name = "TARGET[:TASK]")]
    targets: Vec<BitbakeTarget>,
    /// The machine of this host that builds the project
    #[arg(long, value_name = "MACHINE")]
    host_machine: Option<MachineName>,
    /// The release
    #[arg(long)]
    release: Option<ReleaseName>,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct LayerChange {
    /// The project
    name: ProjectName,
    /// A layer to add, or to give another place, as in `project add`; may be repeated
    #[arg(long, value_name = "LAYER", value_parser = layer_argument)]
    add: Vec<ProjectLayer>,
    /// A layer to remove; may be repeated
    #[arg(long, value_name = "LAYER")]
    remove: Vec<LayerName>,
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
        Command::List => list(&client.projects()?, output),
        Command::Show { name } => show(&client.project(name)?, output),
        Command::Add(arguments) => add(&client, arguments, output),
        Command::Import(arguments) => arguments.run(&client, output),
        Command::Set(arguments) => change::set(&client, arguments, output),
        Command::Layer(arguments) => change::layers(&client, arguments, output),
        Command::Build(arguments) => arguments.run(&client, output),
        Command::Bisect(arguments) => arguments.run(&client, output),
        Command::Remove { name, dry_run } => remove(&client, name, *dry_run, output),
    }
}

fn add(client: &Client, arguments: &Add, output: &Output) -> Result<(), Failure> {
    let new = NewProject {
        release: arguments.release.clone(),
        bitbake: None,
        host_machine: arguments.host_machine.clone(),
        layers: arguments.layers.clone(),
        variables: arguments.variables.clone(),
        local_conf: Vec::new(),
        targets: arguments.targets.clone(),
        defaults: !arguments.no_defaults,
        replace: arguments.replace,
    };
    store(client, &arguments.name, &new, arguments.dry_run, output)
}

/// Adds or replaces a project.
fn store(
    client: &Client,
    name: &ProjectName,
    new: &NewProject,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let verb = if new.replace { "store" } else { "add" };
        return output.plan(format_args!("{verb} project {name}"));
    }
    let stored = client.put_project(name, new)?;
    if output.is_json() {
        return output.print_json(&stored.value);
    }
    let verb = if stored.is_new { "added" } else { "changed" };
    output.status(format_args!("{verb} project {name}"));
    Ok(())
}

fn list(projects: &[Project], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&projects);
    }
    let mut table = Table::new([
        "PROJECT", "RELEASE", "LAYERS", "TARGETS", "OWNER", "CHANGED",
    ]);
    for project in projects {
        table.add([
            project.name.to_string(),
            or_empty(project.release.as_ref()),
            project.layers.len().to_string(),
            targets(project),
            project.owner.to_string(),
            time(project.changed),
        ]);
    }
    output.print_table(&table)
}

fn targets(project: &Project) -> String {
    let targets: Vec<_> = project.targets.iter().map(BitbakeTarget::as_str).collect();
    targets.join(" ")
}

fn show(project: &Project, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(project);
    }
    let layers: Vec<_> = project.layers.iter().map(parse::shown_layer).collect();
    let variables: Vec<_> = project
        .variables
        .iter()
        .map(|it| format!("{}={}", it.name, it.value))
        .collect();
    let lines: Vec<_> = project.local_conf.iter().map(ToString::to_string).collect();
    output.print(&fields(&[
        ("project", project.name.to_string()),
        ("release", or_empty(project.release.as_ref())),
        (
            "bitbake",
            or_empty(project.bitbake.as_ref().map(crate::release::place)),
        ),
        ("machine", or_empty(project.host_machine.as_ref())),
        ("layers", layers.join("\n")),
        ("variables", variables.join("\n")),
        ("local.conf", lines.join("\n")),
        ("targets", targets(project)),
        ("owner", project.owner.to_string()),
        ("changed", time(project.changed)),
    ]))
}

fn remove(
    client: &Client,
    name: &ProjectName,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        client.project(name)?;
        return output.plan(format_args!("remove project {name}"));
    }
    client.remove_project(name)?;
    output.status(format_args!("removed project {name}"));
    Ok(())
}
