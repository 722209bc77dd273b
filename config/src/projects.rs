//! Projects: layers of a release, variables and targets, from which BitBake builds.

mod labels;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::{Build, Priority, Submitter};
use crate::layers::{LayerPath, Location, Reference, RepositoryUrl};
use crate::names::{LayerName, MachineName, ProjectName, ReleaseName, ToolchainName};

pub use labels::{BitbakeTarget, ConfLine, ProjectError, VariableName, VariableValue};

/// The largest numbers of layers, variables, targets and lines of a project.
pub const LAYERS_MAX: usize = 200;
/// See [`LAYERS_MAX`].
pub const VARIABLES_MAX: usize = 500;
/// See [`LAYERS_MAX`].
pub const TARGETS_MAX: usize = 100;
/// See [`LAYERS_MAX`].
pub const LINES_MAX: usize = 2000;

/// A variable of BitBake's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// The name, with operators such as in `IMAGE_INSTALL:append`.
    pub name: VariableName,
    /// The value.
    pub value: VariableValue,
}

/// A layer of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectLayer {
    /// The name.
    pub name: LayerName,
    /// The repository, if not that of the release's layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<RepositoryUrl>,
    /// The branch, tag or commit, if not that of the release's layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The directory in the repository, if not that of the release's layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<LayerPath>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// The name.
    pub name: ProjectName,
    /// The number, which Toaster's clients use. It stays the same even if the project is removed and
    /// added again; 0 before it is stored.
    #[serde(default)]
    pub id: u32,
    /// The release; `None` if BitBake and all layers have locations of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
    /// BitBake, if not that of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitbake: Option<Location>,
    /// The machine of this host that builds it, unless a build names another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_machine: Option<MachineName>,
    /// The layers, each before those that extend it.
    #[serde(default)]
    pub layers: Vec<ProjectLayer>,
    /// The variables, in the order in which they are set.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Lines for the end of `local.conf`, as a kas file has them.
    #[serde(default)]
    pub local_conf: Vec<ConfLine>,
    /// The targets that are built unless a build names others.
    #[serde(default)]
    pub targets: Vec<BitbakeTarget>,
    /// The submitter who may change the project, as administrators may.
    pub owner: Submitter,
    /// The time of the last change.
    pub changed: Timestamp,
}

/// A project to add, or to put in the place of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// The release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
    /// BitBake, if not that of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitbake: Option<Location>,
    /// The machine of this host that builds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_machine: Option<MachineName>,
    /// The layers.
    #[serde(default)]
    pub layers: Vec<ProjectLayer>,
    /// The variables.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Lines for the end of `local.conf`.
    #[serde(default)]
    pub local_conf: Vec<ConfLine>,
    /// The targets.
    #[serde(default)]
    pub targets: Vec<BitbakeTarget>,
    /// Adds the default layers of the release and the variables of the fixtures (`DEFCONF_…`),
    /// before those of the request.
    #[serde(default)]
    pub defaults: bool,
    /// Replaces the project of this name.
    #[serde(default)]
    pub replace: bool,
}

/// A request to build a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectBuild {
    /// The targets; those of the project if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<BitbakeTarget>,
    /// The machine of this host; that of the project if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_machine: Option<MachineName>,
    /// The toolchain; `bitbake` if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<ToolchainName>,
    /// The commits that some layers are built at, in place of those of the project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<LayerCommit>,
    /// The priority in the queue.
    #[serde(default)]
    pub priority: Priority,
    /// Returns an equivalent unfinished build instead of creating one.
    #[serde(default = "enabled")]
    pub coalesce: bool,
    /// Only resolves the project, and submits nothing.
    #[serde(default)]
    pub dry_run: bool,
}

fn enabled() -> bool {
    true
}

/// The answer to a request to build a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedProject {
    /// The resolved project.
    pub document: ProjectDocument,
    /// The build; `None` if none was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// A request for the commits of a layer's repository between two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRange {
    /// The layer.
    pub layer: LayerName,
    /// The commit, branch or tag before the first one.
    pub from: Reference,
    /// The last commit, branch or tag; that of the project if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Reference>,
}

/// A layer at a commit, a branch or a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerCommit {
    /// The layer.
    pub layer: LayerName,
    /// The commit, branch or tag.
    pub reference: Reference,
}

/// The resolved content of a project: what a build of it gets as `project.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectDocument {
    /// The version of the format.
    pub version: u32,
    /// The targets.
    pub targets: Vec<BitbakeTarget>,
    /// The variables.
    pub variables: Vec<Variable>,
    /// The repositories, BitBake's included.
    pub repositories: Vec<DocumentRepository>,
    /// The place of BitBake.
    pub bitbake: DocumentPath,
    /// The layers, each after those that it needs.
    pub layers: Vec<DocumentLayer>,
    /// Lines for the end of `local.conf`.
    pub local_conf: Vec<ConfLine>,
}

impl ProjectDocument {
    /// The name of the source with the document.
    pub const FILE: &str = "project.json";
    /// The version of the format.
    pub const VERSION: u32 = 1;
}

/// A repository of a project at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRepository {
    /// The name, and the directory that its archive unpacks to.
    pub name: String,
    /// The source with its files: a tar archive.
    pub archive: crate::FileName,
    /// The address.
    pub url: RepositoryUrl,
    /// The commit.
    pub commit: Reference,
}

/// A directory of a repository of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentPath {
    /// The name of the repository.
    pub repository: String,
    /// The directory.
    pub path: LayerPath,
}

/// A layer of a resolved project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentLayer {
    /// The name.
    pub name: LayerName,
    /// The name of the repository.
    pub repository: String,
    /// The directory in the repository.
    pub path: LayerPath,
}
