//! The secrets of a build: read from the host's store when its guest starts.

use std::io;
use std::path::Path;
use std::sync::Arc;

use config::builds::Build;
use config::secrets::Mask;
use config::task::{LOG, RESULT};
use session::GuestSecrets;
use sys::blocking::blocking;

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
    let (store, names) = (agent.secrets.clone(), build.secrets.clone());
    let submitter = build.submitter.clone();
    let values = blocking(move || store.values(&names, &submitter)).await?;
    Ok(GuestSecrets::new(values))
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
    use config::secrets::SecretValue;

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
