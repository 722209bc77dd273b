//! One transfer from its request to its end.

use std::sync::Arc;

use config::printable;
use tftpd::ErrorCode;

use super::request::{Direction, Refusal, Request};
use super::staging::StagedFile;
use super::transport::{Phase, TransferError, Transport};
use super::{Event, Shared, receive, send};

/// Runs a transfer on the calling thread until it is over.
pub(super) fn run(mut transport: Transport, request: &Request, shared: &Arc<Shared>) {
    let result = match request.direction {
        Direction::Fetch => fetch(&mut transport, request, shared),
        Direction::Put => put(&mut transport, request, shared),
    };
    if let Err(TransferError::Refused(refusal)) = &result {
        // First, because the client may end its guest when it has the refusal.
        shared.report_refusal(&request.name, refusal);
        transport.send_refusal(refusal);
    }
    if let Err(error) = result {
        tracing::debug!(name = %printable(&request.name), ?error, "a transfer failed");
    }
    transport.phase.set(Phase::Finished);
}

fn fetch(
    transport: &mut Transport,
    request: &Request,
    shared: &Shared,
) -> Result<(), TransferError> {
    let offer = shared.namespace.offered(&request.name)?;
    let size = offer.size()?;
    send::send(transport, &offer, size, &request.negotiate(Some(size)))?;
    shared.report_fetched(&request.name, size);
    Ok(())
}

fn put(transport: &mut Transport, request: &Request, shared: &Shared) -> Result<(), TransferError> {
    let destination = shared.namespace.destination(&request.name)?;
    let path = destination.path.clone();
    let announced = request.options.transfer_size;
    let quota = shared.quotas.of(destination.share);
    let mut staged = StagedFile::create(&request.name, destination, announced, quota)?;
    let last = receive::receive(transport, &request.negotiate(None), &mut staged)?;
    let bytes = staged.bytes;
    check_size(announced, bytes)?;
    staged.sync()?;
    shared
        .unless_stopped(|| staged.publish())
        .ok_or_else(|| Refusal::new(ErrorCode::NotDefined, "the server is closed"))??;
    shared.refused_puts().remove(&request.name);
    shared.report(Event::Put {
        name: request.name.clone(),
        path,
        bytes,
    });
    receive::dally(transport, last)
}

/// Compares the size of a file with the announced one, because a client may leave out a block
/// after packet loss. curl announces 0 when it does not know the size.
fn check_size(announced: Option<u64>, bytes: u64) -> Result<(), Refusal> {
    match announced {
        Some(size) if size != 0 && size != bytes => Err(Refusal::new(
            ErrorCode::NotDefined,
            "the size of the file is not the announced one",
        )),
        _ => Ok(()),
    }
}
