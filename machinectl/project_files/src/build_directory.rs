//! Projects from build directories of BitBake: `conf/bblayers.conf` and `conf/local.conf`, and the
//! repositories in which the layers are checked out.

mod checkout;
mod conf;

use std::path::{Path, PathBuf};

use config::join_and;
use config::projects::{NewProject, Variable};

use crate::places::{Repository, add_layer, location};
use crate::{ImportError, Imported};
use checkout::Checkout;
use conf::LocalConf;

/// The file that makes a directory a build directory.
const LAYERS: &str = "conf/bblayers.conf";
const LOCAL: &str = "conf/local.conf";

/// Returns true if a path is a build directory.
pub(crate) fn is_one(path: &Path) -> bool {
    path.join(LAYERS).is_file()
}

/// Reads a build directory.
///
/// # Errors
/// A file cannot be read or has what cannot be carried over, a layer is in no repository, or there
/// is no BitBake beside the layers.
pub(crate) fn read(directory: &Path) -> Result<Imported, ImportError> {
    let directory = directory
        .canonicalize()
        .map_err(|source| ImportError::File {
            path: directory.to_owned(),
            source,
        })?;
    let fault_in = |file: &str| {
        let path = directory.join(file);
        move |fault: String| ImportError::Content { path, fault }
    };
    let paths = conf::layers(&text(&directory.join(LAYERS))?, &directory);
    let paths = paths.map_err(fault_in(LAYERS))?;
    let local = conf::local(&text(&directory.join(LOCAL))?).map_err(fault_in(LOCAL))?;
    let mut checkouts = Vec::new();
    let (layers, bitbake) = places(&paths, &mut checkouts).map_err(fault_in(LAYERS))?;
    let notes = notes(&local, &checkouts);
    let project = NewProject {
        bitbake: Some(bitbake),
        layers,
        variables: variables(&local).map_err(fault_in(LOCAL))?,
        local_conf: local.lines,
        targets: local.default_image.into_iter().collect(),
        ..NewProject::default()
    };
    Ok(Imported { project, notes })
}

fn text(path: &Path) -> Result<String, ImportError> {
    std::fs::read_to_string(path).map_err(|source| ImportError::File {
        path: path.to_owned(),
        source,
    })
}

/// Returns the places of the layers and of BitBake. Adds the checkouts in which they are.
fn places(
    paths: &[PathBuf],
    checkouts: &mut Vec<Checkout>,
) -> Result<
    (
        Vec<config::projects::ProjectLayer>,
        config::layers::Location,
    ),
    String,
> {
    let mut layers = Vec::new();
    for path in paths {
        let (repository, directory) = place(path, checkouts)?;
        add_layer(&mut layers, &repository, &directory)?;
    }
    let bitbake = bitbake_directory(checkouts).ok_or_else(|| {
        let tops: Vec<_> = checkouts.iter().map(|it| it.top.display()).collect();
        format!(
            "there is no BitBake (`bitbake/bin/bitbake`) in or beside {}",
            join_and(&tops)
        )
    })?;
    let (repository, directory) = place(&bitbake, checkouts)?;
    Ok((layers, location(&repository, &directory)?))
}

/// Returns the repository of a directory, and the directory's path in it.
fn place(path: &Path, checkouts: &mut Vec<Checkout>) -> Result<(Repository, String), String> {
    let exists = |path: &Path| path.canonicalize().ok().filter(|path| path.is_dir());
    let path =
        exists(path).ok_or_else(|| format!("the directory {} does not exist", path.display()))?;
    let top = Checkout::top_of(&path)?;
    let inner = path.strip_prefix(&top).map_err(|error| error.to_string())?;
    let inner = inner.display().to_string();
    let known = checkouts.iter().find(|it| it.top == top);
    if let Some(known) = known {
        return Ok((known.repository()?, inner));
    }
    let found = Checkout::inspect(top)?;
    let repository = found.repository()?;
    checkouts.push(found);
    Ok((repository, inner))
}

/// Returns the directory of BitBake: in a repository of layers, as in poky, or beside one.
fn bitbake_directory(checkouts: &[Checkout]) -> Option<PathBuf> {
    let around = checkouts.iter().flat_map(|it| it.top.ancestors().take(3));
    around
        .map(|directory| directory.join("bitbake"))
        .find(|directory| directory.join("bin/bitbake").is_file())
}

fn variables(local: &LocalConf) -> Result<Vec<Variable>, String> {
    let variable = |(name, value): &(&str, String)| {
        let shown = |error: config::projects::ProjectError| error.to_string();
        Ok(Variable {
            name: name.parse().map_err(shown)?,
            value: value.parse().map_err(shown)?,
        })
    };
    local.variables.iter().map(variable).collect()
}

/// Returns the remarks about what builds do not have.
fn notes(local: &LocalConf, checkouts: &[Checkout]) -> Vec<String> {
    let mut notes = Vec::new();
    if !local.left_out.is_empty() {
        let names = join_and(&local.left_out);
        notes.push(format!("{names}: left out, because the host sets its own"));
    }
    notes.extend(checkouts.iter().flat_map(Checkout::notes));
    notes
}

#[cfg(test)]
mod tests;
