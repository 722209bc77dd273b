//! The start of a build's guest with auxiliary ones: these first, in a network for all of them.

use std::sync::Arc;

use guest::network::{LinkType, Network, Port};
use guest::{BootMode, Guest, Spec};
use sys::blocking::blocking;
use tftp::server::Namespace;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::guest::Found;
use super::processes::{end_all, peers};
use super::{AuxiliaryGroup, AuxiliaryGuests, AuxiliarySpec};
use crate::gateway::{Gateway, Offered, Servers};
use crate::parts::Parts;
use crate::start::{check_options, guest_spec};
use crate::streams::Streams;
use crate::teardown::{kill, remove_run_dir, tear_down};
use crate::{GuestServices, Session, SessionError, SessionSpec, StartError, egress};

impl Session {
    /// Starts the auxiliary guests of a build, and its own guest once each of them has put its
    /// environment. On failure nothing is left. A caller that is dropped meanwhile leaves the
    /// guests to the next agent's clean-up.
    ///
    /// # Errors
    /// When a part cannot be started, an auxiliary guest fails, or `cancel` is canceled.
    pub async fn start_together(
        services: &Arc<GuestServices>,
        spec: SessionSpec,
        group: AuxiliaryGroup,
        cancel: &CancellationToken,
    ) -> Result<Self, StartError> {
        check_options(services, &spec.machine)?;
        for auxiliary in &group.guests {
            check_options(services, &auxiliary.machine)?;
        }
        let run_dir = services.run_dir_of(&spec.tag);
        let (shared, guests) = (Arc::clone(services), group.guests);
        let opened = blocking(move || open(&shared, spec, guests)).await?;
        let (spec, network) = (opened.spec, opened.network);
        let gateway = Gateway::serve(services, opened.servers);
        let mut auxiliaries = AuxiliaryGuests::default();
        let ready = async {
            auxiliaries = AuxiliaryGuests::register(services, opened.auxiliaries)
                .await
                .map_err(SessionError::from)?;
            let gateway = gateway.map_err(SessionError::from)?;
            auxiliaries.ready(cancel).await?;
            (group.complete)()?;
            Ok::<_, StartError>(gateway)
        };
        let gateway = match ready.await {
            Ok(gateway) => gateway,
            Err(error) => {
                auxiliaries.end().await;
                blocking(move || tear_down(&network, &run_dir)).await;
                return Err(error);
            }
        };
        info!("all auxiliary guests are ready");
        let shared = Arc::clone(services);
        match blocking(move || start_build(&shared, spec, network)).await {
            Ok(parts) => {
                let session = Self::assemble_at(services, parts, Ok(gateway), auxiliaries);
                Ok(session.await?)
            }
            Err(failed) => {
                let (error, network) = *failed;
                auxiliaries.end().await;
                drop(gateway);
                blocking(move || tear_down(&network, &run_dir)).await;
                Err(error.into())
            }
        }
    }
}

/// The network with the auxiliary guests, before the build's guest starts.
struct Opened {
    spec: SessionSpec,
    network: Network,
    servers: Servers,
    auxiliaries: Vec<Found>,
}

/// Opens the network and its servers, and starts the auxiliary guests. On failure nothing is left.
/// Blocks.
fn open(
    services: &GuestServices,
    mut spec: SessionSpec,
    auxiliaries: Vec<AuxiliarySpec>,
) -> Result<Opened, SessionError> {
    let run_dir = services.run_dir_of(&spec.tag);
    sys::file::private_directory(&run_dir)?;
    let kinds = auxiliaries.iter().map(|it| it.machine.kind);
    let links = std::iter::once(spec.machine.kind).chain(kinds);
    let links: Vec<LinkType> = links.map(Into::into).collect();
    let network = Network::create_shared(&services.network_name(&spec.tag), &links)
        .inspect_err(|_| remove_run_dir(&run_dir))?;
    let mut found = Vec::new();
    match open_in(services, &mut spec, auxiliaries, &network, &mut found) {
        Ok(servers) => Ok(Opened {
            spec,
            network,
            servers,
            auxiliaries: found,
        }),
        Err(error) => {
            end_all(&found);
            tear_down(&network, &run_dir);
            Err(error)
        }
    }
}

/// Opens the servers in the network, and starts the auxiliary guests. Those that run are in `found`.
fn open_in(
    services: &GuestServices,
    spec: &mut SessionSpec,
    auxiliaries: Vec<AuxiliarySpec>,
    network: &Network,
    found: &mut Vec<Found>,
) -> Result<Servers, SessionError> {
    let run_dir = services.run_dir_of(&spec.tag);
    let settings = services.settings.get();
    let names = egress::open(&settings.guests, &spec.machine.egress, network, &run_dir)?;
    let offered = Offered {
        files: std::mem::replace(&mut spec.files, Namespace::new(0, 0)),
        cache: spec.cache.take(),
        hashserv: spec.hashserv.take(),
        commands: spec.commands.take(),
    };
    let (mut described, mut starts) = (Vec::new(), Vec::new());
    for auxiliary in auxiliaries {
        described.push(auxiliary.guest);
        starts.push((auxiliary.snapshot, auxiliary.machine, auxiliary.start_limit));
    }
    let (peers, unfound) = peers(described)?;
    let servers = Servers::open(network, spec.machine.kind, names, offered, peers)?;
    for (auxiliary, (snapshot, machine, start_limit)) in unfound.into_iter().zip(starts) {
        let tag = auxiliary.tag.to_string();
        let run_dir = services.run_dir_of(&tag);
        sys::file::private_directory(&run_dir)?;
        services.metrics.start(false);
        let spec = guest_spec(services, &snapshot, machine, network, &run_dir);
        let started = spec.and_then(|spec| {
            let spec = Spec {
                name: services.network_name(&tag),
                port: Some(auxiliary.port),
                ..spec
            };
            Ok(Guest::start(spec)?)
        });
        let guest = started.inspect_err(|_| remove_run_dir(&run_dir))?;
        found.push(auxiliary.found(guest, run_dir, start_limit));
    }
    Ok(servers)
}

/// Starts the guest of the build. Returns the network on failure. Blocks.
fn start_build(
    services: &GuestServices,
    spec: SessionSpec,
    network: Network,
) -> Result<Parts, Box<(SessionError, Network)>> {
    let run_dir = services.run_dir_of(&spec.tag);
    services.metrics.start(spec.boot == BootMode::Restore);
    spec.secrets.set_run_dir(&run_dir);
    let machine = spec.snapshot.machine().clone();
    let described = guest_spec(services, &spec.snapshot, spec.machine, &network, &run_dir);
    let started = described.and_then(|guest| {
        let guest = Guest::start(Spec {
            durable: spec.durable,
            boot: spec.boot,
            shared_memory: spec.shared_memory,
            port: Some(Port::BUILD),
            ..guest
        })?;
        let streams = Streams::connect(&guest).inspect_err(|_| kill(&guest))?;
        Ok((guest, streams))
    });
    match started {
        Ok((guest, streams)) => Ok(Parts {
            guest,
            network,
            streams,
            boot: spec.boot,
            preload: spec.preload,
            fork: None,
            capture: spec.capture,
            secrets: spec.secrets,
            tag: spec.tag,
            machine,
            run_dir,
        }),
        Err(error) => Err(Box::new((error, network))),
    }
}
