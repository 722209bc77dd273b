//! The token of a runner, in a file that only root may read.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::job::Hidden;

/// A reason why the token of a runner cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Others than root may read the file, or it is not root's.
    #[error(
        "the token {0} may be read or changed by others than root; `chown root:root {0}; chmod 600 {0}`"
    )]
    Permissions(PathBuf),
    /// The file has something else.
    #[error("the file {0} has no token: one line is expected, such as `glrt-…` of a new runner")]
    Format(PathBuf),
}

/// Checks that a file has a token, and that only root may read it.
///
/// # Errors
/// The fault of the file.
pub fn check(path: &Path) -> Result<(), TokenError> {
    read(path).map(drop)
}

/// Reads the token in a file.
pub(super) fn read(path: &Path) -> Result<Hidden, TokenError> {
    let file = |source| TokenError::File {
        path: path.to_owned(),
        source,
    };
    let metadata = path.metadata().map_err(file)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_own || !sys::file::is_closed(&metadata) {
        return Err(TokenError::Permissions(path.to_owned()));
    }
    let text = sys::trusted::read_text(path).map_err(file)?;
    let token = text.trim();
    let is_token = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    if is_token {
        Ok(Hidden::from(token))
    } else {
        Err(TokenError::Format(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_one_line_that_only_its_owner_can_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map_err(|error| error.to_string())
        };
        assert!(read(&path).unwrap_err().to_string().contains("cannot read"));
        assert_eq!(write("glrt-1\n", 0o600).unwrap().reveal(), "glrt-1");
        assert!(write("glrt-1\n", 0o640).unwrap_err().contains("chmod 600"));
        for text in ["", "\n", "a b", "a\nb"] {
            assert!(
                write(text, 0o600).unwrap_err().contains("has no token"),
                "{text}"
            );
        }
    }
}
