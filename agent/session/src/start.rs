//! Starts guests.

use std::path::Path;
use std::sync::Arc;

use config::machine::Machine;
use guest::network::Network;
use guest::{BootMode, Guest, Spec};
use store::Snapshot;
use sys::blocking::blocking;

use super::gateway::{Offered, Servers};
use super::parts::Parts;
use super::streams::Streams;
use super::teardown::{kill, tear_down};
use super::{GuestServices, Session, SessionError, SessionSpec, egress};

impl Session {
    /// Starts a guest with everything around it. On failure nothing is left. A caller that
    /// is dropped meanwhile leaves the guest to the next agent's clean-up.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn start(
        services: &Arc<GuestServices>,
        spec: SessionSpec,
    ) -> Result<Self, SessionError> {
        check_options(services, &spec.machine)?;
        let shared = Arc::clone(services);
        let copy = spec.copy;
        let opened = blocking(move || open_parts(&shared, spec)).await?;
        let mut session = Self::assemble(services, opened).await?;
        if let Some(copy) = copy {
            // It need not ask for its task.
            session.continue_from(copy.elapsed, true);
        }
        Ok(session)
    }
}

/// Starts the guest and the servers that it needs. Blocks.
fn open_parts(
    services: &GuestServices,
    spec: SessionSpec,
) -> Result<(Parts, Servers), SessionError> {
    let run_dir = services.run_dir_of(&spec.tag);
    sys::file::private_directory(&run_dir)?;
    let link = spec.machine.kind.into();
    let network = Network::create(&services.network_name(&spec.tag), link)?;
    services.metrics.start(spec.boot == BootMode::Restore);
    let (tag, machine) = (spec.tag.clone(), spec.snapshot.machine().clone());
    let (boot, preload, capture) = (spec.boot, spec.preload, spec.capture.clone());
    let secrets = spec.secrets.clone();
    secrets.set_run_dir(&run_dir);
    let fork = spec.copy.map(|copy| copy.identity);
    let started = start_guest(services, spec, &network, &run_dir);
    let (guest, servers, streams) = started.inspect_err(|_| tear_down(&network, &run_dir))?;
    let parts = Parts {
        guest,
        network,
        streams,
        boot,
        preload,
        fork,
        capture,
        secrets,
        tag,
        machine,
        run_dir,
    };
    Ok((parts, servers))
}

/// Opens the servers in the guest's network, then starts the guest. On failure no process is
/// left.
fn start_guest(
    services: &GuestServices,
    spec: SessionSpec,
    network: &Network,
    run_dir: &Path,
) -> Result<(Guest, Servers, Streams), SessionError> {
    let names = egress::open(
        &services.settings.get().guests,
        &spec.machine.egress,
        network,
        run_dir,
    )?;
    let kind = spec.machine.kind;
    let offered = Offered {
        files: spec.files,
        cache: spec.cache,
        hashserv: spec.hashserv,
        commands: spec.commands,
    };
    let servers = Servers::open(network, kind, names, offered, Vec::new())?;
    let mut own = guest_spec(services, &spec.snapshot, spec.machine, network, run_dir)?;
    let guarded = spec.deadline.is_some();
    if let Some(deadline) = spec.deadline {
        // Before the guest, so that it never runs without one.
        let program = guard::program().map_err(guard::StartError::Program)?;
        own.keep_open
            .push(guard::start(&program, run_dir, deadline)?);
    }
    let guest = Guest::start(Spec {
        durable: spec.durable,
        boot: spec.boot,
        shared_memory: spec.shared_memory,
        ..own
    })?;
    if guarded && !matches!(guard::of_guest(run_dir), Ok(Some(_))) {
        // It ended before it could be seen that it leaves a guest.
        kill(&guest);
        return Err(guard::StartError::NotReady.into());
    }
    let streams = Streams::connect(&guest).inspect_err(|_| kill(&guest))?;
    Ok((guest, servers, streams))
}

/// Checks that the host allows the options that a machine brings.
pub(super) fn check_options(
    services: &GuestServices,
    machine: &Machine,
) -> Result<(), SessionError> {
    if machine.options.is_empty() || services.settings.get().guests.options_allowed {
        Ok(())
    } else {
        Err(SessionError::Options)
    }
}

/// Returns the description of a guest that boots cold, with a user of its own.
pub(super) fn guest_spec(
    services: &GuestServices,
    snapshot: &Snapshot,
    machine: Machine,
    network: &Network,
    run_dir: &Path,
) -> Result<Spec, SessionError> {
    let settings = &services.settings.get().guests;
    Ok(Spec {
        name: network.name().to_owned(),
        directory: snapshot.path().to_owned(),
        machine,
        user: services.uids.allocate(run_dir)?,
        run_dir: run_dir.to_owned(),
        network: network.name().to_owned(),
        port: None,
        acceleration: settings.acceleration,
        uefi: settings.uefi.clone(),
        durable: false,
        boot: BootMode::Cold,
        shared_memory: None,
        paused: false,
        keep_open: vec![snapshot.share_lock()?],
    })
}
