//! The secrets of a build: read from the host's store when its guest starts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use config::SecretName;
use config::builds::Build;
use config::secrets::{Mask, SecretValue};
use config::task::{LOG, RESULT};
use session::GuestSecrets;
use sys::blocking::blocking;

use super::files;
use crate::JobError;
use state::AgentState;

/// Returns the secrets of a build's guest.
///
/// # Errors
/// A secret was deleted since the build was submitted, or is not for its submitter any more.
pub(crate) async fn of_build(
    agent: &Arc<AgentState>,
    build: &Build,
) -> Result<GuestSecrets, JobError> {
    if build.secrets.is_empty() {
        return Ok(GuestSecrets::default());
    }
    if build.has_script() {
        let (directory, names) = (agent.paths.build(build.id), build.secrets.clone());
        let values = blocking(move || masked(&directory, names)).await;
        return Ok(GuestSecrets::new(values?));
    }
    let (store, names) = (agent.secrets.clone(), build.secrets.clone());
    let submitter = build.submitter.clone();
    let values = blocking(move || store.values(&names, &submitter)).await?;
    Ok(GuestSecrets::new(values))
}

/// Returns the texts that the log of a controller's script must not have, as secrets of its build.
fn masked(directory: &Path, names: Vec<SecretName>) -> io::Result<Vec<(SecretName, SecretValue)>> {
    let masked = files::given_script(directory)?.masked.into_iter();
    let value = |(name, text): (SecretName, String)| {
        let value = SecretValue::new(text.into_bytes()).map_err(io::Error::other)?;
        Ok((name, value))
    };
    names.into_iter().zip(masked).map(value).collect()
}

/// Masks secrets in the files that a guest has put. The worker masks its own output; others may
/// not. Blocks.
pub(super) fn mask_files(directory: &Path, mask: &Mask) -> io::Result<()> {
    if mask.is_empty() {
        return Ok(());
    }
    for name in [LOG, RESULT] {
        let path = directory.join(name);
        let content = match sys::trusted::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content?,
        };
        let masked = mask.bytes(&content);
        if masked != content {
            sys::file::replace(&path, &masked)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_a_secret_are_changed() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        sys::file::replace(&path(LOG), b"one\nhunter2-hunter2\n").unwrap();
        sys::file::replace(&path(RESULT), b": 1\nstatus: success\n").unwrap();
        let before = std::fs::metadata(path(RESULT)).unwrap().modified().unwrap();
        let value = SecretValue::new(b"hunter2-hunter2".to_vec()).unwrap();
        mask_files(place.path(), &Mask::new([&value])).unwrap();
        let read = |name: &str| sys::trusted::read_text(path(name)).unwrap();
        assert_eq!(read(LOG), "one\n***\n");
        assert_eq!(read(RESULT), ": 1\nstatus: success\n");
        let after = std::fs::metadata(path(RESULT)).unwrap().modified().unwrap();
        assert_eq!(before, after);
        mask_files(&path("missing"), &Mask::new([&value])).unwrap();
    }
}
