//! The secrets of a host: a directory that only root may enter, with a file for each secret.
//!
//! A file has the value, the submitters whose builds may have it, and who added it. It is written
//! whole, and replaced at once. A file that others than root can read is not used.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::SecretName;
use config::builds::Submitter;
use config::secrets::{NewSecret, Secret, SecretValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The beginning of the names of files that a crash left before they were whole.
const UNFINISHED: &str = ".tmp";
/// The rights of others, which the file of a secret must not have.
const OTHERS: u32 = 0o077;
/// The largest number of secrets.
const SECRETS_MAX: usize = 1000;

/// The directory of a host's secrets. All functions block.
#[derive(Debug, Clone)]
pub struct SecretStore {
    path: PathBuf,
}

/// The reason for which a secret cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// There is no such secret.
    #[error("there is no secret {0}; `buildhost secret list` lists all secrets")]
    Missing(SecretName),
    /// Builds of the submitter may not have it.
    #[error(
        "builds of {submitter} may not have the secret {name}; an administrator names those who \
         may with `buildhost secret add --for`"
    )]
    Forbidden {
        /// The secret.
        name: SecretName,
        /// The submitter.
        submitter: Submitter,
    },
    /// A secret of this name exists.
    #[error("there is a secret {0} already; replace or delete it, or choose another name")]
    Exists(SecretName),
    /// There are too many secrets.
    #[error("there are {SECRETS_MAX} secrets already, the maximum; delete some")]
    Full,
    /// Others than root can read the file.
    #[error(
        "others than root can read {path}, which has the mode {mode:04o}: take the secret for \
         known, and add it again with another value"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file has no secret.
    #[error("{path} is not the file of a secret: {fault}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault, without content of the file.
        fault: String,
    },
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    secret: Secret,
    value: SecretValue,
}

impl SecretStore {
    /// Returns the store in this directory, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Makes the directory, closes it to others, and removes files that were left unfinished.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn prepare(&self) -> Result<(), SecretsError> {
        let prepare = || {
            sys::file::private_directory(&self.path)?;
            for entry in sys::file::entries(&self.path)? {
                let name = entry.file_name().and_then(|name| name.to_str());
                if name.is_some_and(|name| name.starts_with(UNFINISHED)) {
                    fs::remove_file(entry)?;
                }
            }
            Ok(())
        };
        prepare().map_err(failed(&self.path))
    }

    /// Returns all secrets in the order of their names.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn list(&self) -> Result<Vec<Secret>, SecretsError> {
        let mut secrets = Vec::new();
        for name in self.names()? {
            // It may have been deleted meanwhile.
            secrets.extend(self.read(&name)?.map(|stored| stored.secret));
        }
        Ok(secrets)
    }

    /// Adds or replaces a secret. Returns it, and true if it is new.
    ///
    /// # Errors
    /// A secret of the name exists and may not be replaced, there are too many, or the file cannot
    /// be written.
    pub fn add(
        &self,
        name: SecretName,
        new: NewSecret,
        by: Submitter,
        now: Timestamp,
    ) -> Result<(Secret, bool), SecretsError> {
        let path = self.path_of(&name);
        let exists = path.try_exists().map_err(failed(&path))?;
        if exists && !new.replace {
            return Err(SecretsError::Exists(name));
        }
        if !exists && self.names()?.len() >= SECRETS_MAX {
            return Err(SecretsError::Full);
        }
        let mut submitters = new.submitters;
        submitters.sort();
        submitters.dedup();
        let stored = Stored {
            secret: Secret {
                name,
                submitters,
                by,
                added: now,
            },
            value: new.value,
        };
        let text = serde_json::to_vec(&stored).map_err(io::Error::from);
        let text = Zeroizing::new(text.map_err(failed(&path))?);
        sys::file::private_directory(&self.path).map_err(failed(&self.path))?;
        sys::file::replace(&path, &text).map_err(failed(&path))?;
        Ok((stored.secret, !exists))
    }

    /// Deletes a secret. Returns false if there was none.
    ///
    /// # Errors
    /// The file cannot be deleted.
    pub fn delete(&self, name: &SecretName) -> Result<bool, SecretsError> {
        let path = self.path_of(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            removed => removed.map_err(failed(&path))?,
        }
        let synced = sys::trusted::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(failed(&self.path))?;
        Ok(true)
    }

    /// Checks that builds of a submitter may have these secrets.
    ///
    /// # Errors
    /// The first one that does not exist, is not for the submitter, or cannot be read.
    pub fn check(&self, names: &[SecretName], submitter: &Submitter) -> Result<(), SecretsError> {
        self.values(names, submitter).map(drop)
    }

    /// Returns the values of these secrets for a build of a submitter.
    ///
    /// # Errors
    /// The first one that does not exist, is not for the submitter, or cannot be read.
    pub fn values(
        &self,
        names: &[SecretName],
        submitter: &Submitter,
    ) -> Result<Vec<(SecretName, SecretValue)>, SecretsError> {
        let value = |name: &SecretName| {
            let stored = self.read(name)?;
            let stored = stored.ok_or_else(|| SecretsError::Missing(name.clone()))?;
            if !stored.secret.is_for(submitter) {
                return Err(SecretsError::Forbidden {
                    name: name.clone(),
                    submitter: submitter.clone(),
                });
            }
            Ok((name.clone(), stored.value))
        };
        names.iter().map(value).collect()
    }

    /// Returns the files that other users may read, with their modes.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open_files(&self) -> Result<Vec<(PathBuf, u32)>, SecretsError> {
        let open = |name: &SecretName| {
            let path = self.path_of(name);
            let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o7777;
            (mode & OTHERS != 0).then_some((path, mode))
        };
        Ok(self.names()?.iter().filter_map(open).collect())
    }

    /// Returns the names of all secrets. Files of other names are not of this program.
    fn names(&self) -> Result<Vec<SecretName>, SecretsError> {
        let entries = match sys::file::entries(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(&self.path))?,
        };
        let name = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
        Ok(entries.iter().filter_map(name).collect())
    }

    /// Reads the file of a secret; `None` without one.
    fn read(&self, name: &SecretName) -> Result<Option<Stored>, SecretsError> {
        let path = self.path_of(name);
        let file = match sys::trusted::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed(&path))?,
        };
        let metadata = file.metadata().map_err(failed(&path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(SecretsError::Permissions { path, mode });
        }
        let text = io::read_to_string(file).map_err(failed(&path))?;
        let text = Zeroizing::new(text);
        let stored: Stored = serde_json::from_str(&text).map_err(|error| {
            // The error's own text may show a part of the file.
            let fault = format!("its fault is at column {}", error.column());
            let path = path.clone();
            SecretsError::Content { path, fault }
        })?;
        if stored.secret.name != *name {
            let fault = "it is of another secret".to_owned();
            return Err(SecretsError::Content { path, fault });
        }
        Ok(Some(stored))
    }

    fn path_of(&self, name: &SecretName) -> PathBuf {
        self.path.join(name)
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SecretsError {
    let path = path.to_owned();
    move |source| SecretsError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
