//! The packets of one transfer: to whom, from whom, and how long to wait for them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::packet::{self, Packet};
use super::window::Pace;
use super::{Patience, TftpError};

/// The error code for a packet of another transfer.
const UNKNOWN_TRANSFER: u16 = 5;
/// A server that has answered and then says nothing new for this part of our patience
/// has died and is asked anew. It may need some time to bring a large file to its disk.
const DEATH: u32 = 3;

/// What is said and heard in one transfer, however often it is begun anew.
pub(super) struct Transfer {
    socket: UdpSocket,
    server: SocketAddr,
    /// The port of the server that it answered from, and answers from since.
    peer: Option<SocketAddr>,
    /// Nobody is at that port any more.
    gone: bool,
    patience: Patience,
    pace: Pace,
    /// What we said last, to say it again.
    said: Vec<u8>,
    /// When we said it, unless it was said twice: then an answer tells no time.
    said_at: Option<Instant>,
    /// When an answer to it is late. Only what is new puts this off: a server that
    /// repeats itself has not heard us.
    due: Instant,
    begun: Instant,
    /// When the transfer last went on.
    went_on: Instant,
    fault: Option<io::Error>,
    buffer: Vec<u8>,
}

impl Transfer {
    /// Nothing is sent yet.
    pub(super) fn new(server: SocketAddr, patience: Patience) -> Result<Self, TftpError> {
        let now = Instant::now();
        Ok(Self {
            socket: socket(server)?,
            server,
            peer: None,
            gone: false,
            patience,
            pace: Pace::new(),
            said: Vec::new(),
            said_at: None,
            due: now,
            begun: now,
            went_on: now,
            fault: None,
            buffer: vec![0; 2048],
        })
    }

    /// From here on it is another transfer for the server; for us, time goes on.
    pub(super) fn begin_anew(&mut self) -> Result<(), TftpError> {
        self.socket = socket(self.server)?;
        self.peer = None;
        self.gone = false;
        self.pace = Pace::new();
        Ok(())
    }

    /// Sends something new.
    pub(super) fn say(&mut self, packet: Vec<u8>) {
        self.send(packet);
        self.said_at = Some(Instant::now());
    }

    /// Sends something that was sent before.
    pub(super) fn repeat(&mut self, packet: Vec<u8>) {
        self.send(packet);
        self.said_at = None;
    }

    /// That something cannot be sent is as if it were lost.
    fn send(&mut self, packet: Vec<u8>) {
        let to = self.peer.unwrap_or(self.server);
        self.fault = self.socket.send_to(&packet, to).err();
        self.gone |= self
            .fault
            .as_ref()
            .is_some_and(|it| self.is_gone(it.kind()));
        self.said = packet;
        self.due = Instant::now() + self.pace.wait();
    }

    /// Sends the last thing once more, when an answer to it is late.
    pub(super) fn again(&mut self) {
        self.late();
        self.repeat(self.said.clone());
    }

    /// An answer is late: give the next one more time.
    pub(super) fn late(&mut self) {
        self.pace.silence();
    }

    /// What was heard is new.
    pub(super) fn went_on(&mut self) {
        self.went_on = Instant::now();
        let took = self.said_at.take().map(|said| self.went_on - said);
        self.pace.answered(took);
        self.due = self.went_on + self.pace.wait();
    }

    /// Whether an error says that the peer's port is closed. That of the server itself may
    /// be opened again.
    fn is_gone(&self, kind: io::ErrorKind) -> bool {
        kind == io::ErrorKind::ConnectionRefused && self.peer.is_some()
    }

    /// Ends the transfer when nothing has come for too long.
    fn bear(&self) -> Result<(), TftpError> {
        let waited = self.went_on.elapsed();
        if waited < self.patience.silence {
            let is_dead = self.peer.is_some() && waited >= self.patience.silence / DEATH;
            return if is_dead {
                Err(TftpError::Gone(1))
            } else {
                Ok(())
            };
        }
        Err(TftpError::Silent {
            server: self.server,
            waited,
            fault: self.fault.as_ref().map(|fault| fault.kind().into()),
        })
    }

    /// The next packet of our transfer; `None` when an answer is late.
    pub(super) fn hear(&mut self) -> Result<Option<Packet<'_>>, TftpError> {
        if self.begun.elapsed() >= self.patience.total {
            return Err(TftpError::Slow(self.patience.total));
        }
        let length = loop {
            if self.gone {
                return Err(TftpError::Gone(1));
            }
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.bear().map(|()| None);
            }
            self.socket
                .set_read_timeout(Some(left))
                .map_err(TftpError::Socket)?;
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) if self.is_ours(from) => break length,
                Ok(_) => {}
                Err(error) if self.is_gone(error.kind()) => self.gone = true,
                Err(error) if is_passing(error.kind()) => {}
                Err(error) => return Err(TftpError::Socket(error)),
            }
        };
        match packet::read(&self.buffer[..length])? {
            Packet::Error { code, .. } if code == UNKNOWN_TRANSFER => Err(TftpError::Gone(1)),
            Packet::Error { code, message } => Err(TftpError::Refused { code, message }),
            packet => Ok(Some(packet)),
        }
    }

    /// The first one who answers from the server's address is our peer; others are
    /// told to leave us alone (they answer a request that was sent twice), from then on
    /// by the kernel, which tells us for it when the peer is gone.
    fn is_ours(&mut self, from: SocketAddr) -> bool {
        if from.ip() != self.server.ip() {
            return false;
        }
        if self.peer.is_none() {
            self.peer = Some(from);
            // Without it only the silence tells.
            let _ = self.socket.connect(from);
        }
        let ours = self.peer == Some(from);
        if !ours {
            let stop = packet::error(UNKNOWN_TRANSFER, "this transfer goes on elsewhere");
            let _ = self.socket.send_to(&stop, from);
        }
        ours
    }

    /// Goes on answering for a second, in the background, in case that the last
    /// acknowledgement was lost; a program that ends earlier loses nothing.
    pub(super) fn linger(mut self) {
        self.patience.silence = Duration::from_secs(1);
        std::thread::spawn(move || {
            loop {
                match self.hear() {
                    Ok(Some(Packet::Data { .. })) => self.repeat(self.said.clone()),
                    Ok(Some(_)) => {}
                    Ok(None) => self.due = Instant::now() + self.patience.silence,
                    Err(_) => return,
                }
            }
        });
    }
}

fn socket(server: SocketAddr) -> Result<UdpSocket, TftpError> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).map_err(TftpError::Socket)
}

/// Whether a receive may simply be tried again.
fn is_passing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(
        kind,
        ConnectionRefused | Interrupted | TimedOut | WouldBlock
    )
}
