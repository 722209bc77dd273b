//! The file of a token: others must not be able to read it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use client::BearerToken;
use zeroize::Zeroizing;

use crate::exit_code::{ExitStatus, Failure};

/// The longest token that is read.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// The name of standard input as a file.
pub(crate) const STDIN: &str = "-";

/// Reads a token from a file that others cannot read, or from standard input.
pub(crate) fn read_token(path: &Path) -> Result<BearerToken, Failure> {
    let text = read_secret(path)?;
    text.parse().map_err(|reason| {
        let text = format!("{} has no token: {reason}", shown(path));
        Failure::new(ExitStatus::Refused, text)
    })
}

/// Reads the content of a file that others cannot read, or of standard input.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| {
        let status = match error.kind() {
            io::ErrorKind::NotFound => ExitStatus::NotFound,
            _ => ExitStatus::Failure,
        };
        let text = format!("cannot read the token in {}: {error}", shown(path));
        Failure::new(status, text)
    };
    let mut text = Zeroizing::new(String::new());
    if path.as_os_str() == STDIN {
        let stdin = io::stdin().take(TOKEN_BYTES_MAX);
        { stdin }.read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!(
            "others can use {0} (mode {mode:04o}), so its token is not used; `chmod 600 {0}`",
            path.display()
        );
        return Err(Failure::new(ExitStatus::Refused, text));
    }
    { file.take(TOKEN_BYTES_MAX) }
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

fn shown(path: &Path) -> String {
    if path.as_os_str() == STDIN {
        return "standard input".to_owned();
    }
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        sys::file::replace(file.path(), b"buildhost_1\n").unwrap();
        assert!(read_token(file.path()).is_ok());
        for mode in [0o640, 0o604, 0o622] {
            let permissions = Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let failure = read_token(file.path()).unwrap_err();
            assert!(failure.error.to_string().contains("chmod 600"), "{mode:o}");
        }
    }
}
