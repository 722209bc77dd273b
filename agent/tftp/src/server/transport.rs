//! One transfer's socket: packets out and in, and how a transfer can end.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use tftpd::ErrorCode;

use super::request::Refusal;
use crate::rto::Rto;

/// A transfer that comes no further for so long is over.
const SILENCE: Duration = Duration::from_secs(40);
/// The largest packet that fits an Ethernet frame: beyond it the kernel cannot cut.
const PACKET_MAX: usize = 1472;
/// What the kernel cuts in one go.
const CUT_MAX: usize = 64;

/// How a transfer ended before its end.
#[derive(Debug)]
pub(super) enum TransferError {
    /// We refuse; the other side is told.
    Refused(Refusal),
    /// The other side gave up, or cannot be reached.
    Aborted,
    /// Nothing that helps came for too long.
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

/// Where a transfer is; its listener looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The other side has not answered yet.
    Negotiating,
    /// Data goes one way or the other.
    Transferring,
    /// Everything is done; the last acknowledgement may have to be repeated.
    Dallying,
    /// Over.
    Finished,
}

/// What a transfer's thread shares with its listener: a [`Phase`], and the answer to
/// the request of a put that was sent once and is repeated only for who asks again.
#[derive(Debug)]
pub(super) struct SharedPhase {
    phase: AtomicU8,
    option_ack: OnceLock<Vec<u8>>,
}

impl SharedPhase {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(0),
            option_ack: OnceLock::new(),
        })
    }

    /// A transfer goes forward only: what is over stays over.
    pub(super) fn set(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Keeps the option acknowledgement of a put.
    pub(super) fn keep_option_ack(&self, packet: &[u8]) {
        self.option_ack.get_or_init(|| packet.to_owned());
    }

    /// Returns the option acknowledgement of a put.
    pub(super) fn option_ack(&self) -> Option<&[u8]> {
        self.option_ack.get().map(Vec::as_slice)
    }

    pub(super) fn get(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Negotiating,
            1 => Phase::Transferring,
            2 => Phase::Dallying,
            _ => Phase::Finished,
        }
    }
}

/// A packet of the other side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound<'a> {
    Ack(u16),
    Data(u16, &'a [u8]),
    /// Nothing came in time.
    Nothing,
}

/// The socket of one transfer, connected to its client.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Arc<UdpSocket>,
    pub(super) phase: Arc<SharedPhase>,
    pub(super) rto: Rto,
    buffer: Vec<u8>,
    /// The receive timeout that the socket has, to save setting it.
    timeout: Option<Duration>,
    advanced: Instant,
    /// The size of the pieces into which the kernel cuts what we send.
    cut: Option<usize>,
}

impl Transport {
    pub(super) fn new(socket: Arc<UdpSocket>, phase: Arc<SharedPhase>) -> Self {
        Self {
            socket,
            phase,
            rto: Rto::new(),
            buffer: Vec::new(),
            timeout: None,
            advanced: Instant::now(),
            cut: None,
        }
    }

    /// Something came that brings the transfer further.
    pub(super) fn advance(&mut self) {
        self.phase.set(Phase::Transferring);
        self.advanced = Instant::now();
    }

    /// Makes room for packets that carry `block` bytes; longer ones are cut off,
    /// which shows in their length.
    pub(super) fn expect(&mut self, block: usize) {
        self.buffer.resize(4 + block + 1, 0);
    }

    /// Lets the kernel cut long sends into packets of `size`, where it can.
    pub(super) fn cut(&mut self, size: usize) {
        let fits = i32::try_from(size).ok().filter(|_| size <= PACKET_MAX);
        let set = fits.and_then(|size| setsockopt(&self.socket, UdpGsoSegment, &size).ok());
        self.cut = set.map(|()| size);
    }

    /// Sends packets that stand one behind the other, each of `size` bytes but the
    /// last, which may be shorter. A full queue loses packets like any cable.
    pub(super) fn send(&mut self, packets: &[u8], size: usize) -> Result<(), TransferError> {
        let pieces = self.cut.map_or(1, |size| CUT_MAX.min(65_000 / size));
        for part in packets.chunks(size * pieces) {
            match self.socket.send(part) {
                Ok(_) => {}
                Err(_) if self.cut.is_some() => {
                    // Some devices cannot do it: go on without.
                    let _ = setsockopt(&self.socket, UdpGsoSegment, &0);
                    self.cut = None;
                    return self.send(packets, size);
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, block: u64) -> Result<(), TransferError> {
        let [high, low] = wire(block).to_be_bytes();
        self.send(&[0, 4, high, low], 4)
    }

    /// Waits for a packet of the transfer until `deadline`.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Inbound<'_>, TransferError> {
        if self.advanced.elapsed() > SILENCE {
            return Err(TransferError::TimedOut);
        }
        let length = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.set_timeout(left)?;
            match self.socket.recv(&mut self.buffer) {
                // A socket that was shut down returns nothing, at once and for ever.
                Ok(0) if self.phase.get() == Phase::Finished => return Err(TransferError::Aborted),
                Ok(length) => match self.buffer[..length] {
                    [0, 3 | 4, _, _, ..] => break Some(length),
                    [0, 5, ..] => return Err(TransferError::Aborted),
                    _ => {}
                },
                Err(error) if is_late(&error) => break None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        let Some(length) = length else {
            return Ok(Inbound::Nothing);
        };
        let block = u16::from_be_bytes([self.buffer[2], self.buffer[3]]);
        Ok(match self.buffer[1] {
            3 => Inbound::Data(block, &self.buffer[4..length]),
            _ => Inbound::Ack(block),
        })
    }

    /// Setting a timeout costs a call: a wait that is about as long will do.
    fn set_timeout(&mut self, left: Duration) -> io::Result<()> {
        let left = left.max(Duration::from_millis(1));
        let near = |set: Duration| set >= left && set <= left + left / 4;
        if !self.timeout.is_some_and(near) {
            let timeout = left + left / 8;
            self.socket.set_read_timeout(Some(timeout))?;
            self.timeout = Some(timeout);
        }
        Ok(())
    }

    /// Tells the other side that this is the end.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let packet = refusal.packet();
        // It is not waited for: the other side finds out by itself otherwise.
        let _ = self.send(&packet, packet.len());
    }
}

/// The number of a block as packets carry it: it starts again at 0 after 65535.
pub(super) fn wire(block: u64) -> u16 {
    (block & 0xffff) as u16
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether a packet was lost on our side, which is no more than a lost packet.
fn is_full(error: &io::Error) -> bool {
    is_late(error)
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
}

/// A refusal for packets that break the rules.
pub(super) fn illegal(reason: &str) -> TransferError {
    TransferError::Refused(Refusal::new(ErrorCode::IllegalOperation, reason))
}
