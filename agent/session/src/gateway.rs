//! The servers at a guest's gateway, its control port, and the capture of its output.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cache::CacheAccess;
use config::task::{ForkIdentity, Preload};
use guest::BootMode;
use guest::gateway::{Offers, Sockets, addresses, bind};
use guest::network::Network;
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::commands::{Commands, CommandsHandle, DrivenGuest};
use super::console::{Console, ConsoleHandle};
use super::handshake::{ControlPort, ControlRequest, HandshakeMode};
use super::idle_timeout::Activity;
use super::log_capture::{Capture, CaptureFiles};
use super::shutdown_report::ShutdownReport;
use super::streams::{self, ConsoleInput, Streams};
use super::{GuestSecrets, GuestServices, HashservAccess};
use crate::{hash_service, pr_service};

pub mod dhcp;
pub mod dns;

use dns::Names;

/// The port on which guests fetch and put files (RFC 1350).
pub(super) const TFTP_PORT: u16 = 69;
/// The time in which the output of a guest that has ended must be captured.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// The number of TFTP events that wait for the session.
const EVENTS_MAX: usize = 64;

/// The servers of a guest before they are registered with the runtime.
pub(super) struct Servers {
    sockets: Sockets,
    tftp: tftp::server::Server,
    events: mpsc::Receiver<tftp::server::Event>,
    activity: Activity,
    names: Names,
    cache: Option<CacheAccess>,
    hashserv: Option<HashservAccess>,
    commands: Option<DrivenGuest>,
    network_name: String,
}

/// The files of a guest, and its access to the servers that not every guest has.
pub(super) struct Offered {
    pub(super) files: tftp::server::Namespace,
    pub(super) cache: Option<CacheAccess>,
    pub(super) hashserv: Option<HashservAccess>,
    pub(super) commands: Option<DrivenGuest>,
}

impl Servers {
    /// Opens the sockets in the guest's network and starts the TFTP server. Blocks.
    pub(super) fn open(
        network: &Network,
        kind: config::machine::Kind,
        names: Names,
        offered: Offered,
        peers: Vec<tftp::server::Peer>,
    ) -> io::Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let activity = Activity::default();
        let reports = tftp::server::Reports {
            events: sender,
            observer: activity.observer(),
        };
        let addresses: Vec<SocketAddr> = addresses(TFTP_PORT).collect();
        let (sockets, tftp) = network.enter(|| {
            let (files, server) = (offered.files, tftp::server::Server::start_with_peers);
            let tftp = server(&addresses, files, reports, peers)?;
            let offers = Offers {
                cache: offered.cache.is_some(),
                hashserv: offered.hashserv.is_some(),
                commands: offered.commands.is_some(),
            };
            Ok((bind(kind, offers)?, tftp))
        })?;
        Ok(Self {
            sockets,
            tftp,
            events,
            activity,
            names,
            cache: offered.cache,
            hashserv: offered.hashserv,
            commands: offered.commands,
            network_name: network.name().to_owned(),
        })
    }
}

/// A guest's streams, and the use that is made of them.
pub(super) struct Attached {
    pub(super) streams: Streams,
    pub(super) boot: BootMode,
    /// The request to the worker if a checkpoint of the guest is to be saved.
    pub(super) preload: Preload,
    /// The identity of the guest after a fork.
    pub(super) fork: Option<ForkIdentity>,
    pub(super) files: CaptureFiles,
    pub(super) secrets: GuestSecrets,
}

/// The servers at a guest's gateway, its control port, and the capture of its output.
/// Dropping it ends all of them, and may wait for a file that is being put.
pub(super) struct Gateway {
    pub(super) tftp: tftp::server::Server,
    pub(super) events: mpsc::Receiver<tftp::server::Event>,
    /// The requests to the control port, if the guest has one.
    pub(super) control: Option<mpsc::Sender<ControlRequest>>,
    /// Reports that a guest of which a checkpoint is to be saved waits for its task.
    pub(super) ready: Option<oneshot::Receiver<()>>,
    pub(super) metrics: Arc<Metrics>,
    /// The activity that the idle timeout waits for.
    pub(super) activity: Activity,
    tasks: JoinSet<()>,
    /// The tasks that capture the guest's output.
    captures: JoinSet<()>,
    /// Ends the captures once they have nothing more to read.
    drain: CancellationToken,
    log_listener: Option<TcpListener>,
    secrets_listener: Option<TcpListener>,
    /// A driven guest, before its commands are served.
    driven: Option<(DrivenGuest, TcpListener)>,
    /// The entry of the commands of a driven guest.
    pub(super) commands: Option<CommandsHandle>,
    console: Option<ConsoleHandle>,
    pub(super) shutdown: ShutdownReport,
}

impl Gateway {
    /// Serves the sockets. Must be called in a tokio runtime.
    pub(super) fn serve(services: &GuestServices, servers: Servers) -> io::Result<Self> {
        let sockets = servers.sockets;
        let mut tasks = JoinSet::new();
        tasks.spawn(dhcp::serve(sockets.dhcp)?);
        tasks.spawn(dns::serve(sockets.dns, servers.names)?);
        let pr = pr_service::server_for_guest(
            services.bitbake.pr.clone(),
            &services.pr_settings,
            &servers.network_name,
        )
        .with_observer(servers.activity.observer());
        for listener in sockets.pr {
            let listener = tcp_listener(listener)?;
            let pr = pr.clone();
            tasks.spawn(async move {
                if let Err(error) = pr.serve(listener, std::future::pending()).await {
                    warn!(%error, "the PR service of a guest ended");
                }
            });
        }
        if let Some((access, listener)) = servers.cache.zip(sockets.cache) {
            let observer = servers.activity.observer();
            tasks.spawn(access.serve(tcp_listener(listener)?, observer));
        }
        let hashserv = services.bitbake.hashserv.clone();
        if let Some(((access, listener), service)) =
            servers.hashserv.zip(sockets.hashserv).zip(hashserv)
        {
            let server = hash_service::server_for_guest(service, access, &servers.network_name)
                .with_observer(servers.activity.observer());
            let listener = tcp_listener(listener)?;
            tasks.spawn(async move {
                if let Err(error) = server.serve(listener, std::future::pending()).await {
                    warn!(%error, "the hash equivalence service of a guest ended");
                }
            });
        }
        Ok(Self {
            tftp: servers.tftp,
            events: servers.events,
            control: None,
            ready: None,
            metrics: Arc::clone(&services.metrics),
            activity: servers.activity,
            tasks,
            captures: JoinSet::new(),
            drain: CancellationToken::new(),
            log_listener: sockets.log.map(tcp_listener).transpose()?,
            secrets_listener: sockets.secrets.map(tcp_listener).transpose()?,
            driven: servers
                .commands
                .zip(sockets.commands.map(tcp_listener).transpose()?),
            commands: None,
            console: None,
            shutdown: ShutdownReport::default(),
        })
    }

    /// Serves the control port and captures the output of a guest. `register` announces its
    /// console, `register_commands` the commands of a driven guest.
    pub(super) fn attach(
        &mut self,
        attached: Attached,
        register: impl FnOnce(Option<ConsoleInput>) -> ConsoleHandle,
        register_commands: impl FnOnce(Commands) -> CommandsHandle,
    ) -> io::Result<()> {
        let Attached {
            streams,
            boot,
            preload,
            fork,
            files,
            secrets,
        } = attached;
        let mask = secrets.mask();
        if let Some(control) = streams.control {
            let mode = self.handshake_mode(boot, preload);
            let control = streams::unix_stream(control)?;
            let (requests, receiver) = mpsc::channel(1);
            self.control = Some(requests);
            let port = ControlPort {
                mode,
                fork,
                observer: self.activity.observer(),
                requests: receiver,
                secrets: secrets.clone(),
            };
            self.tasks.spawn(port.serve(control));
        }
        if let Some((guest, listener)) = self.driven.take() {
            let observer = self.activity.observer();
            let (commands, accept) = Commands::open(guest, listener, secrets.mask(), observer);
            self.commands = Some(register_commands(commands));
            self.tasks.spawn(accept);
        }
        if let Some(listener) = self.secrets_listener.take().filter(|_| !secrets.is_empty()) {
            let observer = self.activity.observer();
            self.tasks.spawn(secrets.serve(listener, observer));
        }
        if let Some(events) = streams.events {
            let events = streams::unix_stream(events)?;
            self.tasks.spawn(self.shutdown.clone().follow(events));
        }
        let bytes_max = files.bytes_max;
        if let Some(console) = streams.console {
            let (output, input) = streams::console(console)?;
            let handle = register(input);
            let show = self.on_console_output(handle.console());
            self.console = Some(handle);
            let capture = Capture::new(files.console, bytes_max, self.drain.clone());
            let capture = capture.with_mask(mask.clone());
            self.captures.spawn(capture.stream(output, show));
        }
        let activity = self.activity.clone();
        let on_log = move |_: &[u8]| activity.record();
        let capture = Capture::new(files.log, bytes_max, self.drain.clone());
        let capture = capture.with_times(files.log_times).with_mask(mask);
        if let Some(log) = streams.log {
            let log = streams::unix_stream(log)?;
            self.captures.spawn(capture.stream(log, on_log));
        } else if let Some(listener) = self.log_listener.take() {
            self.captures.spawn(capture.connections(listener, on_log));
        }
        Ok(())
    }

    /// Waits until all output of a guest that has ended is captured.
    pub(super) async fn drain(&mut self) {
        self.drain.cancel();
        let captured = async { while self.captures.join_next().await.is_some() {} };
        if timeout(DRAIN_LIMIT, captured).await.is_err() {
            warn!("the output of a guest that has ended does not end");
        }
    }

    /// Returns the guest's console, if it has one.
    pub(super) fn console(&self) -> Option<Console> {
        self.console.as_ref().map(ConsoleHandle::console)
    }

    fn handshake_mode(&mut self, boot: BootMode, preload: Preload) -> HandshakeMode {
        match boot {
            BootMode::Cold => HandshakeMode::Cold,
            BootMode::Restore => HandshakeMode::Restore,
            BootMode::CheckpointSource => {
                let (sender, ready) = oneshot::channel();
                self.ready = Some(ready);
                HandshakeMode::CheckpointSource(preload, sender)
            }
        }
    }

    fn on_console_output(&self, console: Console) -> impl FnMut(&[u8]) + Send + use<> {
        let activity = self.activity.clone();
        move |piece| {
            activity.record();
            console.show(piece);
        }
    }

    /// Resolves once, when the guest waits for its task and a checkpoint of it is to be
    /// saved. Cancel-safe.
    pub(super) async fn ready(ready: &mut Option<oneshot::Receiver<()>>) {
        let is_ready = match ready {
            Some(receiver) => receiver.await.is_ok(),
            None => false,
        };
        *ready = None;
        if !is_ready {
            std::future::pending::<()>().await;
        }
    }
}

fn tcp_listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
