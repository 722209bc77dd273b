//! Reports to the host: puts the artifacts, then the log, and last the result.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use config::names::FileName;
use config::task::{self, Outcome, TaskResult};
use sys::error_report::chain;
use tftp::client::{Client, ClientError};

use crate::WorkerError;
use crate::log::Log;

/// A file to be put below [`task::ARTIFACTS`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artifact {
    /// The name at the host.
    pub name: FileName,
    /// The local path.
    pub path: PathBuf,
}

/// Puts the artifacts, the log, and the result under the name `result_name`. Returns the
/// reported outcome. An artifact that does not arrive makes the result abnormal. A log that
/// does not arrive is mentioned in the result.
///
/// # Errors
/// The result could not be put.
pub fn report(
    client: &Client,
    artifacts: &[Artifact],
    mut log: Log,
    mut result: TaskResult,
    result_name: &str,
) -> Result<Outcome, WorkerError> {
    for artifact in artifacts {
        let name = format!("{}{}", task::ARTIFACTS, artifact.name);
        if let Err(error) = put_file(client, &name, &artifact.path) {
            result = abnormal(&error);
            log.line(&result.message);
            break;
        }
    }
    log.line(&format!("the result is: {}", result.status));
    if let Err(error) = put_log(client, log) {
        let lost = format!("the log is lost: {}", chain(&error));
        if !result.message.is_empty() {
            result.message.push('\n');
        }
        result.message.push_str(&lost);
    }
    put_text(client, result_name, &result.print())?;
    Ok(result.status)
}

/// Returns the result for a failure of the worker or of the host.
pub fn abnormal(error: &WorkerError) -> TaskResult {
    TaskResult {
        status: Outcome::Abnormal,
        message: chain(error),
        packages: Vec::new(),
    }
}

fn put_log(client: &Client, log: Log) -> Result<(), WorkerError> {
    let mut log = log.finish();
    let size = log.size();
    client
        .put(task::LOG, &mut log, size)
        .map_err(put_error(task::LOG))
}

/// Puts a manifest.
pub(crate) fn put_text(client: &Client, name: &str, text: &str) -> Result<(), WorkerError> {
    client
        .put(name, &mut Cursor::new(text), text.len() as u64)
        .map_err(put_error(name))
}

fn put_file(client: &Client, name: &str, path: &Path) -> Result<(), WorkerError> {
    let size = fs::metadata(path).map_err(WorkerError::disk(path))?.len();
    let mut file = File::open(path).map_err(WorkerError::disk(path))?;
    client.put(name, &mut file, size).map_err(put_error(name))
}

fn put_error(name: &str) -> impl FnOnce(ClientError) -> WorkerError {
    move |source| WorkerError::Put {
        name: name.to_owned(),
        source,
    }
}
