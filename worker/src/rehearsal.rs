//! The rehearsal of a build's start, in a guest that is made ready before its build is known.
//!
//! What runs for the first time is slow: its pages are loaded from the checkpoint, and an emulated
//! processor translates it. The rehearsal leaves nothing behind.

use std::time::Duration;

use config::task;
use sys::command;
use tftp::client::{Client, Timeouts};

/// The limits of the transfer. The host serves the file before it asks for the rehearsal.
const TIMEOUTS: Timeouts = Timeouts {
    idle: Duration::from_secs(2),
    total: Duration::from_secs(2),
};
/// The time for the program.
const PROGRAM_LIMIT: Duration = Duration::from_secs(2);

/// Fetches a file of the host and runs a program. Failures have no consequence: the start of the
/// build is slower then.
pub(crate) fn run(client: &Client) {
    let client = Client::new(client.server(), TIMEOUTS);
    let _ = client.get(task::REHEARSAL, &mut Vec::new());
    let mut shell = command::prepare("/bin/sh");
    shell.args(["-c", ":"]);
    let _ = command::run(shell, PROGRAM_LIMIT);
}
