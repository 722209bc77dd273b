//! The replacement of a source when a build is repeated.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use client::{Client, ClientError};
use config::builds::Build;
use config::task::Source;
use config::{BuildId, FileName};

use super::submit::upload_source;
use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

/// The editor if no variable names one.
const EDITOR: &str = "vi";

/// A source and the file that replaces it: `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replacement {
    name: FileName,
    path: PathBuf,
}

impl FromStr for Replacement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The name of a file may contain `=`, but then the path must not.
        let (name, path) = text
            .rsplit_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or("expected NAME=PATH")?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        let path = path.into();
        Ok(Self { name, path })
    }
}

/// Returns the sources of a build with the replacements, which are uploaded, and with the one to
/// edit as the editor leaves it.
pub(super) fn sources(
    client: &Client,
    build: &Build,
    replacements: &[Replacement],
    edit: Option<&FileName>,
    output: &Output,
) -> Result<Vec<Source>, Failure> {
    let mut sources = build.sources.clone();
    for Replacement { name, path } in replacements {
        let source = find(build.id, &mut sources, name)?;
        replace(client, source, path, output)?;
    }
    if let Some(name) = edit {
        let source = find(build.id, &mut sources, name)?;
        edit_source(client, source, output)?;
    }
    Ok(sources)
}

/// Checks that a build has the sources to replace.
pub(super) fn check(
    build: &Build,
    replacements: &[Replacement],
    edit: Option<&FileName>,
) -> Result<(), Failure> {
    let names = replacements.iter().map(|it| &it.name).chain(edit);
    for name in names {
        find(build.id, &mut build.sources.clone(), name)?;
    }
    for Replacement { path, .. } in replacements {
        File::open(path).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

fn find<'s>(
    id: BuildId,
    sources: &'s mut [Source],
    name: &FileName,
) -> Result<&'s mut Source, Failure> {
    let names: Vec<_> = sources
        .iter()
        .map(|source| source.name.to_string())
        .collect();
    let found = sources.iter_mut().find(|source| source.name == *name);
    found.ok_or_else(|| {
        let names = match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let text = format!("build {id} has no source {name}; its sources are: {names}");
        Failure::new(ExitStatus::NotFound, text)
    })
}

/// Uploads a file in the place of a source.
fn replace(
    client: &Client,
    source: &mut Source,
    path: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let open = || File::open(path).map_err(|error| failed(path, error));
    source.sha256 = sys::file::digest(open()?).map_err(|error| failed(path, error))?;
    Ok(upload_source(client, source, open()?, output)?)
}

/// Lets the user edit a copy of a source under its name, and uploads the copy. Fails if it has not
/// changed.
fn edit_source(client: &Client, source: &mut Source, output: &Output) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(|error| failed(&std::env::temp_dir(), error))?;
    let path = directory.path().join(&source.name);
    let mut file = File::create(&path).map_err(|error| failed(&path, error))?;
    match client.copy_source(&source.sha256, &mut file) {
        Err(ClientError::Write(error)) => return Err(failed(&path, error)),
        copied => copied?,
    };
    drop(file);
    run_editor(&path)?;
    let before = source.sha256.clone();
    replace(client, source, &path, output)?;
    if source.sha256 == before {
        let text = format!("{} has not changed, so nothing was submitted", source.name);
        return Err(Failure::new(ExitStatus::Refused, text));
    }
    Ok(())
}

/// Runs the user's editor, which may have arguments, on a file.
#[expect(
    clippy::disallowed_methods,
    reason = "`sys::command` collects output, but an editor has the terminal"
)]
fn run_editor(path: &Path) -> Result<(), Failure> {
    let named = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR"));
    let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(path)
        .status();
    let status = status.map_err(|error| failed(Path::new("/bin/sh"), error))?;
    if status.success() {
        return Ok(());
    }
    let text = format!(
        "the editor `{editor}` ended with {status}, so nothing was submitted; $VISUAL or $EDITOR names another one"
    );
    Err(Failure::new(ExitStatus::Failure, text))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot use {}", path.display())]
struct FileError {
    path: PathBuf,
    source: io::Error,
}

fn failed(path: &Path, source: io::Error) -> Failure {
    let status = match source.kind() {
        io::ErrorKind::StorageFull => ExitStatus::DiskFull,
        io::ErrorKind::NotFound => ExitStatus::NotFound,
        _ => ExitStatus::Failure,
    };
    let path = path.to_owned();
    Failure::new(status, FileError { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_has_a_name_and_a_path() {
        let parsed: Replacement = "a=b.tar.gz=/tmp/new".parse().unwrap();
        assert_eq!(parsed.name.as_str(), "a=b.tar.gz");
        assert_eq!(parsed.path, Path::new("/tmp/new"));
        for text in ["", "name", "name=", "=path", "../x=path"] {
            assert!(text.parse::<Replacement>().is_err(), "{text}");
        }
    }
}
