//! The places of BitBake and of layers in repositories; pure.

use config::LayerName;
use config::layers::{LayerPath, Location, Reference, RepositoryUrl};
use config::projects::ProjectLayer;

/// A repository of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// The name in the file.
    pub(crate) name: String,
    /// The address.
    pub(crate) url: RepositoryUrl,
    /// The branch, tag or commit.
    pub(crate) reference: Reference,
}

/// Parses an address and a reference.
pub(crate) fn repository(name: &str, url: &str, reference: &str) -> Result<Repository, String> {
    let fault = |error: &dyn std::fmt::Display| format!("the repository {name}: {error}");
    Ok(Repository {
        name: name.to_owned(),
        url: url.parse().map_err(|error| fault(&error))?,
        reference: reference.parse().map_err(|error| fault(&error))?,
    })
}

/// Returns the place of BitBake: a repository of its own, or the directory of one of poky.
pub(crate) fn bitbake(repositories: &[Repository]) -> Result<Location, String> {
    let named = |name: &str| {
        let is_named = |it: &&Repository| it.url.base_name() == name || it.name == name;
        repositories.iter().find(is_named)
    };
    let (found, path) = match (named("bitbake"), named("poky")) {
        (Some(own), _) => (own, ""),
        (None, Some(poky)) => (poky, "bitbake"),
        (None, None) => {
            return Err("no repository with the name `bitbake` or `poky` has BitBake".to_owned());
        }
    };
    location(found, path)
}

/// Returns the place of a directory of a repository.
pub(crate) fn location(repository: &Repository, directory: &str) -> Result<Location, String> {
    let path: LayerPath = directory
        .parse()
        .map_err(|error: config::layers::RepositoryError| error.to_string())?;
    Ok(Location {
        url: repository.url.clone(),
        reference: repository.reference.clone(),
        path,
    })
}

/// Adds a layer, which is named by the last part of its directory, or by its repository.
pub(crate) fn add_layer(
    layers: &mut Vec<ProjectLayer>,
    repository: &Repository,
    directory: &str,
) -> Result<(), String> {
    let fault =
        |error: &dyn std::fmt::Display| format!("the repository {}: {error}", repository.name);
    let directory = directory.trim_matches('/');
    let directory = if directory == "." { "" } else { directory };
    let path: LayerPath = directory.parse().map_err(|error| fault(&error))?;
    let last = directory.rsplit('/').next().filter(|last| !last.is_empty());
    let short = last.unwrap_or(&repository.name).to_owned();
    let is_taken = |name: &str| layers.iter().any(|it| it.name.as_str() == name);
    let name = if is_taken(&short) {
        format!("{}-{short}", repository.name)
    } else {
        short
    };
    let name: LayerName = name.parse().map_err(|error| fault(&error))?;
    layers.push(ProjectLayer {
        name,
        url: Some(repository.url.clone()),
        reference: Some(repository.reference.clone()),
        path: Some(path),
    });
    Ok(())
}
