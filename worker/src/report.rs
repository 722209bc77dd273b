//! Tells the host what came of it: files, then the log, then the result.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use config::names::FileName;
use config::task::{self, Outcome, TaskResult};

use crate::WorkerError;
use crate::log::Log;
use tftp::client::Client;

/// A file to be put below [`task::ARTIFACTS`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artifact {
    /// Its name there.
    pub name: FileName,
    /// Where it lies here.
    pub path: PathBuf,
}

/// Puts the artifacts, the log and, last, the result under the name `last`. An
/// artifact that does not arrive makes the result abnormal; a log that does not
/// arrive is only spoken of. Returns the outcome that the host was told.
///
/// # Errors
/// The host does not know the result.
pub fn report(
    client: &Client,
    artifacts: &[Artifact],
    mut log: Log,
    mut result: TaskResult,
    last: &str,
) -> Result<Outcome, WorkerError> {
    for artifact in artifacts {
        let name = format!("{}{}", task::ARTIFACTS, artifact.name);
        if let Err(error) = put_file(client, &name, &artifact.path) {
            result = abnormal(&error);
            log.say(&result.message);
            break;
        }
    }
    log.say(&format!("the result is: {}", result.status));
    if let Err(error) = put_log(client, log) {
        let words = format!("the log is lost: {}", crate::chain(&error));
        result.message = match result.message.as_str() {
            "" => words,
            message => format!("{message}\n{words}"),
        };
    }
    let text = result.print();
    let size = text.len() as u64;
    let put = client.put(last, &mut Cursor::new(&text), size);
    put.map_err(|source| WorkerError::Put {
        name: last.to_owned(),
        source,
    })?;
    Ok(result.status)
}

/// The result when the worker could not do its part.
pub fn abnormal(error: &WorkerError) -> TaskResult {
    TaskResult {
        status: Outcome::Abnormal,
        message: crate::chain(error),
        packages: Vec::new(),
    }
}

fn put_log(client: &Client, log: Log) -> Result<(), WorkerError> {
    let ended = log.end()?;
    put_file(client, task::LOG, &ended.path)
}

fn put_file(client: &Client, name: &str, path: &Path) -> Result<(), WorkerError> {
    let size = fs::metadata(path).map_err(WorkerError::disk(path))?.len();
    let mut file = File::open(path).map_err(WorkerError::disk(path))?;
    let put = client.put(name, &mut file, size);
    put.map_err(|source| WorkerError::Put {
        name: name.to_owned(),
        source,
    })
}
