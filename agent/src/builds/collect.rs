//! Makes a record of what a guest has put: its result, its files, and the
//! revisions of its packages. Done twice, it gives the same.

use std::fs::File;
use std::path::{Path, PathBuf};

use config::builds::{Artifact, Built};
use config::task::{self, Outcome, TaskError, TaskResult};
use config::{BuildId, FileName, manifest};

use super::ARTIFACTS;
use crate::blocking;
use crate::host::Host;
use crate::revisions::{self, RevisionError};

/// The list of packages with their revisions, among the artifacts.
const PACKAGES: &str = "packages.manifest";

/// Everything that a build gave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in one line.
    pub message: String,
    /// The packages with their revisions.
    pub packages: Vec<Built>,
    /// All files.
    pub artifacts: Vec<Artifact>,
}

/// Why what a guest has put cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The result is none.
    #[error("the guest's result.manifest cannot be used: {0}")]
    Result(#[from] TaskError),
    /// The result names a file that is not there.
    #[error("the guest's result names the file {0}, which it has not put")]
    Missing(FileName),
    /// A package has no revision.
    #[error(transparent)]
    Revision(#[from] RevisionError),
}

/// Reads what the guest of a build has put, asks for revisions, and writes them
/// beside the packages.
pub(super) async fn collect(host: &Host, id: BuildId) -> Result<Collected, CollectError> {
    let directory = host.build_directory(id);
    let result = read(&directory)?;
    let good = result.status.is_good();
    let mut packages = Vec::new();
    for package in result.packages.into_iter().filter(|_| good) {
        let revision = revisions::revision(&host.pr, &host.settings.pr, &package).await?;
        packages.push(Built { package, revision });
    }
    let files = directory.join(ARTIFACTS);
    let artifacts = {
        let packages = packages.clone();
        blocking(move || finish(&files, &packages)).await?
    };
    let is_there = |name: &FileName| artifacts.iter().any(|artifact| artifact.name == *name);
    if let Some(lost) = packages.iter().find(|built| !is_there(&built.package.file)) {
        return Err(CollectError::Missing(lost.package.file.clone()));
    }
    Ok(Collected {
        outcome: result.status,
        message: result.message,
        packages,
        artifacts,
    })
}

fn read(directory: &Path) -> Result<TaskResult, CollectError> {
    let path = directory.join(task::RESULT);
    let text =
        std::fs::read_to_string(&path).map_err(|source| CollectError::File { path, source })?;
    Ok(TaskResult::parse(&text)?)
}

/// Writes the list of packages and hashes all files.
fn finish(files: &Path, packages: &[Built]) -> Result<Vec<Artifact>, CollectError> {
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| CollectError::File { path, source }
    };
    if !packages.is_empty() {
        let list = packages
            .iter()
            .map(|built| built.package.manifest().with("revision", &built.revision));
        let text = manifest::print(&list.collect::<Vec<_>>());
        let path = files.join(PACKAGES);
        store::file::replace(&path, text.as_bytes()).map_err(fault(&path))?;
    }
    let mut artifacts = Vec::new();
    for path in store::file::entries(files).map_err(fault(files))? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        let Some(name) = name else { continue };
        let file = File::open(&path).map_err(fault(&path))?;
        let bytes = file.metadata().map_err(fault(&path))?.len();
        let sha256 = store::file::digest(file).map_err(fault(&path))?;
        artifacts.push(Artifact {
            name,
            bytes,
            sha256,
        });
    }
    Ok(artifacts)
}
