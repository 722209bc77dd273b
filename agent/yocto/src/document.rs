//! The sources of a project's build: `project.json`, and an archive of each repository.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};

use config::FileName;
use config::LayerName;
use config::layers::{Location, Reference, RepositoryUrl};
use config::projects::{
    BitbakeTarget, DocumentLayer, DocumentPath, DocumentRepository, Project, ProjectBuild,
    ProjectDocument,
};
use config::task::{Digest, Source};

use crate::catalog::{Catalog, CatalogError, Origin};
use crate::layer_conf::{self, LayerConf, LayerConflict};
use crate::mirrors::{MirrorError, Mirrors};
use crate::project::{self, NamedRepository, Places, ProjectFault, shown_path};

/// A failure to prepare the build of a project.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The project itself has a fault.
    #[error(transparent)]
    Fault(#[from] ProjectFault),
    /// Its layers cannot be built together.
    #[error(transparent)]
    Layers(#[from] LayerConflict),
    /// A directory of a repository is not what the project takes it for.
    #[error(
        "{url} has no file {file} in {path} at {commit}: it is not {expected}; the project names a wrong directory or branch"
    )]
    NotThere {
        /// The repository.
        url: RepositoryUrl,
        /// The directory in it.
        path: String,
        /// The missing file.
        file: &'static str,
        /// The commit.
        commit: Reference,
        /// The thing that the directory was taken for.
        expected: &'static str,
    },
    /// Neither the project nor the request has targets.
    #[error(
        "the project {0} has no targets, and the request names none; name one, such as core-image-minimal"
    )]
    NoTargets(config::ProjectName),
    /// A search begins elsewhere.
    #[error(
        "the commit {from} of layer {layer} is not an ancestor of {to}: name an older commit of the same branch"
    )]
    NotAncestor {
        /// The layer.
        layer: LayerName,
        /// The commit that should come first.
        from: Reference,
        /// The last commit.
        to: Reference,
    },
    /// A repository cannot be used.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The catalog cannot be used, or lacks something.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A source cannot be stored.
    #[error("cannot store the sources of a project in {path}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

/// The place of sources of builds.
#[derive(Debug, Clone, Copy)]
pub struct SourceStore<'a> {
    /// The directory, with a file for each source that its hash names.
    pub directory: &'a Path,
    /// The largest size of a source in bytes.
    pub bytes_max: u64,
}

/// The prepared build of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The resolved project.
    pub document: ProjectDocument,
    /// The sources: the document, then the archives. Empty if none were asked for.
    pub sources: Vec<Source>,
}

/// Resolves a project to commits, checks that its layers belong together, and stores its sources
/// if `store` is given. Blocks for as long as its repositories take.
///
/// # Errors
/// The first fault that is found. Mirrors and sources that are stored already stay.
pub fn prepare(
    catalog: &Catalog,
    mirrors: &Mirrors,
    project: &Project,
    build: &ProjectBuild,
    store: Option<SourceStore<'_>>,
) -> Result<Prepared, PrepareError> {
    let targets = targets(project, build)?;
    let places = places_of(catalog, project, build)?;
    // All settings first: a transfer takes minutes.
    for location in locations(&places) {
        mirrors.check(&location.url)?;
    }
    let commits = commits(mirrors, &places)?;
    check_bitbake(mirrors, &places.bitbake, &commits[0])?;
    let facts = layer_facts(mirrors, &places, &commits[1..])?;
    let order = layer_conf::order(&facts)?;
    let urls = locations(&places).map(|it| it.url.clone());
    let pairs: Vec<_> = urls.zip(commits).collect();
    let (repositories, indexes) = project::repositories(&pairs);
    let document = document(project, targets, &places, &order, &repositories, &indexes);
    let sources = match store {
        Some(store) => store_sources(catalog, mirrors, &document, store)?,
        None => Vec::new(),
    };
    Ok(Prepared { document, sources })
}

fn targets(project: &Project, build: &ProjectBuild) -> Result<Vec<BitbakeTarget>, PrepareError> {
    let targets = if build.targets.is_empty() {
        &project.targets
    } else {
        &build.targets
    };
    if targets.is_empty() {
        return Err(PrepareError::NoTargets(project.name.clone()));
    }
    if targets.len() > config::projects::TARGETS_MAX {
        let max = config::projects::TARGETS_MAX;
        return Err(ProjectFault::TooMany {
            what: "targets",
            max,
        }
        .into());
    }
    Ok(targets.clone())
}

pub(crate) fn places_of(
    catalog: &Catalog,
    project: &Project,
    build: &ProjectBuild,
) -> Result<Places, PrepareError> {
    let release = project
        .release
        .as_ref()
        .map(|name| catalog.release(name))
        .transpose()?;
    let mut known = BTreeMap::new();
    for layer in &project.layers {
        if let Some(found) = catalog.find_layer(&layer.name, project.release.as_ref())? {
            known.insert(layer.name.clone(), found);
        }
    }
    Ok(project::places(
        project,
        release.as_ref(),
        &known,
        &build.at,
    )?)
}

/// Returns the places of BitBake and of the layers.
fn locations(places: &Places) -> impl Iterator<Item = &Location> {
    std::iter::once(&places.bitbake).chain(places.layers.iter().map(|(_, location)| location))
}

/// Brings all places into the mirrors, each once, and returns their commits.
fn commits(mirrors: &Mirrors, places: &Places) -> Result<Vec<Reference>, MirrorError> {
    let mut known: BTreeMap<(&RepositoryUrl, &Reference), Reference> = BTreeMap::new();
    let mut commits = Vec::new();
    for location in locations(places) {
        let key = (&location.url, &location.reference);
        let commit = match known.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(mirrors.update(&location.url, &location.reference)?),
        };
        commits.push(commit.clone());
    }
    Ok(commits)
}

fn check_bitbake(
    mirrors: &Mirrors,
    place: &Location,
    commit: &Reference,
) -> Result<(), PrepareError> {
    const FILE: &str = "bin/bitbake";
    let found = mirrors.read_file(&place.url, commit, &place.path, FILE)?;
    match found {
        Some(_) => Ok(()),
        None => Err(not_there(place, commit, FILE, "BitBake")),
    }
}

fn not_there(
    place: &Location,
    commit: &Reference,
    file: &'static str,
    expected: &'static str,
) -> PrepareError {
    PrepareError::NotThere {
        url: place.url.clone(),
        path: shown_path(&place.path).to_owned(),
        file,
        commit: commit.clone(),
        expected,
    }
}

fn layer_facts(
    mirrors: &Mirrors,
    places: &Places,
    commits: &[Reference],
) -> Result<Vec<(LayerName, LayerConf)>, PrepareError> {
    let mut facts = Vec::new();
    for ((name, place), commit) in places.layers.iter().zip(commits) {
        let file = layer_conf::FILE;
        let text = mirrors.read_file(&place.url, commit, &place.path, file)?;
        let text = text.ok_or_else(|| not_there(place, commit, file, "a layer"))?;
        facts.push((name.clone(), layer_conf::parse(&text)));
    }
    Ok(facts)
}

/// Returns the document of a resolved project. `indexes` has the repositories of BitBake and of
/// the layers, in the order of the places.
fn document(
    project: &Project,
    targets: Vec<BitbakeTarget>,
    places: &Places,
    order: &[usize],
    repositories: &[NamedRepository],
    indexes: &[usize],
) -> ProjectDocument {
    let name_of = |place: usize| repositories[indexes[place]].name.clone();
    let layer = |at: &usize| {
        let (name, location) = &places.layers[*at];
        DocumentLayer {
            name: name.clone(),
            repository: name_of(at + 1),
            path: location.path.clone(),
        }
    };
    let repository = |it: &NamedRepository| {
        Some(DocumentRepository {
            name: it.name.clone(),
            // A plain name with a prefix is always the name of a file.
            archive: format!("repo-{}.tar", it.name).parse::<FileName>().ok()?,
            url: it.url.clone(),
            commit: it.commit.clone(),
        })
    };
    ProjectDocument {
        version: ProjectDocument::VERSION,
        targets,
        variables: project.variables.clone(),
        repositories: repositories.iter().filter_map(repository).collect(),
        bitbake: DocumentPath {
            repository: name_of(0),
            path: places.bitbake.path.clone(),
        },
        layers: order.iter().map(layer).collect(),
        local_conf: project.local_conf.clone(),
    }
}

/// Stores the document and the archives, and returns them as the sources of a build.
fn store_sources(
    catalog: &Catalog,
    mirrors: &Mirrors,
    document: &ProjectDocument,
    store: SourceStore<'_>,
) -> Result<Vec<Source>, PrepareError> {
    let failed = |source| PrepareError::Store {
        path: store.directory.to_owned(),
        source,
    };
    let mut sources = Vec::new();
    for repository in &document.repositories {
        let sha256 = store_archive(catalog, mirrors, repository, store)?;
        let name = repository.archive.clone();
        sources.push(Source { name, sha256 });
    }
    let mut text = serde_json::to_string_pretty(document)
        .map_err(io::Error::from)
        .map_err(failed)?;
    text.push('\n');
    let sha256 = sys::file::digest_of(text.as_bytes());
    sys::file::replace(&store.directory.join(sha256.as_str()), text.as_bytes()).map_err(failed)?;
    let name = ProjectDocument::FILE.parse::<FileName>();
    let name = name.map_err(io::Error::other).map_err(failed)?;
    sources.insert(0, Source { name, sha256 });
    Ok(sources)
}

/// Stores the archive of a repository, unless it is there, and returns its hash.
fn store_archive(
    catalog: &Catalog,
    mirrors: &Mirrors,
    repository: &DocumentRepository,
    store: SourceStore<'_>,
) -> Result<Digest, PrepareError> {
    let failed = |source| PrepareError::Store {
        path: store.directory.to_owned(),
        source,
    };
    let origin = Origin {
        url: repository.url.clone(),
        commit: repository.commit.clone(),
    };
    if let Some(known) = catalog.archive_of(&origin, &repository.name)? {
        let path = store.directory.join(known.as_str());
        // Its age says when it was last needed.
        match touch(&path) {
            Ok(()) => return Ok(known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let Origin { url, commit } = &origin;
    let file = mirrors.archive(
        url,
        commit,
        &repository.name,
        store.directory,
        store.bytes_max,
    )?;
    let content = sys::trusted::open(file.path()).map_err(failed)?;
    let sha256 = sys::file::digest(content).map_err(failed)?;
    sys::file::publish(file, &store.directory.join(sha256.as_str())).map_err(failed)?;
    catalog.add_archive(&sha256, &origin, &repository.name)?;
    Ok(sha256)
}

/// Sets the time of a file to now.
fn touch(path: &Path) -> io::Result<()> {
    let file = sys::trusted::open_for_writing(path)?;
    file.set_modified(std::time::SystemTime::now())
}
