//! Projects.

use config::ProjectName;
use config::layers::Reference;
use config::projects::{CommitRange, NewProject, Project, ProjectBuild, SubmittedProject};

use crate::{Client, Created, Result};

impl Client {
    /// Returns all projects.
    pub fn projects(&self) -> Result<Vec<Project>> {
        self.get("projects")
    }

    /// Returns one project.
    pub fn project(&self, name: &ProjectName) -> Result<Project> {
        self.get(&format!("projects/{name}"))
    }

    /// Adds or replaces a project.
    pub fn put_project(&self, name: &ProjectName, new: &NewProject) -> Result<Created<Project>> {
        self.put(&format!("projects/{name}"), new)
    }

    /// Removes a project; its builds stay.
    pub fn remove_project(&self, name: &ProjectName) -> Result<()> {
        self.delete(&format!("projects/{name}"))
    }

    /// Returns the commits of a layer's repository between two, the oldest first.
    pub fn layer_commits(&self, name: &ProjectName, range: &CommitRange) -> Result<Vec<Reference>> {
        let path = format!("projects/{name}/commits");
        Ok(self.create_slowly(&path, range)?.value)
    }

    /// Resolves a project and submits its build. Waits for as long as its repositories take.
    pub fn build_project(
        &self,
        name: &ProjectName,
        build: &ProjectBuild,
    ) -> Result<Created<SubmittedProject>> {
        self.create_slowly(&format!("projects/{name}/builds"), build)
    }
}
