//! Fetches what a build gave out. Each file is checked before it gets its name, and
//! beside them lies where they came from.

use std::io::{self, Seek};
use std::path::Path;

use config::builds::{Artifact, Build, PROVENANCE};
use tempfile::NamedTempFile;

use crate::{Ending, Failure, Voice};
use client::{Client, ClientError};

/// Fetches all files of a build into a directory, which is made if need be.
pub(super) fn all(
    client: &Client,
    build: &Build,
    directory: &Path,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    if build.outcome.is_none() {
        let words = format!(
            "build {} has not finished yet; `machinectl log -f {0}` waits for it",
            build.id
        );
        return Err(Failure::new(Ending::Refused, words));
    }
    let provenance = directory.join(PROVENANCE);
    // A build may give out a file of that name.
    let given = |it: &Artifact| it.name.as_str() == PROVENANCE;
    let with_provenance =
        build.succeeded() && !build.artifacts.is_empty() && !build.artifacts.iter().any(given);
    if rehearsed {
        for artifact in &build.artifacts {
            let path = directory.join(&artifact.name);
            voice.would(format!(
                "write {} ({} bytes)",
                path.display(),
                artifact.bytes
            ))?;
        }
        if with_provenance {
            voice.would(format!("write {}", provenance.display()))?;
        }
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(|error| fault(directory, error))?;
    for artifact in &build.artifacts {
        one(client, build, artifact, directory)?;
        voice.say(format!(
            "{} ({} bytes)",
            directory.join(&artifact.name).display(),
            artifact.bytes
        ));
    }
    if with_provenance {
        came_from(client, build, &provenance, voice)?;
    }
    Ok(())
}

/// Fetches where the files came from, if the agent knows it.
fn came_from(client: &Client, build: &Build, target: &Path, voice: &Voice) -> Result<(), Failure> {
    let mut text = Vec::new();
    match client.copy(&format!("builds/{}/provenance", build.id), &mut text) {
        Err(ClientError::Refused {
            status: 404,
            detail,
        }) => voice.say(detail),
        copied => {
            copied?;
            sys::file::replace(target, &text).map_err(|error| fault(target, error))?;
            voice.say(target.display().to_string());
        }
    }
    Ok(())
}

fn one(
    client: &Client,
    build: &Build,
    artifact: &Artifact,
    directory: &Path,
) -> Result<(), Failure> {
    let target = directory.join(&artifact.name);
    let at = |error| fault(&target, error);
    let mut file = NamedTempFile::new_in(directory).map_err(at)?;
    client.copy(
        &format!("builds/{}/artifacts/{}", build.id, artifact.name),
        file.as_file_mut(),
    )?;
    file.rewind().map_err(at)?;
    let found = sys::file::digest(file.as_file()).map_err(at)?;
    if found != artifact.sha256 {
        let words = format!(
            "{} came with the hash {found}, not {}; it was not kept",
            artifact.name, artifact.sha256
        );
        return Err(Failure::new(Ending::Failed, words));
    }
    Ok(sys::file::publish(file, &target).map_err(at)?)
}

fn fault(path: &Path, source: io::Error) -> ClientError {
    ClientError::File {
        path: path.to_owned(),
        source,
    }
}
