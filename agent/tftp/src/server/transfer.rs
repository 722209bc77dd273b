//! One transfer from its request to its end.

use std::sync::Arc;

use tftpd::ErrorCode;

use super::request::{Direction, Refusal, Request};
use super::staging::StagedFile;
use super::transport::{Phase, TransferError, Transport};
use super::{Event, Shared, receive, send};

/// Runs a transfer on the calling thread until it is over.
pub(super) fn run(mut transport: Transport, request: &Request, shared: &Arc<Shared>) {
    let ended = match request.direction {
        Direction::Fetch => fetch(&mut transport, request, shared),
        Direction::Put => put(&mut transport, request, shared),
    };
    if let Err(TransferError::Refused(refusal)) = &ended {
        transport.refuse(refusal);
        shared.tell_refusal(&request.name, &refusal.reason);
    }
    if let Err(end) = ended {
        tracing::debug!(name = request.name, ?end, "a transfer ended early");
    }
    transport.phase.set(Phase::Finished);
}

fn fetch(
    transport: &mut Transport,
    request: &Request,
    shared: &Shared,
) -> Result<(), TransferError> {
    let offer = shared.namespace.find(&request.name)?;
    let size = offer.size()?;
    let agreed = request.wanted.agree(Some(size));
    send::send(transport, &offer, size, &agreed)?;
    shared.tell_fetched(&request.name, size);
    Ok(())
}

fn put(transport: &mut Transport, request: &Request, shared: &Shared) -> Result<(), TransferError> {
    let destination = shared.namespace.place(&request.name)?;
    let path = destination.path.clone();
    let told = request.wanted.size;
    let mut staged = StagedFile::begin(&request.name, destination, told, &shared.quota)?;
    let agreed = request.wanted.agree(None);
    let last = receive::receive(transport, &agreed, &mut staged)?;
    let bytes = staged.bytes;
    check_size(told, bytes)?;
    staged.sync()?;
    let over = || Refusal::new(ErrorCode::NotDefined, "the server is closed");
    shared
        .unless_ended(|| staged.publish())
        .ok_or_else(over)??;
    shared.tell(Event::Put {
        name: request.name.clone(),
        path,
        bytes,
    });
    receive::dally(transport, last)
}

/// A client that was misled by a bad line may leave a block out (curl does when it hears
/// a second OACK): what it said at first tells. When it knows no size, curl says 0.
fn check_size(told: Option<u64>, bytes: u64) -> Result<(), Refusal> {
    match told {
        Some(told) if told != 0 && told != bytes => Err(Refusal::new(
            ErrorCode::NotDefined,
            "the file has another size than was said",
        )),
        _ => Ok(()),
    }
}
