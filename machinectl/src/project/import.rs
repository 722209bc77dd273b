//! The command that adds a project from what another tool has.

use std::path::PathBuf;

use clap::Args;
use client::Client;
use config::projects::{BitbakeTarget, NewProject, Variable};
use config::{MachineName, ProjectName};
use project_files::{Choices, ImportError};

use super::parse::variable_argument;
use super::store;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The name of the project
    name: ProjectName,
    /// The file: of kas (YAML or JSON), or a configuration of bitbake-setup; or a build directory of
    /// BitBake, with `conf/bblayers.conf`
    file: PathBuf,
    /// The machine of this host that builds the project
    #[arg(long, value_name = "MACHINE")]
    host_machine: Option<MachineName>,
    /// A variable in place of that of the file; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = variable_argument)]
    variables: Vec<Variable>,
    /// A target in place of those of the file; may be repeated
    #[arg(long = "target", value_name = "TARGET[:TASK]")]
    targets: Vec<BitbakeTarget>,
    /// The configuration, if a file of bitbake-setup has several
    #[arg(long, value_name = "NAME")]
    configuration: Option<String>,
    /// A choice that a file of bitbake-setup leaves open, such as machine/qemux86-64; may be
    /// repeated
    #[arg(long = "choose", value_name = "FRAGMENT")]
    fragments: Vec<String>,
    /// Replace the project of the same name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Import {
    pub(super) fn run(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        let choices = Choices {
            configuration: self.configuration.clone(),
            fragments: self.fragments.clone(),
        };
        let imported = project_files::read(&self.file, &choices).map_err(|error| {
            let status = match error {
                ImportError::File { .. } => ExitStatus::Failure,
                ImportError::Syntax { .. } | ImportError::Content { .. } => ExitStatus::Refused,
            };
            Failure::new(status, error)
        })?;
        for note in &imported.notes {
            output.status(note);
        }
        let new = self.over(imported.project);
        store(client, &self.name, &new, self.dry_run, output)
    }

    /// Returns a project with the arguments in place of what the file says.
    fn over(&self, mut project: NewProject) -> NewProject {
        for variable in &self.variables {
            project.variables.retain(|it| it.name != variable.name);
            project.variables.push(variable.clone());
        }
        if !self.targets.is_empty() {
            project.targets.clone_from(&self.targets);
        }
        NewProject {
            host_machine: self.host_machine.clone(),
            replace: self.replace,
            ..project
        }
    }
}
