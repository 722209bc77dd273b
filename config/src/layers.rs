//! Layers and releases: the messages of the API about the layers that projects can have.

mod repository;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{LayerName, ReleaseName};

pub use repository::{LayerPath, Reference, RepositoryError, RepositoryUrl};

/// A directory of a git repository, at a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// The address of the repository.
    pub url: RepositoryUrl,
    /// The branch, tag or commit.
    pub reference: Reference,
    /// The directory in the repository.
    #[serde(default)]
    pub path: LayerPath,
}

/// A release: BitBake, and the branch and the default layers that belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The name.
    pub name: ReleaseName,
    /// The description.
    #[serde(default)]
    pub description: String,
    /// The branch of its layers.
    pub branch: Reference,
    /// BitBake.
    pub bitbake: Location,
    /// The layers that a new project of the release has.
    pub layers: Vec<LayerName>,
    /// The source of the release. A request has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// A layer as it belongs to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The name.
    pub name: LayerName,
    /// The release; `None` if the layer belongs to every release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
    /// The place of the layer.
    pub location: Location,
    /// The summary.
    #[serde(default)]
    pub summary: String,
    /// The address of a page about the layer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub web_url: String,
    /// The layers that it needs.
    #[serde(default)]
    pub depends: Vec<LayerName>,
    /// The source of the layer. A request has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// True if the layer has left its source, and a project still has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// A layer with its content, as far as a layer index knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerContent {
    /// The layer.
    #[serde(flatten)]
    pub layer: Layer,
    /// The machines.
    pub machines: Vec<Described>,
    /// The distributions.
    pub distros: Vec<Described>,
    /// The recipes.
    pub recipes: Vec<Recipe>,
}

/// A machine or a distribution of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The name.
    pub name: String,
    /// The description.
    pub description: String,
}

/// A recipe of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The summary.
    pub summary: String,
    /// The path of its file in the layer.
    pub file: String,
    /// True for the recipe of an image.
    pub image: bool,
}

/// The selection of layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerQuery {
    /// Only layers of this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
    /// Only layers with this text in their name or summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}

/// A source of releases and layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSource {
    /// The name: `added`, `fixtures`, `built-in`, or the address of a layer index.
    pub name: String,
    /// The number of its layers, each counted once for each release.
    pub layers: u64,
    /// The time of the last successful update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// The reason for which the last update failed; empty if it succeeded.
    #[serde(default)]
    pub fault: String,
}

/// A request to update the layers from layer indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// The index; all indexes of the settings if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The result of an update from one layer index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The index.
    pub source: String,
    /// False if the index had nothing new.
    pub changed: bool,
    /// The number of layers that it has now, each counted once for each release.
    pub layers: u64,
    /// The number of layers that have left the index.
    pub left: u64,
    /// Remarks, such as about objects that were left out.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The reason for which the update failed and changed nothing; empty if it succeeded.
    #[serde(default)]
    pub fault: String,
}

/// A fixture to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFixture {
    /// The name of its file: `custom.xml`.
    pub name: crate::FileName,
    /// Its text.
    pub text: String,
}

/// The result of loading a fixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedFixture {
    /// The number of objects in the file.
    pub objects: u64,
    /// Remarks about the file.
    #[serde(default)]
    pub notes: Vec<String>,
}
