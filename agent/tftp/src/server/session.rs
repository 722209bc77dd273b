//! One transfer from its request to its end.

use std::sync::Arc;

use tftpd::ErrorCode;

use super::link::{End, Link, Stage};
use super::request::{Direction, Refusal, Request};
use super::staging::Staging;
use super::{Event, Shared, receive, send};

/// Runs a transfer on the calling thread until it is over.
pub(super) fn run(mut link: Link, request: &Request, shared: &Arc<Shared>) {
    let ended = match request.direction {
        Direction::Fetch => fetch(&mut link, request, shared),
        Direction::Put => put(&mut link, request, shared),
    };
    if let Err(End::Refused(refusal)) = &ended {
        link.refuse(refusal);
        shared.tell_refusal(&request.name, &refusal.reason);
    }
    if let Err(end) = ended {
        tracing::debug!(name = request.name, ?end, "a transfer ended early");
    }
    link.stage.set(Stage::Over);
}

fn fetch(link: &mut Link, request: &Request, shared: &Shared) -> Result<(), End> {
    let offer = shared.map.find(&request.name)?;
    let size = offer.size()?;
    let agreed = request.wanted.agree(Some(size));
    send::send(link, &offer, size, &agreed)?;
    shared.tell_fetched(&request.name, size);
    Ok(())
}

fn put(link: &mut Link, request: &Request, shared: &Shared) -> Result<(), End> {
    let destination = shared.map.place(&request.name)?;
    let path = destination.path.clone();
    let told = request.wanted.size;
    let mut staging = Staging::begin(&request.name, destination, told, &shared.ledger)?;
    let agreed = request.wanted.agree(None);
    let last = receive::receive(link, &agreed, told, &mut staging)?;
    let bytes = staging.bytes;
    check_size(told, bytes)?;
    staging.sync()?;
    let over = || Refusal::new(ErrorCode::NotDefined, "the server is closed");
    shared
        .unless_ended(|| staging.publish())
        .ok_or_else(over)??;
    shared.tell(Event::Put {
        name: request.name.clone(),
        path,
        bytes,
    });
    receive::dally(link, last)
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
