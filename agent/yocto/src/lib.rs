//! Layers, releases and projects: where layers come from, which belong to a project, and the
//! files that a build of it gets. All functions block.
//!
//! The catalog has a database of its own beside the records, so that an update from a layer index
//! never locks builds.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read and write files that they have made"
    )
)]

pub mod catalog;
pub mod fixtures;
pub mod layer_conf;
pub mod layer_index;
pub mod mirrors;
pub mod project;
pub mod releases;

mod commits;
mod document;

use config::layers::{LayerContent, Release};

pub use catalog::{Catalog, CatalogError};
pub use commits::commits;
pub use document::{PrepareError, Prepared, SourceStore, prepare};
pub use mirrors::{MirrorError, Mirrors, Policy, proxies};

/// The content of one source of releases and layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The releases.
    pub releases: Vec<Release>,
    /// The layers, one for each release that they belong to.
    pub layers: Vec<LayerContent>,
    /// The settings, such as default variables of projects.
    pub settings: Vec<Setting>,
}

/// A setting of a fixture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name: `DEFCONF_MACHINE`.
    pub name: String,
    /// The value.
    pub value: String,
}
