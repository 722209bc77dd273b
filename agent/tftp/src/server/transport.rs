//! The socket of one transfer, and the state that it shares with the listener.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use sys::observer::Observer;
use tftpd::ErrorCode;

use super::request::Refusal;
use crate::codec::{self, HEADER, Packet, wire_block};
use crate::rto::Rto;

/// The longest time without progress, after which a transfer ends.
const IDLE_MAX: Duration = Duration::from_secs(40);
/// The longest retransmission timeout. Some clients ignore duplicate packets, but restart their own
/// timeout, often 5 s, with each of them. This pause is long enough for that timeout to expire.
const RTO_MAX: Duration = Duration::from_secs(12);
/// The largest packet that fits an Ethernet frame. The kernel does not segment longer ones.
const SEGMENT_MAX: usize = 1472;
/// The kernel's limit for the segments of one send.
const SEGMENTS_MAX: usize = 64;
/// The limit for the bytes of one send, a little less than a UDP packet may have.
const SEND_MAX: usize = 65_000;

/// The reason for which a transfer failed.
#[derive(Debug)]
pub(super) enum TransferError {
    /// The server refuses, and tells the client.
    Refused(Refusal),
    /// The client gave up or cannot be reached.
    Aborted,
    /// There was no progress for too long.
    TimedOut,
}

impl From<Refusal> for TransferError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for TransferError {
    fn from(_: io::Error) -> Self {
        Self::Aborted
    }
}

/// The phase of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client has not answered yet.
    Negotiating,
    /// Blocks are transferred.
    Transferring,
    /// All blocks have arrived. The last acknowledgement may have to be repeated.
    Dallying,
    /// The transfer is over.
    Finished,
}

/// The state that a transfer's thread shares with the listener.
#[derive(Debug)]
pub(super) struct SharedPhase {
    phase: AtomicU8,
    /// The option acknowledgement of a put, which is repeated when the request is.
    option_ack: OnceLock<Vec<u8>>,
}

impl SharedPhase {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(Phase::Negotiating as u8),
            option_ack: OnceLock::new(),
        })
    }

    /// Enters a phase. A transfer never goes back to an earlier one.
    pub(super) fn set(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Negotiating,
            1 => Phase::Transferring,
            2 => Phase::Dallying,
            _ => Phase::Finished,
        }
    }

    /// Keeps the option acknowledgement of a put.
    pub(super) fn keep_option_ack(&self, packet: &[u8]) {
        self.option_ack.get_or_init(|| packet.to_owned());
    }

    /// Returns the option acknowledgement of a put.
    pub(super) fn option_ack(&self) -> Option<&[u8]> {
        self.option_ack.get().map(Vec::as_slice)
    }
}

/// The socket of one transfer, connected to its client.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Arc<UdpSocket>,
    pub(super) phase: Arc<SharedPhase>,
    pub(super) rto: Rto,
    observer: Observer,
    buffer: Vec<u8>,
    /// The socket's receive timeout: setting the same one again costs a system call.
    receive_timeout: Option<Duration>,
    last_progress: Instant,
    /// The size of the packets into which the kernel segments long sends.
    segment_size: Option<usize>,
}

impl Transport {
    pub(super) fn new(socket: Arc<UdpSocket>, phase: Arc<SharedPhase>, observer: Observer) -> Self {
        Self {
            socket,
            phase,
            rto: Rto::new(RTO_MAX),
            observer,
            buffer: Vec::new(),
            receive_timeout: None,
            last_progress: Instant::now(),
            segment_size: None,
        }
    }

    /// Records that the transfer has made progress.
    pub(super) fn record_progress(&mut self) {
        self.phase.set(Phase::Transferring);
        self.last_progress = Instant::now();
        self.observer.observe();
    }

    /// Sets the size of the receive buffer for payloads up to `block_size`. It has room for one
    /// more byte, which shows that a payload was too long.
    pub(super) fn set_receive_size(&mut self, block_size: usize) {
        self.buffer.resize(HEADER + block_size + 1, 0);
    }

    /// Makes the kernel segment long sends into packets of `size` bytes, if it supports that.
    pub(super) fn enable_segmentation(&mut self, size: usize) {
        let fits = i32::try_from(size).ok().filter(|_| size <= SEGMENT_MAX);
        let set = fits.and_then(|size| setsockopt(&self.socket, UdpGsoSegment, &size).ok());
        self.segment_size = set.map(|()| size);
    }

    /// Sends consecutive packets, each of `size` bytes but the last, which may be shorter.
    /// Packets that do not fit the send queue are lost, as in any network.
    pub(super) fn send(&mut self, packets: &[u8], size: usize) -> Result<(), TransferError> {
        let count = self
            .segment_size
            .map_or(1, |size| SEGMENTS_MAX.min(SEND_MAX / size));
        for part in packets.chunks(size * count) {
            match self.socket.send(part) {
                Ok(_) => {}
                Err(_) if self.segment_size.is_some() => {
                    // Some devices cannot segment.
                    let _ = setsockopt(&self.socket, UdpGsoSegment, &0);
                    self.segment_size = None;
                    return self.send(packets, size);
                }
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, block: u64) -> Result<(), TransferError> {
        self.send(&codec::ack(wire_block(block)), HEADER)
    }

    /// Waits for a packet of the transfer. Returns `None` when none came before `deadline`.
    pub(super) fn receive(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Packet<'_>>, TransferError> {
        if self.last_progress.elapsed() > IDLE_MAX {
            return Err(TransferError::TimedOut);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.set_receive_timeout(left)?;
            match self.socket.recv(&mut self.buffer) {
                // After a shutdown of the socket, each receive returns 0 bytes at once.
                Ok(0) if self.phase.get() == Phase::Finished => return Err(TransferError::Aborted),
                Ok(length) => match codec::parse(&self.buffer[..length]) {
                    Some(Packet::Data { .. } | Packet::Ack(_)) => {
                        // Parsed twice: a loop cannot return what it has borrowed.
                        return Ok(codec::parse(&self.buffer[..length]));
                    }
                    Some(Packet::Error { .. }) => return Err(TransferError::Aborted),
                    Some(Packet::OptionAck(_)) | None => {}
                },
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sets the socket's timeout, unless the present one is about as long.
    fn set_receive_timeout(&mut self, left: Duration) -> io::Result<()> {
        let left = left.max(Duration::from_millis(1));
        let near = |set: Duration| set >= left && set <= left + left / 4;
        if !self.receive_timeout.is_some_and(near) {
            let timeout = left + left / 8;
            self.socket.set_read_timeout(Some(timeout))?;
            self.receive_timeout = Some(timeout);
        }
        Ok(())
    }

    /// Sends an ERROR packet with the reason for a refusal.
    pub(super) fn send_refusal(&mut self, refusal: &Refusal) {
        let packet = refusal.packet();
        // If the packet is lost, the client times out.
        let _ = self.send(&packet, packet.len());
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Returns true if the error of a send means no more than the loss of the packet.
fn is_loss(error: &io::Error) -> bool {
    is_timeout(error)
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
}

/// Returns the error for a packet that violates the protocol.
pub(super) fn illegal(reason: &str) -> TransferError {
    TransferError::Refused(Refusal::new(ErrorCode::IllegalOperation, reason))
}
