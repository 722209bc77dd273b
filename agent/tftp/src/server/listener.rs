//! The port that receives requests, and the table of active transfers.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use rustix::event::{PollFd, PollFlags, poll};
use sys::token_bucket::TokenBucket;
use tftpd::ErrorCode;

use super::peers::Peers;
use super::request::{self, REQUEST_MAX, Refusal, Request};
use super::transport::{Phase, SharedPhase, Transport};
use super::{Shared, transfer};

/// The maximum number of concurrent transfers of one guest.
const TRANSFERS_MAX: usize = 32;
/// The time for which a transfer that the client has not answered yet is not stopped in favor of
/// another one.
const NEGOTIATION_MIN: Duration = Duration::from_secs(2);
/// The maximum number of requests of one guest per second. Others are dropped.
const REQUESTS_PER_SECOND: u32 = 1000;
/// The age of a transfer up to which a repeated request is a duplicate from the network, because
/// no client retransmits so soon.
const DUPLICATE_AGE_MAX: Duration = Duration::from_millis(30);
/// The same age for a transfer that has made progress: the repeated request was delayed.
const DELAYED_AGE_MAX: Duration = Duration::from_secs(1);
/// The stack of a transfer's thread.
const STACK: usize = 256 * 1024;
/// The receive buffer of a transfer. In the kernel, a window of small blocks takes far more
/// than its payload.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// The thread that reads requests and starts transfers.
pub(super) struct Listener {
    sockets: Vec<UdpSocket>,
    peers: Arc<Peers>,
    stop: Arc<OwnedFd>,
    transfers: HashMap<SocketAddr, ActiveTransfer>,
    /// The limit of the rate of requests.
    rate: TokenBucket,
}

/// A transfer in the listener's table.
struct ActiveTransfer {
    request: Vec<u8>,
    began: Instant,
    socket: Arc<UdpSocket>,
    phase: Arc<SharedPhase>,
}

impl ActiveTransfer {
    fn stop(&self) {
        self.phase.set(Phase::Finished);
        // Wakes the transfer's thread, which then checks the phase.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// The reaction to a request from a port that has a transfer already.
#[derive(Debug, PartialEq, Eq)]
enum RepeatedRequest {
    /// The request is a duplicate.
    Ignore,
    /// The option acknowledgement was lost. Send it again from the transfer's port. A transfer
    /// without options retransmits its first packet without the listener.
    Acknowledge,
    /// The client has abandoned the transfer and requests another one.
    Restart,
}

/// Returns the reaction to a repeated request. `same` is true if it equals the first one.
fn react(phase: Phase, same: bool, age: Duration) -> RepeatedRequest {
    match (phase, same) {
        (Phase::Negotiating, true) if age < DUPLICATE_AGE_MAX => RepeatedRequest::Ignore,
        (Phase::Negotiating, true) => RepeatedRequest::Acknowledge,
        (Phase::Transferring, true) if age < DELAYED_AGE_MAX => RepeatedRequest::Ignore,
        (Phase::Negotiating | Phase::Transferring | Phase::Dallying | Phase::Finished, _) => {
            RepeatedRequest::Restart
        }
    }
}

fn rate_limit(now: Instant) -> TokenBucket {
    TokenBucket::new(REQUESTS_PER_SECOND, Duration::from_secs(1), now)
}

impl Listener {
    pub(super) fn new(sockets: Vec<UdpSocket>, peers: Arc<Peers>, stop: Arc<OwnedFd>) -> Self {
        Self {
            sockets,
            peers,
            stop,
            transfers: HashMap::new(),
            rate: rate_limit(Instant::now()),
        }
    }

    /// Serves until `stop` is written to.
    pub(super) fn run(mut self) {
        while let Ok(Some(ready)) = self.wait() {
            for index in ready {
                self.read(index);
            }
        }
        self.transfers.values().for_each(ActiveTransfer::stop);
    }

    /// Returns the sockets that are readable, or `None` to stop.
    fn wait(&self) -> io::Result<Option<Vec<usize>>> {
        let mut all = vec![PollFd::new(&self.stop, PollFlags::IN)];
        all.extend(
            self.sockets
                .iter()
                .map(|socket| PollFd::new(socket, PollFlags::IN)),
        );
        match poll(&mut all, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Some(Vec::new())),
            result => result?,
        };
        if !all[0].revents().is_empty() {
            return Ok(None);
        }
        let ready = all[1..]
            .iter()
            .enumerate()
            .filter(|(_, socket)| !socket.revents().is_empty())
            .map(|(index, _)| index);
        Ok(Some(ready.collect()))
    }

    /// Reads one packet from a socket.
    fn read(&mut self, index: usize) {
        let mut buffer = [0; REQUEST_MAX + 1];
        // An error is the result of an earlier send; reading it clears it.
        let Ok((length, peer)) = self.sockets[index].recv_from(&mut buffer) else {
            return;
        };
        if self.rate.take(Instant::now()).is_err() {
            return;
        }
        let packet = &buffer[..length];
        let Some(request) = request::parse(packet) else {
            return;
        };
        let shared = Arc::clone(self.peers.of(peer.ip()));
        shared.observer.observe();
        shared.report_contact();
        let accepted =
            request.and_then(|request| self.accept(index, peer, packet, request, &shared));
        if let Err(refusal) = accepted {
            shared.report_refusal("", &refusal);
            // If the packet is lost, the client repeats its request.
            let _ = self.sockets[index].send_to(&refusal.packet(), peer);
        }
    }

    fn accept(
        &mut self,
        index: usize,
        peer: SocketAddr,
        packet: &[u8],
        request: Request,
        shared: &Arc<Shared>,
    ) -> Result<(), Refusal> {
        self.transfers
            .retain(|_, transfer| transfer.phase.get() != Phase::Finished);
        if let Some(transfer) = self.transfers.get(&peer) {
            let same = transfer.request == packet;
            match react(transfer.phase.get(), same, transfer.began.elapsed()) {
                RepeatedRequest::Ignore => return Ok(()),
                RepeatedRequest::Acknowledge => {
                    if let Some(packet) = transfer.phase.option_ack() {
                        // If it is lost again, the client repeats its request.
                        let _ = transfer.socket.send(packet);
                    }
                    return Ok(());
                }
                RepeatedRequest::Restart => transfer.stop(),
            }
            self.transfers.remove(&peer);
        }
        self.make_room()?;
        let transfer = self.start(index, peer, packet, request, shared);
        let transfer = transfer.map_err(|error| {
            tracing::warn!(error = &error as &dyn Error, "cannot start a transfer");
            Refusal::new(ErrorCode::NotDefined, "the server cannot start a transfer")
        })?;
        self.transfers.insert(peer, transfer);
        Ok(())
    }

    /// If there are too many transfers, stops the oldest one that is dallying or was not answered.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.transfers.len() < TRANSFERS_MAX {
            return Ok(());
        }
        let may_be_stopped = |transfer: &ActiveTransfer| match transfer.phase.get() {
            Phase::Dallying => true,
            Phase::Negotiating => transfer.began.elapsed() > NEGOTIATION_MIN,
            Phase::Transferring | Phase::Finished => false,
        };
        let oldest = self
            .transfers
            .iter()
            .filter(|(_, transfer)| may_be_stopped(transfer))
            .min_by_key(|(_, transfer)| transfer.began)
            .map(|(peer, _)| *peer);
        let stopped = oldest.and_then(|peer| self.transfers.remove(&peer));
        let stopped = stopped
            .ok_or_else(|| Refusal::new(ErrorCode::NotDefined, "too many transfers at once"))?;
        stopped.stop();
        Ok(())
    }

    fn start(
        &self,
        index: usize,
        peer: SocketAddr,
        packet: &[u8],
        request: Request,
        shared: &Arc<Shared>,
    ) -> io::Result<ActiveTransfer> {
        let address = self.sockets[index].local_addr()?.ip();
        let socket = Arc::new(UdpSocket::bind((address, 0))?);
        socket.connect(peer)?;
        // Without the privilege, the default size has to do.
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
        let phase = SharedPhase::new();
        let transport = Transport::new(
            Arc::clone(&socket),
            Arc::clone(&phase),
            shared.observer.clone(),
        );
        let shared = Arc::clone(shared);
        thread::Builder::new()
            .name("tftp-transfer".to_owned())
            .stack_size(STACK)
            .spawn(move || transfer::run(transport, &request, &shared))?;
        Ok(ActiveTransfer {
            request: packet.to_vec(),
            began: Instant::now(),
            socket,
            phase,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_is_a_duplicate_or_starts_a_new_transfer() {
        let young = Duration::from_millis(5);
        let old = Duration::from_secs(3);
        let table = [
            (Phase::Negotiating, true, young, RepeatedRequest::Ignore),
            (Phase::Negotiating, true, old, RepeatedRequest::Acknowledge),
            (Phase::Negotiating, false, young, RepeatedRequest::Restart),
            (Phase::Transferring, true, young, RepeatedRequest::Ignore),
            (Phase::Transferring, true, old, RepeatedRequest::Restart),
            (Phase::Transferring, false, young, RepeatedRequest::Restart),
            (Phase::Dallying, true, young, RepeatedRequest::Restart),
            (Phase::Dallying, false, old, RepeatedRequest::Restart),
        ];
        for (phase, same, age, expected) in table {
            assert_eq!(
                react(phase, same, age),
                expected,
                "{phase:?} {same} {age:?}"
            );
        }
    }

    #[test]
    fn requests_beyond_the_rate_are_dropped() {
        let start = Instant::now();
        let mut rate = rate_limit(start);
        let taken = (0..5000).filter(|_| rate.take(start).is_ok()).count();
        assert_eq!(taken, 1000);
        let later = start + Duration::from_millis(100);
        let taken = (0..5000).filter(|_| rate.take(later).is_ok()).count();
        assert_eq!(taken, 100);
    }
}
