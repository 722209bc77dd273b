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
/// reported outcome. An artifact that the host refuses makes the result an error, and the others
/// are put nevertheless; one that does not arrive makes it abnormal. A log that does not arrive
/// is mentioned in the result.
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
        match put_file(client, &name, &artifact.path) {
            Ok(()) => {}
            Err(error) if error.is_refusal() => {
                let refused = chain(&error);
                log.line(&refused);
                if result.status.is_good() {
                    result = TaskResult::new(Outcome::Error);
                }
                add_line(&mut result.message, &refused);
            }
            Err(error) => {
                result = failure(&error);
                log.line(&result.message);
                break;
            }
        }
    }
    log.line(&format!("the result is: {}", result.status));
    let mask = log.mask();
    if let Err(error) = put_log(client, log) {
        let lost = format!("the log is lost: {}", chain(&error));
        add_line(&mut result.message, &lost);
    }
    put_text(client, result_name, &mask.text(&result.print()))?;
    Ok(result.status)
}

/// Returns the result for a failure: an error if it would happen again in an equal guest,
/// otherwise abnormal.
pub fn failure(error: &WorkerError) -> TaskResult {
    TaskResult {
        status: if error.is_guests_fault() {
            Outcome::Error
        } else {
            Outcome::Abnormal
        },
        message: chain(error),
        packages: Vec::new(),
    }
}

fn add_line(message: &mut String, line: &str) {
    if !message.is_empty() {
        message.push('\n');
    }
    message.push_str(line);
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
