//! Adopts guests of an earlier agent.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::task::Preload;
use guest::network::Network;
use guest::{BootMode, Guest, QmpError};
use sys::blocking::blocking;
use tokio::time::Instant;
use tracing::warn;

use super::gateway::{Offered, Servers};
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
        let parts = blocking(move || open_parts(&shared, spec)).await?;
        let mut session = Self::assemble(services, parts).await?;
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
fn open_parts(services: &GuestServices, spec: AdoptSpec) -> Result<Parts, SessionError> {
    let run_dir = services.run_dir_of(&spec.tag);
    let guest = Guest::find(&run_dir)?.ok_or(SessionError::Gone)?;
    let network = Network::open(&services.network_name(&spec.tag)).inspect_err(|_| {
        kill(&guest);
        remove_run_dir(&run_dir);
    })?;
    let offered = Offered {
        files: spec.files,
        cache: spec.cache,
        hashserv: spec.hashserv,
        commands: spec.commands,
    };
    let opened = serve(services, &guest, &network, &run_dir, offered);
    let servers = opened.inspect_err(|_| {
        kill(&guest);
        tear_down(&network, &run_dir);
    })?;
    spec.secrets.set_run_dir(&run_dir);
    Ok(Parts {
        streams: connect(&guest),
        guest,
        network,
        servers,
        // A restored guest repeats that it is ready, as one that booted.
        boot: BootMode::Cold,
        preload: Preload::default(),
        fork: spec.fork,
        capture: spec.capture,
        secrets: spec.secrets,
        tag: spec.tag,
        machine: spec.machine,
        run_dir,
    })
}

/// Opens the servers of the guest, and lets its processors run.
fn serve(
    services: &GuestServices,
    guest: &Guest,
    network: &Network,
    run_dir: &Path,
    offered: Offered,
) -> Result<Servers, SessionError> {
    let names = egress::reopen(&services.settings.get().guests, network, run_dir)?;
    let servers = Servers::open(network, guest.kind(), names, offered)?;
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
