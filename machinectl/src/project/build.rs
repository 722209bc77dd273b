//! The command that builds a project.

use clap::Args;
use client::Client;
use config::builds::Priority;
use config::projects::{BitbakeTarget, LayerCommit, ProjectBuild, ProjectDocument};
use config::{MachineName, ProjectName, ToolchainName};

use super::parse::commit_argument;
use crate::build::finish_submission;
use crate::exit_code::Failure;
use crate::options::{DryRun, Follow};
use crate::output::{Output, Table, count};

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The project
    name: ProjectName,
    /// The targets; by default those of the project
    #[arg(value_name = "TARGET[:TASK]")]
    targets: Vec<BitbakeTarget>,
    /// The machine of this host; by default that of the project
    #[arg(long, value_name = "MACHINE")]
    host_machine: Option<MachineName>,
    /// The toolchain; by default `bitbake`
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    /// Build a layer at this commit, branch or tag; may be repeated
    #[arg(long = "at", value_name = "LAYER=COMMIT", value_parser = commit_argument)]
    at: Vec<LayerCommit>,
    /// The priority; builds with a higher number start first
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// Create a new build even if an equivalent one is unfinished
    #[arg(long)]
    no_coalesce: bool,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Build {
    pub(super) fn run(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        let request = ProjectBuild {
            targets: self.targets.clone(),
            host_machine: self.host_machine.clone(),
            toolchain: self.toolchain.clone(),
            at: self.at.clone(),
            priority: Priority(self.priority),
            coalesce: !self.no_coalesce,
            dry_run: self.dry_run.enabled,
        };
        let submitted = client.build_project(&self.name, &request)?;
        let (document, is_new) = (submitted.value.document, submitted.is_new);
        let Some(build) = submitted.value.build else {
            return print_plan(&document, output);
        };
        let layers = count(document.layers.len(), "layer");
        if is_new {
            output.status(format_args!(
                "submitted build {0} of project {1} with {layers}; `buildhost log -f {0}` follows it",
                build.id, self.name
            ));
        } else {
            output.status(format_args!(
                "build {}, which is {}, is equivalent; `--no-coalesce` creates a new build",
                build.id, build.state
            ));
        }
        finish_submission(client, &build, self.follow, output)
    }
}

/// Prints the layers of a resolved project with their commits.
fn print_plan(document: &ProjectDocument, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(document);
    }
    let mut table = Table::new(["LAYER", "COMMIT", "REPOSITORY", "DIRECTORY"]);
    let layers = document
        .layers
        .iter()
        .map(|it| (it.name.as_str(), &it.repository, &it.path));
    let bitbake = &document.bitbake;
    let bitbake = [("(bitbake)", &bitbake.repository, &bitbake.path)];
    for (name, repository, path) in bitbake.into_iter().chain(layers) {
        let Some(found) = document
            .repositories
            .iter()
            .find(|it| it.name == *repository)
        else {
            continue;
        };
        table.add([
            name.to_owned(),
            found.commit.to_string(),
            found.url.to_string(),
            path.to_string(),
        ]);
    }
    output.print_table(&table)
}
