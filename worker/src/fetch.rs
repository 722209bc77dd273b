//! Fetches a file of the toolchain, for machines without a TFTP client.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use tftp::client::{Client, Timeouts};

use crate::WorkerError;

/// The limits of the transfer. The host may not answer at once.
pub const TIMEOUTS: Timeouts = Timeouts {
    idle: Duration::from_mins(2),
    total: Duration::from_mins(30),
};

/// Fetches the file `name` to a path, which it replaces.
///
/// # Errors
/// The file was not received as a whole. The path is not left with a part of it.
pub fn run(client: &Client, name: &str, path: &Path) -> Result<(), WorkerError> {
    let mut file = File::create(path).map_err(WorkerError::disk(path))?;
    let fetched = client.get(name, &mut file);
    fetched.map(drop).map_err(|source| {
        // The transfer's error is the one to report.
        let _ = fs::remove_file(path);
        WorkerError::Fetch {
            name: name.to_owned(),
            source,
        }
    })
}
