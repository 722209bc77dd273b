//! Auxiliary guests before they are registered with the runtime: their files at the TFTP server, and
//! the processes that an earlier agent started. Blocks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::AuxiliaryTag;
use config::auxiliary::AuxiliaryMachine;
use guest::Guest;
use guest::network::Port;
use sys::blocking::blocking;
use sys::observer::Observer;
use tftp::server::{Event, Peer, Reports};
use tokio::sync::mpsc;

use super::guest::Found;
use super::{AdoptAuxiliary, shown};
use crate::teardown::{kill, remove_run_dir};
use crate::{GuestServices, SessionError};

/// The number of events of an auxiliary guest that wait for the session.
const EVENTS_MAX: usize = 64;

/// An auxiliary guest whose files are served, and whose process is not known yet.
pub(crate) struct Unfound {
    pub(crate) tag: AuxiliaryTag,
    pub(crate) port: Port,
    auxiliary: AuxiliaryMachine,
    console: (PathBuf, u64),
    events: mpsc::Receiver<Event>,
}

impl Unfound {
    pub(crate) fn found(self, guest: Guest, run_dir: PathBuf, start_limit: Duration) -> Found {
        Found {
            guest,
            run_dir,
            tag: self.tag,
            auxiliary: self.auxiliary,
            console: self.console,
            events: self.events,
            start_limit,
        }
    }
}

/// Returns the peers of the build's guest at the TFTP server, and the guests without their files.
pub(crate) fn peers(
    auxiliaries: Vec<AdoptAuxiliary>,
) -> Result<(Vec<Peer>, Vec<Unfound>), SessionError> {
    let (mut peers, mut unfound) = (Vec::new(), Vec::new());
    for auxiliary in auxiliaries {
        let port = Port::auxiliary(auxiliary.tag.number);
        let port = port.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        peers.push(Peer {
            address: port.address().into(),
            namespace: auxiliary.files,
            reports: Reports {
                events: sender,
                observer: Observer::default(),
            },
        });
        unfound.push(Unfound {
            tag: auxiliary.tag,
            port,
            auxiliary: auxiliary.auxiliary,
            console: (auxiliary.console, auxiliary.bytes_max),
            events,
        });
    }
    Ok((peers, unfound))
}

/// Finds the auxiliary guests of an earlier agent: all of them, or none. Those that are found without
/// the others are ended.
pub(crate) fn find(
    services: &GuestServices,
    auxiliaries: Vec<Unfound>,
) -> Result<Vec<Found>, SessionError> {
    let mut found: Vec<Found> = Vec::new();
    let mut failure = None;
    for mut auxiliary in auxiliaries {
        let run_dir = services.run_dir_of(&auxiliary.tag.to_string());
        match Guest::find(&run_dir) {
            Ok(Some(guest)) => {
                // It has put its environment.
                auxiliary.events.close();
                found.push(auxiliary.found(guest, run_dir, Duration::MAX));
            }
            Ok(None) => {
                let name = shown(&auxiliary.auxiliary);
                failure.get_or_insert(SessionError::AuxiliaryGone(name));
                if run_dir.exists() {
                    remove_run_dir(&run_dir);
                }
            }
            Err(error) => {
                failure.get_or_insert(error.into());
            }
        }
    }
    let Some(error) = failure else {
        return Ok(found);
    };
    end_all(&found);
    Err(error)
}

/// Ends guests that were found.
pub(crate) fn end_all(found: &[Found]) {
    for auxiliary in found {
        kill(&auxiliary.guest);
        remove_run_dir(&auxiliary.run_dir);
    }
}

/// Ends a guest that could not be registered.
pub(crate) async fn end_unregistered((guest, run_dir): (Arc<Guest>, PathBuf)) {
    blocking(move || {
        kill(&guest);
        remove_run_dir(&run_dir);
    })
    .await;
}
