//! The TFTP client. It gets and puts whole files, also over a link that loses packets.
//!
//! It requests windows of blocks (RFC 7440), so a transfer does not wait for the answer to
//! every block, and its retransmission timeout follows the measured round-trip times. If the
//! server has lost a transfer, for example in a restart, the client starts it again. Every
//! transfer has a time limit.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tftpd::ErrorCode;

mod negotiation;
mod transfer;
mod window;

use crate::codec::{Options, Packet, ack, data_header, wire_block};
use negotiation::{Negotiated, read_request, requested, write_request};
use transfer::Transfer;
use window::{Action, ReceiveWindow, SendWindow};

/// The port of a TFTP server.
pub const PORT: u16 = 69;

/// The maximum number of attempts at one transfer.
const ATTEMPTS_MAX: u32 = 20;

/// The reason for which a file was not transferred.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The system has no socket.
    #[error("cannot open a socket")]
    Socket(#[source] io::Error),
    /// The server refused the file.
    #[error("the server refused: {message} (code {code})")]
    Refused {
        /// The error code of RFC 1350.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// The server sent nothing, or nothing new, for too long.
    #[error("{server} did not answer for {} seconds", .waited.as_secs())]
    IdleTimeout {
        /// The address of the server.
        server: SocketAddr,
        /// The time without progress.
        waited: Duration,
        /// The error of the last send.
        source: Option<io::Error>,
    },
    /// The server lost the transfer in each attempt.
    #[error("the server lost the transfer {} times", ATTEMPTS_MAX)]
    Lost,
    /// The transfer took too long.
    #[error("the transfer took longer than {} seconds", .0.as_secs())]
    TotalTimeout(Duration),
    /// The size of the file is not the announced one.
    #[error("{announced} bytes were announced, {actual} arrived")]
    Size {
        /// The size that the sending side announced.
        announced: u64,
        /// The size that it sent.
        actual: u64,
    },
    /// The local file cannot be read or written.
    #[error("cannot read or write the local file")]
    File(#[source] io::Error),
    /// The server violates the protocol.
    #[error("the server sent {0}")]
    Protocol(&'static str),
}

/// The limits of one transfer.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// The limit of the time without progress.
    pub idle: Duration,
    /// The limit of the whole transfer.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(1),
            total: Duration::from_mins(30),
        }
    }
}

/// The destination of a file that is got.
pub trait Destination: Write {
    /// Discards everything that was written, because the transfer starts again.
    ///
    /// # Errors
    /// The content cannot be discarded.
    fn restart(&mut self) -> io::Result<()>;
}

impl Destination for File {
    fn restart(&mut self) -> io::Result<()> {
        self.rewind()?;
        self.set_len(0)
    }
}

impl Destination for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Destination for io::Sink {
    fn restart(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client of one server.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    server: SocketAddr,
    timeouts: Timeouts,
}

impl Client {
    /// Creates a client, and sends nothing yet.
    pub fn new(server: SocketAddr, timeouts: Timeouts) -> Self {
        Self { server, timeouts }
    }

    /// Returns the address of the server.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Gets a file and returns its size. After an error, `to` may contain a part of it.
    ///
    /// # Errors
    /// The file was not received completely.
    pub fn get(&self, name: &str, to: &mut impl Destination) -> Result<u64, ClientError> {
        let (size, transfer) = self.run(requested(0), |options, restarted, transfer| {
            if restarted {
                to.restart().map_err(ClientError::File)?;
            }
            get(transfer, name, options, to)
        })?;
        transfer.dally();
        Ok(size)
    }

    /// Puts a file of `size` bytes. When it returns, the server has the whole file.
    ///
    /// # Errors
    /// The server did not confirm the whole file.
    pub fn put(
        &self,
        name: &str,
        from: &mut (impl Read + Seek),
        size: u64,
    ) -> Result<(), ClientError> {
        self.run(requested(size), |options, restarted, transfer| {
            if restarted {
                from.rewind().map_err(ClientError::File)?;
            }
            put(transfer, name, options, from, size)
        })?;
        Ok(())
    }

    /// Runs a transfer. Restarts it when the server has lost it, and without options when
    /// the server refuses them.
    fn run<T>(
        &self,
        mut options: Options,
        mut attempt: impl FnMut(Options, bool, &mut Transfer) -> Result<T, ClientError>,
    ) -> Result<(T, Transfer), ClientError> {
        let mut transfer = Transfer::new(self.server, self.timeouts)?;
        for restarts in 0..ATTEMPTS_MAX {
            match attempt(options, restarts > 0, &mut transfer) {
                Err(ClientError::Refused { code, .. })
                    if code == ErrorCode::RefusedOption as u16 && options != Options::default() =>
                {
                    options = Options::default();
                }
                Err(ClientError::Lost) => {}
                result => return result.map(|value| (value, transfer)),
            }
            transfer.restart()?;
        }
        Err(ClientError::Lost)
    }
}

fn get(
    transfer: &mut Transfer,
    name: &str,
    options: Options,
    to: &mut impl Write,
) -> Result<u64, ClientError> {
    transfer.send(read_request(name, options));
    let mut negotiated = Negotiated::default();
    let mut window = ReceiveWindow::new(negotiated.block_size, negotiated.window);
    let mut size = 0;
    loop {
        let acknowledge = match transfer.receive()? {
            None => {
                window.time_out();
                transfer.resend_last();
                continue;
            }
            Some(Packet::OptionAck(accepted)) if window.last_received() == 0 => {
                transfer.record_progress();
                negotiated = Negotiated::accept(accepted)?;
                window = ReceiveWindow::new(negotiated.block_size, negotiated.window);
                true
            }
            Some(Packet::Data { block, payload }) => match window.receive(block, payload.len()) {
                Action::Accept { acknowledge, last } => {
                    to.write_all(payload).map_err(ClientError::File)?;
                    size += payload.len() as u64;
                    transfer.record_progress();
                    if last {
                        transfer.send(ack(window.last_received()).into());
                        break;
                    }
                    acknowledge
                }
                Action::Acknowledge => true,
                Action::Ignore => false,
            },
            Some(_) => false,
        };
        if acknowledge {
            transfer.send(ack(window.last_received()).into());
        }
    }
    match negotiated.size {
        Some(announced) if announced != size => Err(ClientError::Size {
            announced,
            actual: size,
        }),
        _ => Ok(size),
    }
}

fn put(
    transfer: &mut Transfer,
    name: &str,
    options: Options,
    from: &mut impl Read,
    size: u64,
) -> Result<(), ClientError> {
    transfer.send(write_request(name, options));
    let negotiated = loop {
        match transfer.receive()? {
            None => transfer.resend_last(),
            Some(Packet::OptionAck(accepted)) => break Negotiated::accept(accepted)?,
            Some(Packet::Ack(0)) => break Negotiated::default(),
            Some(_) => {}
        }
    };
    transfer.record_progress();
    let mut window = SendWindow::new(size, negotiated.block_size, negotiated.window);
    let mut blocks = Blocks::new(from, size, negotiated.block_size);
    let mut furthest = 0;
    while !window.is_done() {
        while let Some(block) = window.next() {
            let packet = [&data_header(wire_block(block)), blocks.get(block)?].concat();
            if block > furthest {
                furthest = block;
                transfer.send(packet);
            } else {
                transfer.resend(packet);
            }
        }
        let acknowledged = match transfer.receive()? {
            None => {
                transfer.back_off();
                window.time_out();
                continue;
            }
            Some(Packet::OptionAck(_)) => 0,
            Some(Packet::Ack(block)) => block,
            Some(_) => continue,
        };
        if window.acknowledge(acknowledged) {
            transfer.record_progress();
            blocks.discard(window.acknowledged());
        }
    }
    Ok(())
}

/// The blocks of a file that were read and are not acknowledged yet.
struct Blocks<'a, R> {
    from: &'a mut R,
    left: u64,
    size: u64,
    block_size: u64,
    /// The number of the first block in `kept`.
    first: u64,
    kept: VecDeque<Vec<u8>>,
}

impl<'a, R: Read> Blocks<'a, R> {
    fn new(from: &'a mut R, size: u64, block_size: u16) -> Self {
        Self {
            from,
            left: size,
            size,
            block_size: block_size.into(),
            first: 1,
            kept: VecDeque::new(),
        }
    }

    /// Returns a block that was not discarded, and reads the file up to it.
    fn get(&mut self, block: u64) -> Result<&[u8], ClientError> {
        let index = usize::try_from(block - self.first).unwrap_or(usize::MAX);
        while self.kept.len() <= index {
            let length = self.left.min(self.block_size);
            let mut bytes = Vec::new();
            let read = self.from.by_ref().take(length).read_to_end(&mut bytes);
            self.left -= read.map_err(ClientError::File)? as u64;
            if (bytes.len() as u64) < length {
                return Err(ClientError::Size {
                    announced: self.size,
                    actual: self.size - self.left,
                });
            }
            self.kept.push_back(bytes);
        }
        Ok(&self.kept[index])
    }

    fn discard(&mut self, acknowledged: u64) {
        while self.first <= acknowledged {
            self.kept.pop_front();
            self.first += 1;
        }
    }
}
