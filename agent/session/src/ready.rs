//! Ready guests: restored from a checkpoint and stopped while their worker waits for its task, until
//! a build takes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::GuestTag;
use config::machine::Machine;
use guest::network::{self, Network};
use guest::{BootMode, Guest, SealedMemory, Spec};
use store::Snapshot;
use sys::blocking::blocking;

use super::gateway::{Offered, Servers};
use super::parts::Parts;
use super::rehearsal::Rehearsal;
use super::start::{check_options, guest_spec};
use super::streams::Streams;
use super::teardown::{kill, remove_run_dir, tear_down};
use super::{GuestServices, Session, SessionError, SessionSpec, egress};

/// The ready guest to start.
pub struct ReadySpec<'s> {
    /// Its short name on this host, until a build takes it.
    pub tag: GuestTag,
    /// The snapshot with the checkpoint.
    pub snapshot: &'s Snapshot,
    /// Its machine's manifest.
    pub machine: Machine,
    /// The memory of its checkpoint, if that is shared with other guests.
    pub shared_memory: Option<SealedMemory>,
}

/// A guest that was restored, and is stopped until a build takes it. Dropping it leaves it on the host; use
/// [`ReadyGuest::discard`].
#[derive(Debug)]
pub struct ReadyGuest {
    guest: Guest,
    network: Network,
    machine: Machine,
    run_dir: PathBuf,
}

impl ReadyGuest {
    /// Starts a ready guest and lets its worker rehearse the start of a build. On failure nothing
    /// is left. Blocks for some seconds.
    ///
    /// # Errors
    /// When a part of the guest cannot be started, its checkpoint does not fit, or its worker does
    /// not answer.
    pub fn start(services: &GuestServices, spec: ReadySpec<'_>) -> Result<Self, SessionError> {
        check_options(services, &spec.machine)?;
        let tag = spec.tag.to_string();
        let run_dir = services.run_dir_of(&tag);
        sys::file::private_directory(&run_dir)?;
        let machine = spec.machine.clone();
        let link = machine.kind.into();
        let network = Network::create(&services.network_name(&tag), link)
            .inspect_err(|_| remove_run_dir(&run_dir))?;
        match start_guest(services, spec, &network, &run_dir) {
            Ok(guest) => Ok(Self {
                guest,
                network,
                machine,
                run_dir,
            }),
            Err(error) => {
                tear_down(&network, &run_dir);
                Err(error)
            }
        }
    }

    /// Returns true if its process still runs. Blocks.
    pub fn is_running(&self) -> bool {
        self.guest.wait(std::time::Duration::ZERO).is_none()
    }

    /// Ends the guest. Blocks.
    pub fn discard(self) {
        kill(&self.guest);
        tear_down(&self.network, &self.run_dir);
    }

    /// Gives the guest, its network and its directory the name of the build that takes it. On
    /// failure nothing is left.
    fn rename(self, services: &GuestServices, tag: &str) -> Result<Self, SessionError> {
        let name = services.network_name(tag);
        let (old_name, old_run_dir) = (self.network.name().to_owned(), self.run_dir);
        let run_dir = services.run_dir_of(tag);
        let pidfd = self.guest.pidfd().try_clone_to_owned()?;
        let renamed = (|| {
            let network = self.network.rename(&name)?;
            let guest = self.guest.rename(&name, &self.machine, &run_dir)?;
            Ok((guest, network))
        })();
        match renamed {
            Ok((guest, network)) => Ok(Self {
                guest,
                network,
                machine: self.machine,
                run_dir,
            }),
            Err(error) => {
                // Its names are unknown: each may be the old one or the new one.
                let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
                for (name, run_dir) in [(&old_name, &old_run_dir), (&name, &run_dir)] {
                    let _ = network::delete(name);
                    if run_dir.exists() {
                        remove_run_dir(run_dir);
                    }
                }
                Err(error)
            }
        }
    }
}

fn start_guest(
    services: &GuestServices,
    spec: ReadySpec<'_>,
    network: &Network,
    run_dir: &Path,
) -> Result<Guest, SessionError> {
    let rehearsal = Rehearsal::open(network)?;
    let guest = Guest::start(Spec {
        boot: BootMode::Restore,
        shared_memory: spec.shared_memory,
        ..guest_spec(services, spec.snapshot, spec.machine, network, run_dir)?
    })?;
    rehearsal.run(&guest).inspect_err(|_| kill(&guest))?;
    Ok(guest)
}

impl Session {
    /// Lets a ready guest run for a build, with everything around it. The guest must have been
    /// restored in the snapshot of `spec`. On failure nothing is left.
    ///
    /// # Errors
    /// When a part cannot be started.
    pub async fn take(
        services: &Arc<GuestServices>,
        ready: ReadyGuest,
        spec: SessionSpec,
    ) -> Result<Self, SessionError> {
        let shared = Arc::clone(services);
        let opened = blocking(move || open_parts(&shared, ready, spec)).await?;
        Self::assemble(services, opened).await
    }
}

/// Opens the servers of a ready guest and lets its processors run. Blocks.
fn open_parts(
    services: &GuestServices,
    ready: ReadyGuest,
    spec: SessionSpec,
) -> Result<(Parts, Servers), SessionError> {
    let ready = ready.rename(services, &spec.tag)?;
    services.metrics.start(true);
    let offered = Offered {
        files: spec.files,
        cache: spec.cache,
        hashserv: spec.hashserv,
        commands: spec.commands,
    };
    let opened = serve(services, &ready, offered);
    let (servers, streams) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            ready.discard();
            return Err(error);
        }
    };
    spec.secrets.set_run_dir(&ready.run_dir);
    let parts = Parts {
        guest: ready.guest,
        network: ready.network,
        streams,
        boot: BootMode::Restore,
        preload: spec.preload,
        fork: spec.copy.map(|copy| copy.identity),
        capture: spec.capture,
        secrets: spec.secrets,
        tag: spec.tag,
        machine: spec.snapshot.machine().clone(),
        run_dir: ready.run_dir,
    };
    Ok((parts, servers))
}

fn serve(
    services: &GuestServices,
    ready: &ReadyGuest,
    offered: Offered,
) -> Result<(Servers, Streams), SessionError> {
    let (machine, network) = (&ready.machine, &ready.network);
    let names = egress::open(
        &services.settings.get().guests,
        &machine.egress,
        network,
        &ready.run_dir,
    )?;
    let servers = Servers::open(network, machine.kind, names, offered, Vec::new())?;
    let streams = Streams::connect(&ready.guest)?;
    ready.guest.resume()?;
    Ok((servers, streams))
}
