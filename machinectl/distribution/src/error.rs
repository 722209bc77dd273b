//! The reasons for which no machine was made.

use std::fmt;
use std::io;
use std::path::PathBuf;

use config::text::printable;

/// The message of programs about a full disk.
const FULL: &str = "No space left on device";

/// A reason for which no machine was made.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// The host has no worker for guests.
    #[error(
        "no worker for the machine: {}; make one with scripts/make-toolchain or scripts/install, \
         and name it with --worker",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoWorker(Vec<UnusableWorker>),
    /// A program is missing.
    #[error("`{program}` is missing; install it: apt-get install {package}")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// The package of Debian that contains it.
        package: &'static str,
    },
    /// The caller is not root.
    #[error("making a machine needs root")]
    NeedsRoot,
    /// The recipe is not a program that users other than root can run.
    #[error(
        "the recipe `{}` must be a file that everyone may read and run, in a directory that everyone \
         may enter: chmod 755",
        .0.display()
    )]
    UnusableRecipe(PathBuf),
    /// A mirror is on the host.
    #[error("the mirror `{0}` is not an address that begins with http:// or https://")]
    UnusableMirror(String),
    /// A program has failed.
    #[error("{subject} failed ({end}): {}", lines(last_lines))]
    Failed {
        /// The program in words.
        subject: String,
        /// The exit status in words.
        end: String,
        /// The last lines of its output.
        last_lines: Vec<String>,
    },
    /// A file that the programs should have made is missing.
    #[error("the recipe has made no usable `{name}`")]
    NoFile {
        /// The file.
        name: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// An operation on a file has failed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A program could not be started with the rights of a recipe.
    #[error("cannot start the recipe without rights on the host")]
    Confine(#[source] io::Error),
}

/// A place at which there is no such worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableWorker {
    pub(crate) path: PathBuf,
    pub(crate) reason: &'static str,
}

impl fmt::Display for UnusableWorker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` {}", self.path.display(), self.reason)
    }
}

impl DistributionError {
    /// Returns true if the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Failed { last_lines, .. } => last_lines.iter().any(|line| line.contains(FULL)),
            Self::File { source, .. } => sys::error_report::is_full(source.kind()),
            _ => false,
        }
    }

    /// Returns a function for `map_err` that adds the operation and the path.
    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}

fn lines(lines: &[String]) -> String {
    if lines.is_empty() {
        return "it has printed nothing".to_owned();
    }
    let lines: Vec<_> = lines
        .iter()
        .map(|line| printable(line).to_string())
        .collect();
    lines.join("; ")
}
