//! The servers at a guest's gateway, its control port, and the capture of its output.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use guest::BootMode;
use guest::gateway::{Sockets, addresses, bind};
use guest::network::Network;
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use super::GuestServices;
use super::console::{Console, ConsoleHandle};
use super::handshake::{self, HandshakeMode};
use super::idle_timeout::IdleTimer;
use super::log_capture::{self, CaptureFiles};
use super::shutdown_report::ShutdownReport;
use super::streams::{self, ConsoleInput, Streams};
use crate::pr_service;

pub mod dhcp;
pub mod dns;

use dns::Names;

/// The port on which guests fetch and put files (RFC 1350).
const TFTP_PORT: u16 = 69;
/// The number of TFTP events that wait for the session.
const EVENTS_MAX: usize = 64;

/// The servers of a guest before they are registered with the runtime.
pub(super) struct Servers {
    sockets: Sockets,
    tftp: tftp::server::Server,
    events: mpsc::Receiver<tftp::server::Event>,
    names: Names,
    network_name: String,
}

impl Servers {
    /// Opens the sockets in the guest's network and starts the TFTP server. Blocks.
    pub(super) fn open(
        network: &Network,
        kind: config::machine::Kind,
        files: tftp::server::Namespace,
        names: Names,
    ) -> io::Result<Self> {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let addresses: Vec<SocketAddr> = addresses(TFTP_PORT).collect();
        let (sockets, tftp) = network.enter(|| {
            let tftp = tftp::server::Server::start(&addresses, files, sender)?;
            Ok((bind(kind)?, tftp))
        })?;
        Ok(Self {
            sockets,
            tftp,
            events,
            names,
            network_name: network.name().to_owned(),
        })
    }
}

/// The servers at a guest's gateway, its control port, and the capture of its output.
/// Dropping it ends all of them, and may wait for a file that is being put.
pub(super) struct Gateway {
    pub(super) tftp: tftp::server::Server,
    pub(super) events: mpsc::Receiver<tftp::server::Event>,
    /// Reports that a guest of which a checkpoint is to be saved waits for its task.
    pub(super) ready: Option<oneshot::Receiver<()>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) idle: IdleTimer,
    tasks: JoinSet<()>,
    log_listener: Option<TcpListener>,
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
            services.prserv.clone(),
            &services.pr_settings,
            &servers.network_name,
        );
        for listener in sockets.pr {
            let listener = tcp_listener(listener)?;
            let pr = pr.clone();
            tasks.spawn(async move {
                if let Err(error) = pr.serve(listener, std::future::pending()).await {
                    warn!(%error, "the PR service of a guest ended");
                }
            });
        }
        Ok(Self {
            tftp: servers.tftp,
            events: servers.events,
            ready: None,
            metrics: Arc::clone(&services.metrics),
            idle: IdleTimer::default(),
            tasks,
            log_listener: sockets.log.map(tcp_listener).transpose()?,
            console: None,
            shutdown: ShutdownReport::default(),
        })
    }

    /// Serves the control port and captures the output of a guest. `register` announces its
    /// console.
    pub(super) fn attach(
        &mut self,
        streams: Streams,
        boot: BootMode,
        files: CaptureFiles,
        register: impl FnOnce(Option<ConsoleInput>) -> ConsoleHandle,
    ) -> io::Result<()> {
        if let Some(control) = streams.control {
            let mode = self.handshake_mode(boot);
            let control = streams::unix_stream(control)?;
            self.tasks.spawn(handshake::serve(control, mode));
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
            self.tasks
                .spawn(log_capture::capture(output, files.console, bytes_max, show));
        }
        if let Some(log) = streams.log {
            let log = streams::unix_stream(log)?;
            let activity = self.idle.activity.clone();
            let on_output = move |_: &[u8]| activity.record();
            self.tasks
                .spawn(log_capture::capture(log, files.log, bytes_max, on_output));
        } else if let Some(listener) = self.log_listener.take() {
            self.tasks.spawn(log_capture::capture_connections(
                listener, files.log, bytes_max,
            ));
        }
        Ok(())
    }

    /// Returns the guest's console, if it has one.
    pub(super) fn console(&self) -> Option<Console> {
        self.console.as_ref().map(ConsoleHandle::console)
    }

    fn handshake_mode(&mut self, boot: BootMode) -> HandshakeMode {
        match boot {
            BootMode::Cold => HandshakeMode::Cold,
            BootMode::Restore => HandshakeMode::Restore,
            BootMode::CheckpointSource => {
                let (sender, ready) = oneshot::channel();
                self.ready = Some(ready);
                HandshakeMode::CheckpointSource(sender)
            }
        }
    }

    fn on_console_output(&self, console: Console) -> impl FnMut(&[u8]) + Send + use<> {
        let activity = self.idle.activity.clone();
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
