//! What we are to a guest: everything that answers at its gateway and on its ports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::task::{GATEWAY, GATEWAY_BUILD2, LOG_TCP_PORT, PR_PORT};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use super::GuestServices;
use super::SessionError;
use super::log_capture;
use crate::pr_service;
use crate::session::console::{ConsoleHandle, TeeReader};
use crate::session::handshake::{self, HandshakeMode};
use crate::session::idle_timeout::IdleTimer;
use crate::telemetry::metrics::Metrics;
use guest::gateway::dhcp;
use guest::gateway::dns::{self, Names};
use guest::network::Network;
use guest::{BootMode, ConsoleInput, Guest};

/// The port on which guests fetch and put (RFC 1350).
const TFTP_PORT: u16 = 69;

/// What we are to a guest: everything that answers at its gateway, and the
/// recording of what it prints. Dropping it ends all of it.
pub(super) struct Gateway {
    _tftp: tftp::server::Server,
    pub(super) events: mpsc::Receiver<tftp::server::Event>,
    /// Tells when a guest that is to be frozen is ready.
    pub(super) ready: Option<oneshot::Receiver<()>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) idle: IdleTimer,
    tasks: JoinSet<()>,
    console_handle: Option<ConsoleHandle>,
}

impl Gateway {
    pub(super) fn open(
        guests: &GuestServices,
        network: &Network,
        map: tftp::server::Namespace,
        names: Names,
    ) -> Result<Self, SessionError> {
        let (sender, events) = mpsc::channel(64);
        let addresses = gateways(TFTP_PORT).collect::<Vec<_>>();
        let tftp = network.enter(|| tftp::server::Server::start(&addresses, map, sender))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(dhcp::serve(network)?);
        tasks.spawn(dns::serve(network, names)?);
        for address in gateways(PR_PORT) {
            let listener = network.tcp_listener(address)?;
            let pr = pr_service::server_for_guest(
                guests.prserv.clone(),
                &guests.pr_settings,
                network.name(),
            );
            tasks.spawn(async move {
                if let Err(error) = pr.serve(listener, std::future::pending()).await {
                    warn!(%error, "the PR service of a guest ended");
                }
            });
        }
        Ok(Self {
            _tftp: tftp,
            events,
            ready: None,
            metrics: Arc::clone(&guests.metrics),
            idle: IdleTimer::default(),
            tasks,
            console_handle: None,
        })
    }

    /// Attends to a guest that waits for its task; a container does not wait.
    pub(super) fn attend(&mut self, guest: &Guest, boot: BootMode) -> std::io::Result<()> {
        let Some(control) = guest.control()? else {
            return Ok(());
        };
        let manner = match boot {
            BootMode::Cold => HandshakeMode::Cold,
            BootMode::Restore => HandshakeMode::Restore,
            BootMode::CheckpointSource => {
                let (sender, ready) = oneshot::channel();
                self.ready = Some(ready);
                HandshakeMode::CheckpointSource(sender)
            }
        };
        self.tasks.spawn(handshake::serve(control, manner));
        Ok(())
    }

    pub(super) fn record(
        &mut self,
        guest: &Guest,
        network: &Network,
        files: log_capture::CaptureFiles,
        console_handle: impl FnOnce(Option<ConsoleInput>) -> ConsoleHandle,
    ) -> std::io::Result<()> {
        let max = files.bytes_max;
        let (console, keyboard) = guest.terminal()?;
        let console_handle = console_handle(keyboard);
        let (screen, last) = (console_handle.console(), self.idle.last.clone());
        self.console_handle = Some(console_handle);
        let console = TeeReader::new(console, move |piece: &[u8]| {
            last.renew();
            screen.show(piece);
        });
        self.tasks
            .spawn(log_capture::follow(console, files.console, max));
        if let Some(log) = guest.log()? {
            let last = self.idle.last.clone();
            let log = TeeReader::new(log, move |_: &[u8]| last.renew());
            self.tasks.spawn(log_capture::follow(log, files.log, max));
        } else if let Some(address) = gateways(LOG_TCP_PORT).next() {
            let listener = network.tcp_listener(address)?;
            self.tasks
                .spawn(log_capture::listen(listener, files.log, max));
        }
        Ok(())
    }
}

/// Waits until a guest that is to be frozen is ready: once, and else for ever.
pub(super) async fn ready(heard: &mut Option<oneshot::Receiver<()>>) {
    let is_ready = match heard {
        Some(heard) => heard.await.is_ok(),
        None => false,
    };
    *heard = None;
    if !is_ready {
        std::future::pending::<()>().await;
    }
}

/// The host's addresses as guests see them.
fn gateways(port: u16) -> impl Iterator<Item = SocketAddr> {
    let addresses = [GATEWAY, GATEWAY_BUILD2].into_iter();
    addresses.filter_map(move |text| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port)))
}
