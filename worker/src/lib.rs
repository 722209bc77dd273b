//! The program inside a build machine: fetches a task, runs it, and reports the result.
//!
//! It depends on the host only through the protocol in [`config::task`]. It is a library so
//! that tests can call it.

pub mod bootstrap;
pub mod build;
pub mod cli;
pub mod driven;
pub mod exec;
pub mod fetch;
pub mod fork;
pub mod handshake;
pub mod log;
pub mod log_stream;
mod port;
pub mod pr;
mod preload;
mod processes;
mod rehearsal;
pub mod report;
pub mod reseed;
pub mod secrets;
pub mod shell;
pub mod virtio_port;

use std::io;
use std::path::PathBuf;

use config::names::FileName;
use config::task::{Digest, TaskError};
use tftp::client::ClientError;

/// The error codes with which a host refuses a file for what it is (RFC 1350): an access
/// violation, and an exceeded allocation.
const REFUSALS: [u16; 2] = [2, 3];

/// A reason for which a task could not be done or reported.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A file could not be fetched from the host.
    #[error("cannot fetch `{name}`")]
    Fetch {
        /// The name at the host.
        name: String,
        /// The cause.
        source: ClientError,
    },
    /// A file could not be put to the host.
    #[error("cannot put `{name}`")]
    Put {
        /// The name at the host.
        name: String,
        /// The cause.
        source: ClientError,
    },
    /// The host did not start the task.
    #[error("cannot wait for the host to start the task")]
    Handshake(#[source] io::Error),
    /// The host did not send the secrets.
    #[error("cannot get the secrets of the build from the host")]
    Secrets(#[source] io::Error),
    /// This machine cannot keep secrets.
    #[error("cannot store the secrets of the build in memory")]
    SecretFiles(#[source] io::Error),
    /// The task is invalid.
    #[error("cannot read the task")]
    Task(#[from] TaskError),
    /// A source does not have the hash that the task names.
    #[error("the source {name} has the SHA-256 {actual}, not {expected}")]
    Hash {
        /// The source.
        name: FileName,
        /// The hash in the task.
        expected: Digest,
        /// The hash of the fetched file.
        actual: Digest,
    },
    /// The local disk failed.
    #[error("cannot use {path}")]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// A program of the toolchain could not be started.
    #[error("cannot run {path}")]
    Exec {
        /// The program.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
}

impl WorkerError {
    /// Returns true if the host refused a file for what it is: it is too large, or has a name
    /// that the host does not accept.
    pub fn is_refusal(&self) -> bool {
        let Self::Put { source, .. } = self else {
            return false;
        };
        matches!(source, ClientError::Refused { code, .. } if REFUSALS.contains(code))
    }

    /// Returns true if an equal guest would fail in the same way: its disk is full, a program of
    /// its toolchain cannot run, or the host refuses a file. Otherwise the host may be at fault.
    pub fn is_guests_fault(&self) -> bool {
        match self {
            Self::Disk { source, .. }
            | Self::Fetch {
                source: ClientError::File(source),
                ..
            } => sys::error_report::is_full(source.kind()),
            Self::Exec { .. } | Self::SecretFiles(_) => true,
            Self::Put { .. } => self.is_refusal(),
            Self::Fetch { .. }
            | Self::Handshake(_)
            | Self::Secrets(_)
            | Self::Task(_)
            | Self::Hash { .. } => false,
        }
    }

    /// Returns a function for `map_err` that adds the path of a failed file operation.
    pub(crate) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Disk { path, source }
    }
}
