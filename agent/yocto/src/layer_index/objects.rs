//! The objects of the interface of a layer index, as far as they are used. Fields that it does not
//! send are empty.

use serde::{Deserialize, Deserializer};

/// The links of the interface.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Root {
    pub(super) branches: String,
    pub(super) layer_items: String,
    pub(super) layer_branches: String,
    pub(super) layer_dependencies: String,
    pub(super) recipes: String,
    pub(super) machines: String,
    pub(super) distros: String,
}

/// A branch.
#[derive(Debug, Deserialize)]
pub(super) struct Branch {
    pub(super) id: u64,
    pub(super) name: String,
}

/// A layer.
#[derive(Debug, Deserialize)]
pub(super) struct LayerItem {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) vcs_url: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) summary: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) vcs_web_url: String,
}

/// A layer on a branch.
#[derive(Debug, Deserialize)]
pub(super) struct LayerBranch {
    pub(super) id: u64,
    pub(super) layer: u64,
    pub(super) branch: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) vcs_subdir: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) actual_branch: String,
}

/// A dependency of a layer on a branch on a layer.
#[derive(Debug, Deserialize)]
pub(super) struct LayerDependency {
    pub(super) layerbranch: u64,
    pub(super) dependency: u64,
    #[serde(default = "enabled")]
    pub(super) required: bool,
}

/// A recipe.
#[derive(Debug, Deserialize)]
pub(super) struct RecipeItem {
    pub(super) layerbranch: u64,
    pub(super) pn: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) pv: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) summary: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) filename: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) filepath: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) inherits: String,
}

/// A machine.
#[derive(Debug, Deserialize)]
pub(super) struct Machine {
    pub(super) layerbranch: u64,
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) description: String,
}

/// A distribution.
#[derive(Debug, Deserialize)]
pub(super) struct Distro {
    pub(super) layerbranch: u64,
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) description: String,
}

fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn enabled() -> bool {
    true
}
