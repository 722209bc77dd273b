//! The port that requests come to, and the table of transfers behind it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use rustix::event::{PollFd, PollFlags, poll};
use tftpd::ErrorCode;

use super::request::{self, REQUEST_MAX, Refusal, Request};
use super::transport::{Phase, SharedPhase, Transport};
use super::{Shared, transfer};

/// Transfers that one guest may have at once.
const TRANSFERS_MAX: usize = 32;
/// So long a client that has not answered keeps its place, however many others come.
const OPENING_MIN: Duration = Duration::from_secs(2);
/// Requests of one guest that are looked at in a second; others are lost.
const REQUESTS_PER_SECOND: u32 = 1000;
/// A request that comes again within this time was doubled on its way: no client asks
/// again so soon.
const ECHO: Duration = Duration::from_millis(30);
/// When data has gone one way or the other, a request that comes again was late.
const ECHO_LATE: Duration = Duration::from_secs(1);
/// A transfer's thread needs little.
const STACK: usize = 256 * 1024;
/// A window of small blocks takes far more room in the kernel than it holds.
const RECEIVE_BUFFER: usize = 1024 * 1024;

pub(super) struct Listener {
    sockets: Vec<UdpSocket>,
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    transfers: HashMap<SocketAddr, ActiveTransfer>,
    tokens: Tokens,
}

/// A transfer as its listener knows it.
struct ActiveTransfer {
    packet: Vec<u8>,
    began: Instant,
    socket: Arc<UdpSocket>,
    phase: Arc<SharedPhase>,
}

impl ActiveTransfer {
    fn end(&self) {
        self.phase.set(Phase::Finished);
        // Wakes the thread that waits for a packet, which then sees the phase.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// What to do with a request from a port that has a transfer already.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is an echo.
    Ignore,
    /// Our answer was lost: the client gets the same one from the same port again,
    /// unless the transfer itself repeats it.
    Again,
    /// The client has given the transfer up and begins anew.
    Begin,
}

/// Decides; `same` means that it is the very request that began the transfer.
fn judge(phase: Phase, same: bool, age: Duration) -> Verdict {
    match (phase, same) {
        (Phase::Negotiating, true) if age < ECHO => Verdict::Ignore,
        (Phase::Negotiating, true) => Verdict::Again,
        (Phase::Transferring, true) if age < ECHO_LATE => Verdict::Ignore,
        (Phase::Negotiating | Phase::Transferring | Phase::Dallying | Phase::Finished, _) => {
            Verdict::Begin
        }
    }
}

impl Listener {
    pub(super) fn new(sockets: Vec<UdpSocket>, shared: Arc<Shared>, stop: Arc<OwnedFd>) -> Self {
        Self {
            sockets,
            shared,
            stop,
            transfers: HashMap::new(),
            tokens: Tokens::new(Instant::now()),
        }
    }

    /// Serves until it is told to stop.
    pub(super) fn run(mut self) {
        while let Ok(ready) = self.wait() {
            let Some(ready) = ready else { break };
            for index in ready {
                self.take(index);
            }
        }
        self.transfers.values().for_each(ActiveTransfer::end);
    }

    /// The sockets that have something; `None` means stop.
    fn wait(&self) -> io::Result<Option<Vec<usize>>> {
        let stop = std::iter::once(PollFd::new(&self.stop, PollFlags::IN));
        let sockets = self.sockets.iter();
        let sockets = sockets.map(|socket| PollFd::new(socket, PollFlags::IN));
        let mut all: Vec<_> = stop.chain(sockets).collect();
        match poll(&mut all, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Some(Vec::new())),
            result => result?,
        };
        if !all[0].revents().is_empty() {
            return Ok(None);
        }
        let ready = all[1..].iter().enumerate();
        let ready = ready.filter(|(_, socket)| !socket.revents().is_empty());
        Ok(Some(ready.map(|(index, _)| index).collect()))
    }

    /// Takes one packet from a socket.
    fn take(&mut self, index: usize) {
        let mut buffer = [0; REQUEST_MAX + 1];
        // An error is that of an earlier packet of ours, and clears itself.
        let Ok((length, peer)) = self.sockets[index].recv_from(&mut buffer) else {
            return;
        };
        if !self.tokens.take(Instant::now()) {
            return;
        }
        let packet = &buffer[..length];
        let Some(request) = request::parse(packet) else {
            return;
        };
        self.shared.contact();
        let begun = request.and_then(|request| self.admit(index, peer, packet, request));
        if let Err(refusal) = begun {
            // It is not waited for: the client asks again.
            let _ = self.sockets[index].send_to(&refusal.packet(), peer);
            self.shared.tell_refusal("", &refusal.reason);
        }
    }

    fn admit(
        &mut self,
        index: usize,
        peer: SocketAddr,
        packet: &[u8],
        request: Request,
    ) -> Result<(), Refusal> {
        self.transfers
            .retain(|_, transfer| transfer.phase.get() != Phase::Finished);
        if let Some(transfer) = self.transfers.get(&peer) {
            let same = transfer.packet == packet;
            match judge(transfer.phase.get(), same, transfer.began.elapsed()) {
                Verdict::Ignore => return Ok(()),
                Verdict::Again => {
                    // It may be lost like the first one: then the client asks again.
                    let answer = transfer.phase.option_ack();
                    answer.map(|packet| transfer.socket.send(packet));
                    return Ok(());
                }
                Verdict::Begin => transfer.end(),
            }
            self.transfers.remove(&peer);
        }
        self.make_room()?;
        let failed = |error: io::Error| {
            tracing::warn!(%error, "cannot begin a transfer");
            Refusal::new(ErrorCode::NotDefined, "the server cannot begin a transfer")
        };
        let transfer = self.begin(index, peer, packet, request).map_err(failed)?;
        self.transfers.insert(peer, transfer);
        Ok(())
    }

    /// Ends the oldest transfer that only waits, when there are too many: for somebody to
    /// ask again, or for the first answer, which others would have given by now.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.transfers.len() < TRANSFERS_MAX {
            return Ok(());
        }
        let only_waits = |transfer: &ActiveTransfer| match transfer.phase.get() {
            Phase::Dallying => true,
            Phase::Negotiating => transfer.began.elapsed() > OPENING_MIN,
            Phase::Transferring | Phase::Finished => false,
        };
        let waiting = self.transfers.iter();
        let waiting = waiting.filter(|(_, transfer)| only_waits(transfer));
        let oldest = waiting.min_by_key(|(_, transfer)| transfer.began);
        let Some(peer) = oldest.map(|(peer, _)| *peer) else {
            let reason = "too many transfers at once";
            return Err(Refusal::new(ErrorCode::NotDefined, reason));
        };
        if let Some(transfer) = self.transfers.remove(&peer) {
            transfer.end();
        }
        Ok(())
    }

    fn begin(
        &self,
        index: usize,
        peer: SocketAddr,
        packet: &[u8],
        request: Request,
    ) -> io::Result<ActiveTransfer> {
        let address = self.sockets[index].local_addr()?.ip();
        let socket = Arc::new(UdpSocket::bind((address, 0))?);
        socket.connect(peer)?;
        // Without the privilege the usual size has to do.
        let _ = setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER);
        let phase = SharedPhase::new();
        let transport = Transport::new(Arc::clone(&socket), Arc::clone(&phase));
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("tftp-transfer".to_owned())
            .stack_size(STACK)
            .spawn(move || transfer::run(transport, &request, &shared))?;
        Ok(ActiveTransfer {
            packet: packet.to_vec(),
            began: Instant::now(),
            socket,
            phase,
        })
    }
}

/// A bucket that fills with time: how many requests may still come.
struct Tokens {
    left: f64,
    filled: Instant,
}

impl Tokens {
    fn new(now: Instant) -> Self {
        Self {
            left: f64::from(REQUESTS_PER_SECOND),
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let rate = f64::from(REQUESTS_PER_SECOND);
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * rate).min(rate);
        self.filled = now;
        let any = self.left >= 1.0;
        if any {
            self.left -= 1.0;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_again_is_an_echo_or_a_new_beginning() {
        let young = Duration::from_millis(5);
        let old = Duration::from_secs(3);
        let table = [
            (Phase::Negotiating, true, young, Verdict::Ignore),
            (Phase::Negotiating, true, old, Verdict::Again),
            (Phase::Negotiating, false, young, Verdict::Begin),
            (Phase::Transferring, true, young, Verdict::Ignore),
            (Phase::Transferring, true, old, Verdict::Begin),
            (Phase::Transferring, false, young, Verdict::Begin),
            (Phase::Dallying, true, young, Verdict::Begin),
            (Phase::Dallying, false, old, Verdict::Begin),
        ];
        for (phase, same, age, verdict) in table {
            assert_eq!(judge(phase, same, age), verdict, "{phase:?} {same} {age:?}");
        }
    }

    #[test]
    fn requests_beyond_the_rate_are_lost() {
        let start = Instant::now();
        let mut tokens = Tokens::new(start);
        let taken = (0..5000).filter(|_| tokens.take(start)).count();
        assert_eq!(taken, 1000);
        let later = start + Duration::from_millis(100);
        let taken = (0..5000).filter(|_| tokens.take(later)).count();
        assert_eq!(taken, 100);
    }
}
