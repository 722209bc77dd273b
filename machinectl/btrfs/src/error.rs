//! The error of the store's operations: a refusal, or a failure of the system.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sys::command::CommandError;

/// The number of characters of a path that a message shows.
const PATH_SHOWN_MAX: usize = 300;

/// The error of an operation on volumes or toolchains.
#[derive(Debug)]
pub enum StoreError {
    /// The request conflicts with the current state. Nothing was changed.
    Refused(Box<dyn Refusal>),
    /// A system call failed.
    Io {
        /// The attempted action.
        action: &'static str,
        /// The path that it was attempted on.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another program failed.
    Command(CommandError),
}

/// A reason not to do what was requested. Each operation defines its own beside its code.
///
/// A refusal is an answer, not a failure; its text names the remedy.
pub trait Refusal: Error + Send + Sync + 'static {
    /// Returns the kind of the refusal, which exit codes and statuses are derived from.
    fn kind(&self) -> RefusalKind;
}

/// The kinds of refusals that a caller may have to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The volume does not exist or is not on btrfs.
    NoVolume,
    /// The machine, revision, image, snapshot or toolchain does not exist.
    NotFound,
    /// The name is taken.
    Exists,
    /// The revision is not newer than the current one.
    NotNewer,
    /// The stream is named after another machine.
    WrongName,
    /// The stream is not a `btrfs send` stream, ends too early, or is damaged.
    BadStream,
    /// The parent of an incremental stream is missing or has changed.
    NoParent,
    /// The disk is full.
    Full,
    /// A process uses the subvolume.
    InUse,
    /// A process is changing the machine.
    Locked,
    /// The machine is being deleted.
    Deleting,
    /// The content differs from its manifest.
    Differs,
    /// The other host cannot be reached.
    Unreachable,
    /// The other host's program ended with this exit code.
    Remote(i32),
    /// The input or the state of the disk cannot be used.
    Invalid,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Io { action, path, .. } => write!(f, "cannot {action} `{}`", shortened(path)),
            Self::Command(error) => error.fmt(f),
        }
    }
}

/// Returns a path as text. Of one that is longer than a message should be, such as one that
/// exceeds the kernel's limit, returns the start and the end.
fn shortened(path: &Path) -> String {
    let text = path.display().to_string();
    let characters = text.chars().count();
    if characters <= PATH_SHOWN_MAX {
        return text;
    }
    let part = PATH_SHOWN_MAX / 2;
    let start: String = text.chars().take(part).collect();
    let end: String = text.chars().skip(characters - part).collect();
    format!("{start}…{end}")
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(refusal) => refusal.source(),
            Self::Io { source, .. } => Some(source),
            Self::Command(error) => error.source(),
        }
    }
}

impl<R: Refusal> From<R> for StoreError {
    fn from(refusal: R) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<CommandError> for StoreError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl StoreError {
    /// Returns the kind of a refusal; `None` for a failure.
    pub fn kind(&self) -> Option<RefusalKind> {
        match self {
            Self::Refused(refusal) => Some(refusal.kind()),
            Self::Io { .. } | Self::Command(_) => None,
        }
    }

    /// Returns the kind of the system's error, also if another program has met it.
    fn system_error(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            Self::Command(error) => error.system_error(),
            Self::Refused(_) => None,
        }
    }

    /// Returns true if the caller lacks the rights for the operation.
    pub fn is_denied(&self) -> bool {
        self.system_error() == Some(io::ErrorKind::PermissionDenied)
    }

    /// Returns true if another process uses or changes the subject, so that a later attempt
    /// may succeed.
    pub fn is_in_use(&self) -> bool {
        matches!(self.kind(), Some(RefusalKind::InUse | RefusalKind::Locked))
    }

    /// Returns true if the disk was full.
    pub fn is_full(&self) -> bool {
        let is_refused = self.kind() == Some(RefusalKind::Full);
        is_refused || self.system_error().is_some_and(sys::error_report::is_full)
    }
}

/// Adds the attempted action and its path to an I/O error.
pub trait IoContext<T> {
    /// Returns the same result, with a failure as [`StoreError::Io`].
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            action,
            path: path.as_ref().to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_the_ends_of_a_long_path() {
        let path = format!("/v/{}/file", "directory/é".repeat(500));
        let result: Result<(), _> = Err(io::Error::other("reason"));
        let message = result.context("open", path).unwrap_err().to_string();
        assert!(
            message.starts_with("cannot open `/v/directory/"),
            "{message}"
        );
        assert!(message.ends_with("é/file`"), "{message}");
        assert!(message.chars().count() < PATH_SHOWN_MAX + 20, "{message}");
    }
}
