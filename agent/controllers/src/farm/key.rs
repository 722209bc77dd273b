//! The key of this host for a farm, which the host makes itself, in a file that only root may read.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::task::Digest;

/// The number of random bytes of a key.
const BYTES: usize = 32;
/// The suffix of a key that the farm may not have accepted yet.
const NEW: &str = "new";

/// A key. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct FarmKey(String);

impl fmt::Debug for FarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FarmKey(***)")
    }
}

/// A reason why the key of this host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file does not exist.
    #[error(
        "this host is not enrolled: there is no key {0}; `buildhost-farm invite NAME` on a coordinator prints a token for `buildhost enrol`"
    )]
    Missing(PathBuf),
    /// The file cannot be read or written.
    #[error("cannot use the key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Others than root may read the file, or it is not root's.
    #[error(
        "the key {0} may be read or changed by others than root; `chown root:root {0}; chmod 600 {0}`, and enrol again if others have read it"
    )]
    Permissions(PathBuf),
    /// The file has something else.
    #[error("the file {0} has no key of a host; delete it and enrol again")]
    Format(PathBuf),
}

impl FarmKey {
    /// Returns the text of the key.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a key.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let metadata = match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyError::Missing(path.to_owned()));
            }
            found => found.map_err(file(path))?,
        };
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !is_own || !sys::file::is_closed(&metadata) {
            return Err(KeyError::Permissions(path.to_owned()));
        }
        let text = sys::trusted::read_text(path).map_err(file(path))?;
        let key = text.trim();
        let is_key = key.len() == 2 * BYTES && key.bytes().all(|it| it.is_ascii_hexdigit());
        if is_key {
            Ok(Self(key.to_owned()))
        } else {
            Err(KeyError::Format(path.to_owned()))
        }
    }

    /// Returns the key that is to be enrolled: that of an enrolment whose answer was lost, or a new one,
    /// which is on disk then.
    ///
    /// # Errors
    /// The key cannot be written.
    pub fn prepare(path: &Path) -> Result<Self, KeyError> {
        let new = path.with_added_extension(NEW);
        if let Ok(key) = Self::read(&new) {
            return Ok(key);
        }
        let key = Self::random().map_err(file(&new))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        sys::file::private_directory(directory)
            .and_then(|()| sys::file::replace(&new, key.0.as_bytes()))
            .map_err(file(&new))?;
        Ok(key)
    }

    /// Puts the prepared key in the place of an earlier one.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn accept(path: &Path) -> Result<(), KeyError> {
        let new = path.with_added_extension(NEW);
        std::fs::rename(&new, path).map_err(file(path))
    }

    fn random() -> io::Result<Self> {
        Ok(Self(Digest::from(sys::random::bytes()?).to_string()))
    }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    |source| KeyError::File { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_on_disk_before_it_is_sent_and_counts_when_it_was_accepted() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("farm.key");
        assert!(matches!(FarmKey::read(&path), Err(KeyError::Missing(_))));
        let key = FarmKey::prepare(&path).unwrap();
        assert_eq!(FarmKey::prepare(&path).unwrap(), key, "a repetition");
        assert!(FarmKey::read(&path).is_err());
        FarmKey::accept(&path).unwrap();
        assert_eq!(FarmKey::read(&path).unwrap(), key);
        assert_ne!(FarmKey::prepare(&path).unwrap(), key, "another enrolment");
        assert_eq!(format!("{key:?}"), "FarmKey(***)");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("farm.key");
        std::fs::write(&path, "a".repeat(64)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            FarmKey::read(&path),
            Err(KeyError::Permissions(_))
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(FarmKey::read(&path).is_ok());
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(FarmKey::read(&path), Err(KeyError::Format(_))));
    }
}
