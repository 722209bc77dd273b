//! Layer indexes: the lists of layers that the REST API of OpenEmbedded's `layerindex-web` has,
//! and their way into the catalog.
//!
//! An update asks whether anything has changed, with the validators of the last one (RFC 9110,
//! section 8.8), and then gets everything. Only what was wholly received becomes the content.

mod address;
mod fetch;
mod objects;
mod rows;

use std::collections::BTreeMap;
use std::time::Duration;

use config::layers::Release;
use serde::{Deserialize, Serialize};

use crate::Content;

pub use address::{Address, AddressError};
pub use fetch::IndexError;

use fetch::{Answer, Client, Validators};
use objects::{Branch, Distro, LayerBranch, LayerDependency, LayerItem, Machine, RecipeItem, Root};

/// The result of asking a layer index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Synced {
    /// Nothing has changed since the last time.
    Unchanged,
    /// The content of the index.
    Changed {
        /// The layers of the releases.
        content: Content,
        /// The text by which the next update asks for changes.
        mark: String,
        /// Remarks about objects that were left out.
        notes: Vec<String>,
    },
}

/// The mark of an update: what it asked for, and the validators of the answers.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The releases with their branches, which decide about the content as well.
    releases: Vec<(String, String)>,
    answers: BTreeMap<String, Validators>,
}

/// The objects of an index, as it sent them.
#[derive(Debug, Default)]
struct Objects {
    branches: Vec<Branch>,
    layers: Vec<LayerItem>,
    layer_branches: Vec<LayerBranch>,
    dependencies: Vec<LayerDependency>,
    recipes: Vec<RecipeItem>,
    machines: Vec<Machine>,
    distros: Vec<Distro>,
}

/// Asks a layer index for the layers of some releases. `mark` is that of the last update. Blocks.
///
/// # Errors
/// The index cannot be reached, or sends something else than its interface says.
pub fn sync(address: &Address, releases: &[Release], mark: &str) -> Result<Synced, IndexError> {
    sync_within(address, releases, mark, fetch::ANSWER_LIMIT)
}

/// Asks a layer index as [`sync`] does; each answer may take `limit`.
fn sync_within(
    address: &Address,
    releases: &[Release],
    mark: &str,
    limit: Duration,
) -> Result<Synced, IndexError> {
    let client = Client::new(address, limit)?;
    let wanted: Vec<_> = releases
        .iter()
        .map(|it| (it.name.to_string(), it.branch.to_string()))
        .collect();
    // A mark of another version is ignored.
    let last: Mark = serde_json::from_str(mark).unwrap_or_default();
    if last.releases == wanted && is_unchanged(&client, &last)? {
        return Ok(Synced::Unchanged);
    }
    let mut answers = BTreeMap::new();
    let objects = fetch_all(&client, releases, &mut answers)?;
    let (content, notes) = rows::content(&objects, releases);
    if content.layers.is_empty() {
        return Err(IndexError::Empty {
            index: address.shown(),
            branches: branches(releases).join(", "),
        });
    }
    // Without a validator for each answer, a change could be missed.
    let is_complete = answers.values().all(Validators::is_usable);
    let mark = Mark {
        releases: wanted,
        answers: if is_complete {
            answers
        } else {
            BTreeMap::new()
        },
    };
    let mark = serde_json::to_string(&mark).unwrap_or_default();
    Ok(Synced::Changed {
        content,
        mark,
        notes,
    })
}

/// Returns true if no answer of the last update has changed.
fn is_unchanged(client: &Client, last: &Mark) -> Result<bool, IndexError> {
    for (url, validators) in &last.answers {
        if client.get(url, Some(validators))? != Answer::Unchanged {
            return Ok(false);
        }
    }
    Ok(!last.answers.is_empty())
}

/// Returns the branches of releases, each once.
fn branches(releases: &[Release]) -> Vec<String> {
    let mut branches: Vec<_> = releases.iter().map(|it| it.branch.to_string()).collect();
    branches.sort();
    branches.dedup();
    branches
}

/// Gets all objects of the branches of some releases, in the order in which Toaster asks.
fn fetch_all(
    client: &Client,
    releases: &[Release],
    answers: &mut BTreeMap<String, Validators>,
) -> Result<Objects, IndexError> {
    let root: Root = client.object(client.base(), answers)?;
    let link = |link: &str| client.checked_link(link);
    let filter = |url: &str, filter: &str| format!("{url}?filter={filter}");
    let names = branches(releases).join("OR");
    let branches_url = filter(&link(&root.branches)?, &format!("name:{names}"));
    let mut objects = Objects {
        branches: client.list(&branches_url, answers)?,
        layers: client.list(&link(&root.layer_items)?, answers)?,
        ..Objects::default()
    };
    let wanted = branches(releases);
    objects
        .branches
        .retain(|branch| wanted.contains(&branch.name));
    for branch in &objects.branches {
        let own = format!("branch__name:{}", branch.name);
        let below = format!("layerbranch__branch__name:{}", branch.name);
        let url = filter(&link(&root.layer_branches)?, &own);
        objects
            .layer_branches
            .extend(client.list::<LayerBranch>(&url, answers)?);
        let url = filter(&link(&root.layer_dependencies)?, &below);
        objects
            .dependencies
            .extend(client.list::<LayerDependency>(&url, answers)?);
        let url = filter(&link(&root.recipes)?, &below);
        objects
            .recipes
            .extend(client.list::<RecipeItem>(&url, answers)?);
        let url = filter(&link(&root.machines)?, &below);
        objects
            .machines
            .extend(client.list::<Machine>(&url, answers)?);
        let url = filter(&link(&root.distros)?, &below);
        objects
            .distros
            .extend(client.list::<Distro>(&url, answers)?);
    }
    Ok(objects)
}

#[cfg(test)]
mod tests;
