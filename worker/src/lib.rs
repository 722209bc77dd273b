//! The program inside a build machine: fetches a task, runs it, reports.
//!
//! It knows nothing of machines and hosts but what [`config::task`] says. As a
//! library it lets tests, and other rooms' tests, be its other side.

pub mod cli;

pub mod build;

pub mod bootstrap;

pub mod report;

pub mod exec;

pub mod log;

pub mod virtio_port;

pub mod handshake;

pub mod shell;

pub mod reseed;

pub mod pr;

use std::io;
use std::path::PathBuf;

use config::names::FileName;
use config::task::{Digest, TaskError};
use tftp::client::ClientError;

/// Why the worker could not do its part; none of it is the package's fault.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A file of the host's did not come.
    #[error("cannot fetch `{name}`")]
    Fetch {
        /// As the host calls it.
        name: String,
        /// What kept it.
        source: ClientError,
    },
    /// A file of ours did not go.
    #[error("cannot put `{name}`")]
    Put {
        /// As the host calls it.
        name: String,
        /// What kept it.
        source: ClientError,
    },
    /// The host does not let us begin.
    #[error("cannot wait for the host's word to begin")]
    Wait(#[source] io::Error),
    /// The task makes no sense.
    #[error("cannot read the task")]
    Task(#[from] TaskError),
    /// A source is not the one that was meant.
    #[error("the source {name} has the SHA-256 {found}, not {expected}")]
    Hash {
        /// The source.
        name: FileName,
        /// As the task has it.
        expected: Digest,
        /// As it came.
        found: String,
    },
    /// This machine's disk does not do what we ask.
    #[error("cannot use {path}")]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What its file system says.
        source: io::Error,
    },
    /// A program of the toolchain could not be run.
    #[error("cannot run {path}")]
    Start {
        /// The program.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

impl WorkerError {
    /// For `map_err`: something on disk failed.
    pub(crate) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Disk { path, source }
    }
}

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
