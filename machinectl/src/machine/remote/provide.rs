//! The sending end of `pull`.

use std::io;

use config::MachineName;
use store::send::session::{self, Reply, Request};
use store::stream::StreamError;
use store::{StoreError, Volume};

use super::greet;
use crate::exit_code::Failure;

/// Describes the machine, and sends the revision that the receiver then requests.
pub(super) fn run(volume: &Volume, name: &MachineName) -> Result<(), Failure> {
    let Some((request, _)) = greet::<Request>(volume, name)? else {
        return Ok(());
    };
    let (revision, known) = (request.revision, &request.known);
    let measured = request
        .measures
        .then(|| volume.estimate_size(name, Some(revision), known));
    let bytes = measured.and_then(Result::ok);
    let reply = |continues| {
        let reply = Reply::new(bytes, continues);
        let written = session::write_line(&mut io::stdout().lock(), &reply);
        written
            .map_err(StreamError::Write)
            .map_err(StoreError::from)
    };
    if !request.streams {
        return Ok(reply(false)?);
    }
    let (version, partial) = (request.stream_version, request.partial.as_ref());
    let (outgoing, continues) = volume.send_rest(version, name, revision, known, partial)?;
    reply(continues)?;
    outgoing.copy_to(io::stdout().lock())?;
    Ok(())
}
