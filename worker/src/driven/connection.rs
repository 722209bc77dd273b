//! A connection to the host that carries frames.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use config::exec::{Decoder, Frame};

/// The time that the host has to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The time that the host has to close the connection of a command that could not be started.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The size of one read.
const PIECE: usize = 32 * 1024;

/// A connection to the host. Its copies share the stream; only one of them may receive.
pub(super) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
}

impl Connection {
    /// Connects to the host.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            decoder: Decoder::default(),
        })
    }

    /// Returns another connection over the same stream, for sending.
    pub(super) fn sender(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            decoder: Decoder::default(),
        })
    }

    /// Sends a frame. Waits while the host takes none.
    pub(super) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.stream.write_all(&frame.to_bytes())
    }

    /// Receives the next frame; `None` at the end of the stream.
    pub(super) fn receive(&mut self) -> io::Result<Option<Frame>> {
        let mut piece = vec![0; PIECE];
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what the host still sends until it closes the connection. A close before that would reset
    /// the connection, and the last frames would be lost.
    pub(super) fn drain(mut self) {
        let deadline = Instant::now() + DRAIN_MAX;
        let mut piece = vec![0; PIECE];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}
