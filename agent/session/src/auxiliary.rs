//! The auxiliary guests of a session: they boot before the build's guest, in the same network, and
//! all of them end with it. The end of one of them ends the session.

mod guest;
pub(super) mod processes;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::AuxiliaryTag;
use config::auxiliary::AuxiliaryMachine;
use config::machine::Machine;
use futures_util::future::{select_all, try_join_all};
use store::Snapshot;
use tokio_util::sync::CancellationToken;

use super::{GuestFailure, GuestServices};
use guest::AuxiliaryGuest;
pub(super) use guest::Found;
use processes::end_unregistered;

/// The auxiliary guest to start.
pub struct AuxiliarySpec {
    /// The guest without the means to start it.
    pub guest: AdoptAuxiliary,
    /// The snapshot that it boots from.
    pub snapshot: Arc<Snapshot>,
    /// Its machine's manifest.
    pub machine: Machine,
    /// The time in which it must put its environment.
    pub start_limit: Duration,
}

/// The auxiliary guest of an earlier agent to adopt.
pub struct AdoptAuxiliary {
    /// Its short name on this host.
    pub tag: AuxiliaryTag,
    /// Its machine, and the name of its environment.
    pub auxiliary: AuxiliaryMachine,
    /// The files that it may fetch and put.
    pub files: tftp::server::Namespace,
    /// The file that receives the output of its console.
    pub console: PathBuf,
    /// The maximum size of that file.
    pub bytes_max: u64,
}

/// The auxiliary guests to start.
pub struct AuxiliaryGroup {
    /// The guests.
    pub guests: Vec<AuxiliarySpec>,
    /// Completes the task of the build when each guest has put its environment.
    pub complete: Box<dyn FnOnce() -> Result<(), GuestFailure> + Send>,
}

/// Returns the name of an auxiliary machine for messages.
pub fn shown(auxiliary: &AuxiliaryMachine) -> String {
    let machine = &auxiliary.machine;
    match &auxiliary.environment {
        Some(environment) => format!("{machine} ({environment})"),
        None => machine.to_string(),
    }
}

/// The auxiliary guests of a session. Dropping it leaves them running.
#[derive(Debug, Default)]
pub(super) struct AuxiliaryGuests(Vec<AuxiliaryGuest>);

impl AuxiliaryGuests {
    /// Registers guests with the runtime. Ends all of them on failure.
    pub(super) async fn register(
        services: &GuestServices,
        found: Vec<Found>,
    ) -> std::io::Result<Self> {
        let mut guests = Self::default();
        let mut failure = None;
        for found in found {
            match AuxiliaryGuest::register(services, found) {
                Ok(guest) => guests.0.push(guest),
                Err((error, found)) => {
                    end_unregistered(found).await;
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            None => Ok(guests),
            Some(error) => {
                guests.end().await;
                Err(error)
            }
        }
    }

    /// Waits until each guest has put its environment.
    pub(super) async fn ready(&mut self, cancel: &CancellationToken) -> Result<(), GuestFailure> {
        let all = try_join_all(self.0.iter_mut().map(AuxiliaryGuest::ready));
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(GuestFailure::Cancelled),
            ready = all => ready.map(drop),
        }
    }

    /// Waits until one of the guests has ended. Cancel-safe.
    pub(super) async fn failure(&self) -> GuestFailure {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
        let ends = self.0.iter().map(|guest| Box::pin(guest.exited()));
        let (exit, index, _) = select_all(ends).await;
        self.0[index].failure(exit).await
    }

    /// Ends the guests, and captures the rest of their output.
    pub(super) async fn end(&mut self) {
        for guest in self.0.drain(..) {
            guest.end().await;
        }
    }
}
