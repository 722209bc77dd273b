//! The command that adds a project from a build directory.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use client::Client;
use config::projects::NewProject;
use config::{ProjectName, ReleaseName};
use project_files::Choices;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// The commands of Toaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// A project with the default layers and variables, whatever the directory has
    Configure,
    /// The project again, with what the directory has now
    Reconfigure,
    /// A project from the directory
    Import,
}

#[derive(Debug, Args)]
pub(crate) struct Buildimport {
    /// The name of the project
    #[arg(long)]
    name: ProjectName,
    /// The build directory
    #[arg(long, value_name = "DIR", required_unless_present = "delete_project")]
    path: Option<PathBuf>,
    /// The release, if BitBake is to be that of a release
    #[arg(long)]
    release: Option<ReleaseName>,
    /// Accepted without effect: there is no page that would call it
    #[arg(long, value_name = "PROGRAM")]
    callback: Option<String>,
    /// Delete the project; a value is accepted as in Toaster
    #[arg(long, value_name = "ANY", num_args = 0..=1, default_missing_value = "")]
    delete_project: Option<String>,
    /// The action
    #[arg(long, value_name = "ACTION", default_value = "import")]
    command: Action,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Buildimport {
    pub(super) fn run(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        if self.delete_project.is_some() {
            return self.delete(client, output);
        }
        let new = self.project(output)?;
        if self.dry_run.enabled {
            return output.plan(format_args!("store project {}", self.name));
        }
        let stored = client.put_project(&self.name, &new)?.value;
        let image = stored.targets.first();
        let image = image.map_or(String::new(), |image| format!("|Default_image={image}"));
        output.print(&format!("{image}|Project_id={}\n", stored.id))
    }

    fn delete(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        if self.dry_run.enabled {
            return output.plan(format_args!("remove project {}", self.name));
        }
        client.remove_project(&self.name)?;
        output.print(&format!("Project '{}' Deleted\n", self.name))
    }

    /// Returns the project, which replaces one of its name.
    fn project(&self, output: &Output) -> Result<NewProject, Failure> {
        if self.command == Action::Configure {
            return Ok(NewProject {
                release: self.release.clone(),
                defaults: true,
                replace: true,
                ..NewProject::default()
            });
        }
        let path = self.path.clone().unwrap_or_default();
        let imported = project_files::read(&path, &Choices::default())
            .map_err(|error| Failure::new(ExitStatus::Refused, error))?;
        for note in &imported.notes {
            output.status(note);
        }
        let own = imported.project;
        Ok(NewProject {
            bitbake: own.bitbake.filter(|_| self.release.is_none()),
            release: self.release.clone(),
            replace: true,
            ..own
        })
    }
}
