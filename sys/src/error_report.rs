//! Errors as text, and their common causes.

use std::error::Error;
use std::io;

/// Returns true for the errors of a full disk and of a quota that is used up.
pub fn is_full(error: io::ErrorKind) -> bool {
    matches!(
        error,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Returns an error and its causes in one line, separated by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
