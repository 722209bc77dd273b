//! The sending end of a fetch.

use std::io::Write;

use config::MachineName;

use super::session::{self, DECISION_TIMEOUT, Greeting, Reply, Request};
use crate::{Result, StoreError, Volume};
use btrfs::stream::{StreamError, TimeoutReader};

/// Describes a machine to the receiver at the other end, and sends the revision that it then requests.
/// One that requests nothing gets nothing.
///
/// # Errors
/// The revision cannot be sent, or the other end has gone.
pub fn provide(
    volume: &Volume,
    machine: &MachineName,
    input: TimeoutReader,
    output: &mut impl Write,
) -> Result<()> {
    let greeting = Greeting::of(volume, machine)?;
    session::write_line(output, &greeting).map_err(StreamError::Write)?;
    let mut input = input.with_timeout(DECISION_TIMEOUT);
    let request = session::read_line::<Request>(&mut input).map_err(StreamError::Read)?;
    let Some(request) = request else {
        return Ok(());
    };
    let (revision, known) = (request.revision, &request.known);
    let measured = request
        .measures
        .then(|| volume.estimate_size(machine, Some(revision), known));
    let bytes = measured.and_then(Result::ok);
    let reply = |output: &mut _, continues| {
        let reply = Reply::new(bytes, continues);
        session::write_line(output, &reply)
            .map_err(StreamError::Write)
            .map_err(StoreError::from)
    };
    if !request.streams {
        return reply(output, false);
    }
    let (version, partial) = (request.stream_version, request.partial.as_ref());
    let (outgoing, continues) = volume.send_rest(version, machine, revision, known, partial)?;
    reply(output, continues)?;
    outgoing.copy_to(output)?;
    Ok(())
}
