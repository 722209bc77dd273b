//! The socket of one transfer, the peer's port, and the timeouts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tftpd::ErrorCode;

use super::{ClientError, Timeouts};
use crate::codec::{self, Packet};
use crate::rto::Rto;

/// The longest timeout before a retransmission.
const RTO_MAX: Duration = Duration::from_secs(2);
/// A server that has answered and then makes no progress for this part of the idle timeout
/// has lost the transfer. It may need some time to write a large file to its disk.
const LOST_PART: u32 = 3;
/// The time for which the last acknowledgement is repeated on request.
const DALLY: Duration = Duration::from_secs(1);

/// A transfer with all its attempts.
pub(super) struct Transfer {
    socket: UdpSocket,
    server: SocketAddr,
    /// The address that the server answers from.
    peer: Option<SocketAddr>,
    /// Set when the peer's port was found closed.
    lost: bool,
    timeouts: Timeouts,
    rto: Rto,
    last_sent: Vec<u8>,
    /// The time of the last send. `None` after a retransmission: then an answer does not
    /// measure a round trip (Karn's algorithm).
    sent_at: Option<Instant>,
    /// The time of the next retransmission. Only progress postpones it: a server that repeats a
    /// packet has not received the last one of the client.
    deadline: Instant,
    began: Instant,
    progress_at: Instant,
    send_error: Option<io::Error>,
    buffer: Vec<u8>,
}

impl Transfer {
    /// Creates a transfer, and sends nothing yet.
    pub(super) fn new(server: SocketAddr, timeouts: Timeouts) -> Result<Self, ClientError> {
        let now = Instant::now();
        Ok(Self {
            socket: bind(server)?,
            server,
            peer: None,
            lost: false,
            timeouts,
            rto: Rto::new(RTO_MAX),
            last_sent: Vec::new(),
            sent_at: None,
            deadline: now,
            began: now,
            progress_at: now,
            send_error: None,
            buffer: vec![0; 2048],
        })
    }

    /// Starts a new attempt on a new port. The limits of the transfer continue to run.
    pub(super) fn restart(&mut self) -> Result<(), ClientError> {
        self.socket = bind(self.server)?;
        self.peer = None;
        self.lost = false;
        self.rto = Rto::new(RTO_MAX);
        Ok(())
    }

    /// Sends a packet for the first time.
    pub(super) fn send(&mut self, packet: Vec<u8>) {
        self.transmit(packet);
        self.sent_at = Some(Instant::now());
    }

    /// Retransmits a packet.
    pub(super) fn resend(&mut self, packet: Vec<u8>) {
        self.transmit(packet);
        self.sent_at = None;
    }

    /// Retransmits the last packet after a timeout.
    pub(super) fn resend_last(&mut self) {
        self.back_off();
        self.resend(self.last_sent.clone());
    }

    /// Sends a packet. A packet that cannot be sent counts as lost.
    fn transmit(&mut self, packet: Vec<u8>) {
        let to = self.peer.unwrap_or(self.server);
        self.send_error = self.socket.send_to(&packet, to).err();
        if let Some(error) = &self.send_error {
            self.lost |= self.is_closed_port(error.kind());
        }
        self.last_sent = packet;
        self.deadline = Instant::now() + self.rto.timeout();
    }

    /// Doubles the timeout of the next packet.
    pub(super) fn back_off(&mut self) {
        self.rto.back_off();
    }

    /// Records that the transfer has made progress.
    pub(super) fn record_progress(&mut self) {
        self.progress_at = Instant::now();
        match self.sent_at.take() {
            Some(sent_at) => self.rto.add_measurement(self.progress_at - sent_at),
            None => self.rto.reset(),
        }
        self.deadline = self.progress_at + self.rto.timeout();
    }

    /// Returns true if an error means that the peer's port is closed. The server's main port does
    /// not count, because it may be opened again.
    fn is_closed_port(&self, kind: io::ErrorKind) -> bool {
        kind == io::ErrorKind::ConnectionRefused && self.peer.is_some()
    }

    /// Returns an error if there was no progress for too long.
    fn check_idle(&self) -> Result<(), ClientError> {
        let waited = self.progress_at.elapsed();
        if waited >= self.timeouts.idle {
            return Err(ClientError::IdleTimeout {
                server: self.server,
                waited,
                source: self.send_error.as_ref().map(|error| error.kind().into()),
            });
        }
        if self.peer.is_some() && waited >= self.timeouts.idle / LOST_PART {
            return Err(ClientError::Lost);
        }
        Ok(())
    }

    /// Waits for the next packet of the transfer. Returns `None` when something must be
    /// retransmitted.
    pub(super) fn receive(&mut self) -> Result<Option<Packet<'_>>, ClientError> {
        if self.began.elapsed() >= self.timeouts.total {
            return Err(ClientError::TotalTimeout(self.timeouts.total));
        }
        let length = loop {
            if self.lost {
                return Err(ClientError::Lost);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.check_idle().map(|()| None);
            }
            self.socket
                .set_read_timeout(Some(left))
                .map_err(ClientError::Socket)?;
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) if self.is_peer(from) => break length,
                Ok(_) => {}
                Err(error) if self.is_closed_port(error.kind()) => self.lost = true,
                Err(error) if is_transient(error.kind()) => {}
                Err(error) => return Err(ClientError::Socket(error)),
            }
        };
        match codec::parse(&self.buffer[..length]) {
            Some(Packet::Error { code, .. }) if code == ErrorCode::UnknownId as u16 => {
                Err(ClientError::Lost)
            }
            Some(Packet::Error { code, message }) => Err(ClientError::Refused { code, message }),
            Some(packet) => Ok(Some(packet)),
            None => Err(ClientError::Protocol("a malformed packet")),
        }
    }

    /// Returns true for the address of the peer: the first port at the server's address that
    /// answers. Other ports answer duplicates of the request, and get an error.
    fn is_peer(&mut self, from: SocketAddr) -> bool {
        if from.ip() != self.server.ip() {
            return false;
        }
        if self.peer.is_none() {
            self.peer = Some(from);
            // On a connected socket, the kernel rejects packets of others and reports a closed
            // port of the peer. If this fails, the idle timeout detects a lost peer.
            let _ = self.socket.connect(from);
        }
        let is_peer = self.peer == Some(from);
        if !is_peer {
            let error = codec::error(ErrorCode::UnknownId, "the transfer has another port");
            let _ = self.socket.send_to(&error, from);
        }
        is_peer
    }

    /// Repeats the last acknowledgement when the server asks for it, on a background thread
    /// (RFC 1350, section 6). The program need not wait for the end of that.
    pub(super) fn dally(mut self) {
        self.timeouts.idle = DALLY;
        std::thread::spawn(move || {
            loop {
                match self.receive() {
                    Ok(Some(Packet::Data { .. })) => self.resend(self.last_sent.clone()),
                    Ok(Some(_)) => {}
                    Ok(None) => self.deadline = Instant::now() + self.timeouts.idle,
                    Err(_) => return,
                }
            }
        });
    }
}

fn bind(server: SocketAddr) -> Result<UdpSocket, ClientError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).map_err(ClientError::Socket)
}

/// Returns true if a receive may be retried.
fn is_transient(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(
        kind,
        ConnectionRefused | Interrupted | TimedOut | WouldBlock
    )
}
