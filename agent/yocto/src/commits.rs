//! The commits of a layer between two, for a search among them.

use config::layers::Reference;
use config::projects::{CommitRange, Project, ProjectBuild};

use crate::catalog::Catalog;
use crate::document::{PrepareError, places_of};
use crate::mirrors::Mirrors;
use crate::project::ProjectFault;

/// Returns the commits of a layer's repository after one and up to another one, the oldest first.
/// Blocks for as long as the repository takes.
///
/// # Errors
/// The project has no such layer, the repository no such commits, or the first one is not an
/// ancestor of the last one.
pub fn commits(
    catalog: &Catalog,
    mirrors: &Mirrors,
    project: &Project,
    range: &CommitRange,
) -> Result<Vec<Reference>, PrepareError> {
    let places = places_of(catalog, project, &ProjectBuild::default())?;
    let mut layers = places.layers.iter();
    let found = layers.find(|(name, _)| *name == range.layer);
    let (_, place) = found.ok_or_else(|| ProjectFault::Unknown(range.layer.clone()))?;
    let to = range.to.as_ref().unwrap_or(&place.reference);
    let to = mirrors.update(&place.url, to)?;
    let from = mirrors.update(&place.url, &range.from)?;
    if from == to || !mirrors.is_ancestor(&place.url, &from, &to)? {
        let (layer, from) = (range.layer.clone(), range.from.clone());
        return Err(PrepareError::NotAncestor { layer, from, to });
    }
    Ok(mirrors.commits_between(&place.url, &from, &to)?)
}
