//! The files that a build produced: listed, or fetched and verified.

use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use client::{Client, ClientError};
use config::BuildId;
use config::builds::{Artifact, Build, PROVENANCE, SIGNED_PROVENANCE};
use config::task::Outcome;
use tempfile::NamedTempFile;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::{Output, Progress, Table};

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// A build of a host or of a farm, with the files that it produced.
#[derive(Debug)]
pub(crate) struct Produced {
    pub(crate) id: BuildId,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) succeeded: bool,
    pub(crate) artifacts: Vec<Artifact>,
}

impl Produced {
    /// Returns the files of a build of a host.
    pub(crate) fn of(build: &Build) -> Self {
        Self {
            id: build.id,
            outcome: build.outcome,
            succeeded: build.succeeded(),
            artifacts: build.artifacts.clone(),
        }
    }

    /// Lists the files.
    pub(crate) fn list(&self, output: &Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.print_json(&self.artifacts);
        }
        let mut table = Table::new(["FILE", "BYTES", "SHA256"]);
        for artifact in &self.artifacts {
            table.add([
                artifact.name.to_string(),
                artifact.bytes.to_string(),
                artifact.sha256.to_string(),
            ]);
        }
        output.print_table(&table)
    }

    /// Fails if a finished build has no files to fetch.
    pub(crate) fn require_files(&self) -> Result<(), Failure> {
        match self.outcome {
            Some(outcome) if self.files().next().is_none() => {
                let text = format!("build {} has no files: it finished with {outcome}", self.id);
                Err(Failure::new(ExitStatus::NotFound, text))
            }
            _ => Ok(()),
        }
    }

    /// Fetches the files and their provenance into a directory, which is created if necessary.
    pub(crate) fn fetch(
        &self,
        client: &Client,
        directory: &Path,
        dry_run: DryRun,
        output: &Output,
    ) -> Result<(), Failure> {
        if self.outcome.is_none() {
            let text = format!(
                "build {} has not finished; `buildhost log -f {0}` waits for it",
                self.id
            );
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        if dry_run.enabled {
            return self.plan(client, directory, output);
        }
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        for artifact in self.files() {
            fetch_one(client, self.id, artifact, directory, output)?;
            let path = directory.join(&artifact.name);
            output.status(format_args!(
                "wrote {} ({} bytes)",
                path.display(),
                artifact.bytes
            ));
        }
        if self.has_provenance() {
            fetch_provenance(client, self.id, &directory.join(PROVENANCE), output)?;
            if let Some(envelope) = signed_provenance(client, self.id)? {
                write(&directory.join(SIGNED_PROVENANCE), &envelope, output)?;
            }
        }
        Ok(())
    }

    fn plan(&self, client: &Client, directory: &Path, output: &Output) -> Result<(), Failure> {
        for artifact in self.files() {
            let path = directory.join(&artifact.name);
            output.plan(format_args!(
                "write {} ({} bytes)",
                path.display(),
                artifact.bytes
            ))?;
        }
        if self.has_provenance() {
            let is_signed = signed_provenance(client, self.id)?.is_some();
            let names = [PROVENANCE, SIGNED_PROVENANCE];
            for name in names.iter().take(1 + usize::from(is_signed)) {
                let path = directory.join(name);
                output.plan(format_args!("write {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Returns true if the build's provenance belongs beside its files.
    fn has_provenance(&self) -> bool {
        self.succeeded && !self.artifacts.is_empty()
    }

    /// Returns the files to fetch. A build of an old agent may have a file with a name of the
    /// provenance; the agent's takes precedence.
    fn files(&self) -> impl Iterator<Item = &Artifact> {
        let artifacts = self.artifacts.iter();
        let names = [PROVENANCE, SIGNED_PROVENANCE];
        artifacts.filter(move |artifact| !names.contains(&artifact.name.as_str()))
    }
}

/// Fetches the provenance, if the agent has it.
fn fetch_provenance(
    client: &Client,
    build: BuildId,
    path: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let mut text = Vec::new();
    match client.copy_provenance(build, &mut text) {
        Err(ClientError::Refused {
            status: 404,
            detail,
        }) => output.status(detail),
        copied => {
            copied?;
            write(path, &text, output)?;
        }
    }
    Ok(())
}

/// Returns the signed provenance; `None` if the host has no key.
fn signed_provenance(client: &Client, build: BuildId) -> Result<Option<Vec<u8>>, Failure> {
    let mut envelope = Vec::new();
    match client.copy_signed_provenance(build, &mut envelope) {
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        copied => {
            copied?;
            Ok(Some(envelope))
        }
    }
}

fn write(path: &Path, content: &[u8], output: &Output) -> Result<(), Failure> {
    sys::file::replace(path, content).map_err(|error| failed(path, error))?;
    output.status(format_args!("wrote {}", path.display()));
    Ok(())
}

/// Fetches a file; it gets its name only if its hash is right.
fn fetch_one(
    client: &Client,
    build: BuildId,
    artifact: &Artifact,
    directory: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let path = directory.join(&artifact.name);
    let failed = |error| failed(&path, error);
    let mut file = NamedTempFile::new_in(directory).map_err(failed)?;
    let size = artifact.bytes;
    let progress = Progress::start(output, move || Some(size));
    let mut sink = progress.counted(file.as_file_mut());
    match client.copy_artifact(build, &artifact.name, &mut sink) {
        Err(ClientError::Write(error)) => return Err(failed(error)),
        copied => copied?,
    };
    drop(progress);
    file.rewind().map_err(failed)?;
    let sha256 = sys::file::digest(file.as_file()).map_err(failed)?;
    if sha256 != artifact.sha256 {
        let text = format!(
            "{} arrived with the hash {sha256} instead of {}, so it was discarded",
            artifact.name, artifact.sha256
        );
        return Err(Failure::new(ExitStatus::Failure, text));
    }
    sys::file::publish(file, &path).map_err(failed)
}

fn failed(path: &Path, source: io::Error) -> Failure {
    let status = match source.kind() {
        io::ErrorKind::StorageFull => ExitStatus::DiskFull,
        _ => ExitStatus::Failure,
    };
    let path = path.to_owned();
    Failure::new(status, WriteError { path, source })
}
