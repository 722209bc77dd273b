//! Files of kas: <https://kas.readthedocs.io/en/latest/userguide/project-configuration.html>.

mod merge;
mod project;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{ImportError, Imported, parse};

/// The largest depth of includes.
const DEPTH_MAX: usize = 20;

/// Reads a file of kas with its includes and its lock file.
pub(crate) fn read(path: &Path, content: Value) -> Result<Imported, ImportError> {
    let fault = |fault: String| ImportError::Content {
        path: path.to_owned(),
        fault,
    };
    let absolute = std::path::absolute(path).map_err(|source| ImportError::File {
        path: path.to_owned(),
        source,
    })?;
    let mut merged = with_includes(&absolute, content, 0)?;
    if let Some(lock) = lock_file(&absolute) {
        merge::merge(&mut merged, parse(&lock)?);
    }
    project::project(&merged, &root(&absolute)).map_err(fault)
}

/// Returns the content of a file over that of the files that it includes.
fn with_includes(path: &Path, content: Value, depth: usize) -> Result<Value, ImportError> {
    let fault = |fault: String| ImportError::Content {
        path: path.to_owned(),
        fault,
    };
    if depth > DEPTH_MAX {
        return Err(fault(
            "its includes are deeper than 20, or in a circle".to_owned(),
        ));
    }
    let mut merged = Value::Object(serde_json::Map::new());
    for include in merge::includes(&content).map_err(fault)? {
        let included = included_path(path, &include);
        let parsed = parse(&included)?;
        merge::merge(&mut merged, with_includes(&included, parsed, depth + 1)?);
    }
    merge::merge(&mut merged, content);
    Ok(merged)
}

/// Returns the path of an included file: relative to the repository of the file, or to the file.
fn included_path(path: &Path, include: &str) -> PathBuf {
    let in_repository = root(path).join(include);
    match path.parent() {
        Some(directory) if !in_repository.exists() => directory.join(include),
        _ => in_repository,
    }
}

/// Returns the root of the repository of a file, or its directory without one.
fn root(path: &Path) -> PathBuf {
    let directory = path.parent().unwrap_or(path);
    let mut above = directory.ancestors();
    let found = above.find(|directory| directory.join(".git").exists());
    found.unwrap_or(directory).to_owned()
}

/// Returns the lock file beside a file, `x.lock.yml` for `x.yml`.
fn lock_file(path: &Path) -> Option<PathBuf> {
    let ending = path.extension()?.to_str()?;
    let lock = path.with_extension(format!("lock.{ending}"));
    lock.exists().then_some(lock)
}
