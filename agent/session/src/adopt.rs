//! Adopts guests of an earlier agent.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::task::Preload;
use guest::network::Network;
use guest::{BootMode, Guest, QmpError};
use sys::blocking::blocking;
use tftp::server::Peer;
use tokio::time::Instant;
use tracing::warn;

use super::auxiliary::processes::{end_all, find, peers};
use super::auxiliary::{AuxiliaryGuests, Found};
use super::gateway::{Gateway, Offered, Servers};
use super::parts::Parts;
use super::streams::Streams;
use super::teardown::{kill, remove_run_dir, tear_down};
use super::{AdoptSpec, GuestServices, Session, SessionError, egress};

impl Session {
    /// Adopts a guest that an earlier agent started. A guest that cannot be adopted is ended.
    ///
    /// # Errors
    /// When the guest has ended, or a part of the session fails.
    pub async fn adopt(
        services: &Arc<GuestServices>,
        spec: AdoptSpec,
    ) -> Result<Self, SessionError> {
        let (elapsed, contacted) = (spec.elapsed, spec.contacted);
        let shared = Arc::clone(services);
        let (parts, servers, found) = blocking(move || open_parts(&shared, spec)).await?;
        let (auxiliaries, gateway) = match AuxiliaryGuests::register(services, found).await {
            Ok(auxiliaries) => (auxiliaries, Gateway::serve(services, servers)),
            Err(error) => (AuxiliaryGuests::default(), Err(error)),
        };
        let mut session = Self::assemble_at(services, parts, gateway, auxiliaries).await?;
        session.continue_from(elapsed, contacted);
        Ok(session)
    }

    /// Continues the time of a guest that has run for `elapsed`.
    pub(super) fn continue_from(&mut self, elapsed: Duration, contacted: bool) {
        let started = Instant::now().checked_sub(elapsed);
        self.started = started.unwrap_or(self.started);
        self.contacted = contacted;
    }
}

/// Finds the guest and opens the servers that it needs. Blocks.
fn open_parts(
    services: &GuestServices,
    spec: AdoptSpec,
) -> Result<(Parts, Servers, Vec<Found>), SessionError> {
    let run_dir = services.run_dir_of(&spec.tag);
    let guest = Guest::find(&run_dir)?.ok_or(SessionError::Gone)?;
    let network = Network::open(&services.network_name(&spec.tag)).inspect_err(|_| {
        kill(&guest);
        remove_run_dir(&run_dir);
    })?;
    let ended = |_: &SessionError| {
        kill(&guest);
        tear_down(&network, &run_dir);
    };
    let (peers, unfound) = peers(spec.auxiliaries).inspect_err(ended)?;
    let found = find(services, unfound).inspect_err(ended)?;
    let offered = Offered {
        files: spec.files,
        cache: spec.cache,
        hashserv: spec.hashserv,
        commands: spec.commands,
    };
    let opened = serve(services, &guest, &network, &run_dir, offered, peers);
    let servers = opened.inspect_err(|error| {
        end_all(&found);
        ended(error);
    })?;
    spec.secrets.set_run_dir(&run_dir);
    let parts = Parts {
        streams: connect(&guest),
        guest,
        network,
        // A restored guest repeats that it is ready, as one that booted.
        boot: BootMode::Cold,
        preload: Preload::default(),
        fork: spec.fork,
        capture: spec.capture,
        secrets: spec.secrets,
        tag: spec.tag,
        machine: spec.machine,
        run_dir,
    };
    Ok((parts, servers, found))
}

/// Opens the servers of the guest, and lets its processors run.
fn serve(
    services: &GuestServices,
    guest: &Guest,
    network: &Network,
    run_dir: &Path,
    offered: Offered,
    peers: Vec<Peer>,
) -> Result<Servers, SessionError> {
    let names = egress::reopen(&services.settings.get().guests, network, run_dir)?;
    let servers = Servers::open(network, guest.kind(), names, offered, peers)?;
    // The processors are stopped if the earlier agent died before it let them run.
    match guest.resume() {
        Ok(()) => {}
        Err(error @ QmpError::State(_)) => return Err(error.into()),
        // The limits of the session end a guest that does not answer.
        Err(error) => warn!(
            error = &error as &dyn Error,
            "an adopted guest does not answer"
        ),
    }
    Ok(servers)
}

/// Connects to the streams of an adopted guest, which can finish its work without them.
fn connect(guest: &Guest) -> Streams {
    Streams::connect(guest).unwrap_or_else(|error| {
        warn!(%error, "cannot capture the output of an adopted guest");
        Streams::default()
    })
}
