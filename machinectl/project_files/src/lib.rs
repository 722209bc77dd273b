//! Projects from what other tools have: files of kas (YAML or JSON) and bitbake-setup (JSON), and
//! build directories of BitBake.
//!
//! A file is read with the files that it includes, and becomes a project whose layers have
//! repositories of their own. What cannot be carried over is refused, or noted if builds do not
//! depend on it.

mod build_directory;
mod kas;
mod places;
mod setup;

use std::io;
use std::path::{Path, PathBuf};

use config::projects::NewProject;
use serde_json::Value;

/// A project from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The project.
    pub project: NewProject,
    /// Remarks about what was left out.
    pub notes: Vec<String>,
}

/// The choices that a file of bitbake-setup leaves to a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// The name of the configuration.
    pub configuration: Option<String>,
    /// The fragments, such as `machine/qemux86-64`.
    pub fragments: Vec<String>,
}

/// A reason for which a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// A file is not YAML or JSON.
    #[error("{path} cannot be read: {fault}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The fault with its line.
        fault: String,
    },
    /// The file says something that cannot be used.
    #[error("{path}: {fault}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault and the remedy.
        fault: String,
    },
}

/// Reads a file of kas or bitbake-setup, or a build directory.
///
/// # Errors
/// A file cannot be read, or says something that cannot be carried over.
pub fn read(path: &Path, choices: &Choices) -> Result<Imported, ImportError> {
    if build_directory::is_one(path) {
        return build_directory::read(path);
    }
    let content = parse(path)?;
    let fault = |fault: String| ImportError::Content {
        path: path.to_owned(),
        fault,
    };
    if content.get("header").is_some() {
        return kas::read(path, content);
    }
    if content.get("bitbake-setup").is_some() {
        return setup::project(&content, choices).map_err(fault);
    }
    Err(fault(
        "it is neither a file of kas, which has `header`, nor a configuration of bitbake-setup, which has `bitbake-setup`".to_owned(),
    ))
}

/// Parses a file as YAML, of which JSON is a part.
fn parse(path: &Path) -> Result<Value, ImportError> {
    let text = std::fs::read_to_string(path).map_err(|source| ImportError::File {
        path: path.to_owned(),
        source,
    })?;
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let parsed = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())
    };
    let content: Value = parsed.map_err(|fault| ImportError::Syntax {
        path: path.to_owned(),
        fault: fault.lines().next().unwrap_or_default().to_owned(),
    })?;
    if content.is_object() {
        return Ok(content);
    }
    let fault = "a mapping is expected".to_owned();
    let path = path.to_owned();
    Err(ImportError::Syntax { path, fault })
}

#[cfg(test)]
mod tests;
