//! Projects: their defaults, and the places of BitBake and the layers; pure.

use std::collections::BTreeMap;

use config::LayerName;
use config::builds::Submitter;
use config::layers::{Layer, LayerPath, Location, Reference, Release, RepositoryUrl};
use config::projects::{
    LAYERS_MAX, LINES_MAX, LayerCommit, NewProject, Project, ProjectLayer, TARGETS_MAX,
    VARIABLES_MAX, Variable,
};
use config::{ProjectName, ReleaseName};
use jiff::Timestamp;

use crate::releases::VARIABLE;
use crate::{Setting, fixtures};

/// A reason to refuse a project. Its text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectFault {
    /// A list is too long.
    #[error("a project has at most {max} {what}")]
    TooMany {
        /// The kind of items.
        what: &'static str,
        /// The largest number.
        max: usize,
    },
    /// A layer is named twice.
    #[error("the project names the layer {0} twice")]
    Twice(LayerName),
    /// A project without a release lacks a place.
    #[error(
        "{0} has no repository: name one, or give the project a release, which has one (`buildhost release list`)"
    )]
    NoPlace(String),
    /// A layer does not belong to the release.
    #[error(
        "there is no layer {layer} of release {release}; `buildhost layer list --release {release}` lists those that there are"
    )]
    NoLayer {
        /// The layer.
        layer: LayerName,
        /// The release of the project.
        release: ReleaseName,
    },
    /// A commit is given for a layer that the project does not have.
    #[error("the project has no layer {0}, for which a commit is given")]
    Unknown(LayerName),
}

/// Returns a project as it is stored. With `defaults`, it begins with the default layers of its
/// release and the default variables, of which those of the request replace the ones of the same
/// name.
///
/// # Errors
/// A list is too long, or names a layer twice.
pub fn complete(
    name: ProjectName,
    new: NewProject,
    release: Option<&Release>,
    settings: &[Setting],
    owner: Submitter,
    now: Timestamp,
) -> Result<Project, ProjectFault> {
    let (mut layers, mut variables) = (Vec::new(), Vec::new());
    if new.defaults {
        let names = release.map(|it| it.layers.as_slice()).unwrap_or_default();
        layers.extend(names.iter().cloned().map(of_release));
        variables.extend(default_variables(settings));
    }
    for layer in new.layers {
        match layers
            .iter_mut()
            .find(|it: &&mut ProjectLayer| it.name == layer.name)
        {
            Some(default) if new.defaults && *default == of_release(layer.name.clone()) => {
                *default = layer;
            }
            Some(_) => return Err(ProjectFault::Twice(layer.name)),
            None => layers.push(layer),
        }
    }
    for variable in new.variables {
        variables.retain(|it: &Variable| it.name != variable.name);
        variables.push(variable);
    }
    for (count, what, max) in [
        (layers.len(), "layers", LAYERS_MAX),
        (variables.len(), "variables", VARIABLES_MAX),
        (new.targets.len(), "targets", TARGETS_MAX),
        (new.local_conf.len(), "lines of local.conf", LINES_MAX),
    ] {
        if count > max {
            return Err(ProjectFault::TooMany { what, max });
        }
    }
    let project = Project {
        name,
        id: 0,
        release: new.release,
        bitbake: new.bitbake,
        host_machine: new.host_machine,
        layers,
        variables,
        local_conf: new.local_conf,
        targets: new.targets,
        owner,
        changed: now,
    };
    check_places(&project)?;
    Ok(project)
}

/// Returns the release of a new project that names none: that of the setting of fixtures.
pub fn default_release(new: &NewProject, settings: &[Setting]) -> Option<ReleaseName> {
    let is_wanted = new.defaults && new.release.is_none() && new.bitbake.is_none();
    let mut settings = settings
        .iter()
        .filter(|it| it.name == fixtures::DEFAULT_RELEASE);
    settings.next().filter(|_| is_wanted)?.value.parse().ok()
}

/// Returns a layer at the place that the release gives it.
pub fn of_release(name: LayerName) -> ProjectLayer {
    ProjectLayer {
        name,
        url: None,
        reference: None,
        path: None,
    }
}

fn default_variables(settings: &[Setting]) -> impl Iterator<Item = Variable> {
    settings.iter().filter_map(|setting| {
        // Fixtures are checked; other settings are no variables.
        let name = setting.name.strip_prefix(VARIABLE)?.parse().ok()?;
        let value = setting.value.parse().ok()?;
        Some(Variable { name, value })
    })
}

/// Checks that a project without a release has a place for BitBake and for each layer.
fn check_places(project: &Project) -> Result<(), ProjectFault> {
    if project.release.is_some() {
        return Ok(());
    }
    if project.bitbake.is_none() {
        return Err(ProjectFault::NoPlace("BitBake".to_owned()));
    }
    match project
        .layers
        .iter()
        .find(|layer| layer.url.is_none() || layer.reference.is_none())
    {
        Some(layer) => Err(ProjectFault::NoPlace(format!("the layer {}", layer.name))),
        None => Ok(()),
    }
}

/// The places of BitBake and of the layers of a project, in the order of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// BitBake.
    pub bitbake: Location,
    /// The layers.
    pub layers: Vec<(LayerName, Location)>,
}

/// Returns the places of a project. `known` has the layers of its release, `at` the references
/// that replace those of some layers.
///
/// # Errors
/// A place is missing.
pub fn places(
    project: &Project,
    release: Option<&Release>,
    known: &BTreeMap<LayerName, Layer>,
    at: &[LayerCommit],
) -> Result<Places, ProjectFault> {
    let bitbake = project
        .bitbake
        .as_ref()
        .or(release.map(|release| &release.bitbake));
    let bitbake = bitbake.ok_or_else(|| ProjectFault::NoPlace("BitBake".to_owned()))?;
    let layers = project.layers.iter().map(|layer| {
        let place = place(layer, project.release.as_ref(), known.get(&layer.name))?;
        Ok((layer.name.clone(), place))
    });
    let mut places = Places {
        bitbake: bitbake.clone(),
        layers: layers.collect::<Result<_, _>>()?,
    };
    for commit in at {
        set_reference(&mut places, commit)?;
    }
    Ok(places)
}

fn place(
    layer: &ProjectLayer,
    release: Option<&ReleaseName>,
    known: Option<&Layer>,
) -> Result<Location, ProjectFault> {
    let missing = || match release {
        Some(release) => ProjectFault::NoLayer {
            layer: layer.name.clone(),
            release: release.clone(),
        },
        None => ProjectFault::NoPlace(format!("the layer {}", layer.name)),
    };
    if let Some(url) = &layer.url {
        // Another repository has its own directories; its branch may still be the release's.
        let reference = layer
            .reference
            .as_ref()
            .or(known.map(|it| &it.location.reference));
        return Ok(Location {
            url: url.clone(),
            reference: reference.ok_or_else(missing)?.clone(),
            path: layer.path.clone().unwrap_or_default(),
        });
    }
    let known = &known.ok_or_else(missing)?.location;
    let replaced = |own: &Option<Reference>| own.clone().unwrap_or_else(|| known.reference.clone());
    Ok(Location {
        url: known.url.clone(),
        reference: replaced(&layer.reference),
        path: layer.path.clone().unwrap_or_else(|| known.path.clone()),
    })
}

/// Sets the reference of a layer, and of those that share its repository and its reference.
fn set_reference(places: &mut Places, commit: &LayerCommit) -> Result<(), ProjectFault> {
    let found = places.layers.iter().find(|(name, _)| *name == commit.layer);
    let old = found
        .ok_or_else(|| ProjectFault::Unknown(commit.layer.clone()))?
        .1
        .clone();
    let locations = places.layers.iter_mut().map(|(_, location)| location);
    for location in locations.chain([&mut places.bitbake]) {
        if (&location.url, &location.reference) == (&old.url, &old.reference) {
            location.reference = commit.reference.clone();
        }
    }
    Ok(())
}

/// A repository at a commit, with its name in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRepository {
    /// The name.
    pub name: String,
    /// The address.
    pub url: RepositoryUrl,
    /// The commit.
    pub commit: Reference,
}

/// Returns the repositories of some places, each commit of each once, and the place of each in
/// the list. Repositories of the same name get numbers.
pub fn repositories(places: &[(RepositoryUrl, Reference)]) -> (Vec<NamedRepository>, Vec<usize>) {
    let mut repositories: Vec<NamedRepository> = Vec::new();
    let mut indexes = Vec::new();
    for (url, commit) in places {
        let same = |it: &NamedRepository| (&it.url, &it.commit) == (url, commit);
        let index = repositories.iter().position(same).unwrap_or_else(|| {
            let taken = |name: &str| repositories.iter().any(|it| it.name == name);
            let name = free_name(&plain_name(url.base_name()), taken);
            let (url, commit) = (url.clone(), commit.clone());
            repositories.push(NamedRepository { name, url, commit });
            repositories.len() - 1
        });
        indexes.push(index);
    }
    (repositories, indexes)
}

/// Returns a name that is one component of every path.
fn plain_name(base: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let name: String = base
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .take(80)
        .collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name
    } else {
        format!("repository{name}")
    }
}

fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    // The chain has no end.
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// Returns the directory of a layer as part of a path for messages.
pub(crate) fn shown_path(path: &LayerPath) -> &str {
    match path.as_str() {
        "" => ".",
        path => path,
    }
}

#[cfg(test)]
mod tests;
