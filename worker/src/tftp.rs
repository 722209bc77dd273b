//! A client of TFTP: gets and puts whole files, quickly and through loss.
//!
//! It asks for windows of blocks (RFC 7440), so that a transfer does not wait for
//! an answer to every block, and it asks again as soon as an answer is later than
//! answers usually are, not after whole seconds. Every transfer ends in time.

mod packet;

mod flow;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use flow::{Pace, Receiver, Sender, Verdict};
use packet::{Packet, Request, Terms};

/// The port of a TFTP server.
pub const PORT: u16 = 69;

/// Why a file was not transferred.
#[derive(Debug, thiserror::Error)]
pub enum TftpError {
    /// This machine has no socket for us.
    #[error("cannot open a socket")]
    Socket(#[source] io::Error),
    /// The server said no.
    #[error("the server refused: {message} (code {code})")]
    Refused {
        /// Its number in RFC 1350.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The server said nothing, or nothing new, for too long.
    #[error("{server} did not answer for {} seconds{}", .waited.as_secs(), because(.fault.as_ref()))]
    Silent {
        /// Whom we asked.
        server: SocketAddr,
        /// For how long nothing new came.
        waited: Duration,
        /// What went wrong when we last sent something.
        fault: Option<io::Error>,
    },
    /// The transfer went on for too long.
    #[error("the transfer took longer than {} seconds", .0.as_secs())]
    Slow(Duration),
    /// Fewer or more bytes came, or were there, than were announced.
    #[error("{announced} bytes were announced, {real} came")]
    Size {
        /// As the sending side had said.
        announced: u64,
        /// As it was.
        real: u64,
    },
    /// The file on our side cannot be read or written.
    #[error("cannot read or write the local file")]
    File(#[source] io::Error),
    /// The server does not keep to the protocol.
    #[error("the server sent {0}")]
    Odd(&'static str),
}

fn because(fault: Option<&io::Error>) -> String {
    fault.map_or_else(String::new, |fault| format!(" ({fault})"))
}

/// The error code of a server that does not want to speak of options.
const REFUSES_OPTIONS: u16 = 8;
/// The error code for a packet of another transfer.
const UNKNOWN_TRANSFER: u16 = 5;

/// How long a client bears with a server.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With nothing new coming.
    pub silence: Duration,
    /// With one file altogether.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            total: Duration::from_mins(30),
        }
    }
}

/// A client of one server.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    server: SocketAddr,
    patience: Patience,
}

impl Client {
    /// A client of the server at this address; nothing is sent yet.
    pub fn new(server: SocketAddr, patience: Patience) -> Self {
        Self { server, patience }
    }

    /// The server's address.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Gets a file and returns its size. What came before an error is in `to`.
    ///
    /// # Errors
    /// Whatever kept the file from coming whole.
    pub fn get(&self, name: &str, to: &mut impl Write) -> Result<u64, TftpError> {
        match self.get_with(name, Terms::wished(0), to) {
            Err(TftpError::Refused { code, .. }) if code == REFUSES_OPTIONS => {
                self.get_with(name, Terms::PLAIN, to)
            }
            ended => ended,
        }
    }

    fn get_with(&self, name: &str, wish: Terms, to: &mut impl Write) -> Result<u64, TftpError> {
        let mut exchange = Exchange::begin(self, packet::request(Request::Read, name, wish))?;
        let mut terms = Terms::PLAIN;
        let mut receiver = Receiver::new(terms.block_size, terms.window);
        let mut size = 0;
        loop {
            let answer = match exchange.hear()? {
                None => {
                    receiver.silence();
                    exchange.again();
                    continue;
                }
                Some(Packet::Agreed(agreed)) if receiver.taken() == 0 => {
                    exchange.went_on();
                    terms = agreed;
                    receiver = Receiver::new(terms.block_size, terms.window);
                    true
                }
                Some(Packet::Data { block, bytes }) => match receiver.block(block, bytes.len()) {
                    Verdict::Take { acknowledge, last } => {
                        to.write_all(bytes).map_err(TftpError::File)?;
                        size += bytes.len() as u64;
                        exchange.went_on();
                        if last {
                            exchange.say(packet::acknowledgement(receiver.taken()));
                            break;
                        }
                        acknowledge
                    }
                    Verdict::Again => true,
                    Verdict::Ignore => false,
                },
                Some(_) => false,
            };
            if answer {
                exchange.say(packet::acknowledgement(receiver.taken()));
            }
        }
        exchange.linger();
        match terms.size {
            Some(announced) if announced != size => Err(TftpError::Size {
                announced,
                real: size,
            }),
            _ => Ok(size),
        }
    }

    /// Puts a file of `size` bytes; on return the server has all of it.
    ///
    /// # Errors
    /// Whatever kept the file from arriving whole.
    pub fn put(&self, name: &str, from: &mut impl Read, size: u64) -> Result<(), TftpError> {
        match self.put_with(name, Terms::wished(size), from, size) {
            Err(TftpError::Refused { code, .. }) if code == REFUSES_OPTIONS => {
                self.put_with(name, Terms::PLAIN, from, size)
            }
            ended => ended,
        }
    }

    fn put_with(
        &self,
        name: &str,
        wish: Terms,
        from: &mut impl Read,
        size: u64,
    ) -> Result<(), TftpError> {
        let mut exchange = Exchange::begin(self, packet::request(Request::Write, name, wish))?;
        let terms = loop {
            match exchange.hear()? {
                None => exchange.again(),
                Some(Packet::Agreed(terms)) => break terms,
                Some(Packet::Acknowledged(0)) => break Terms::PLAIN,
                Some(_) => {}
            }
        };
        exchange.went_on();
        let mut sender = Sender::new(size, terms.block_size, terms.window);
        let mut blocks = Blocks::new(from, size, terms.block_size);
        let mut furthest = 0;
        while !sender.is_done() {
            while let Some(block) = sender.next() {
                let packet = packet::data(flow::on_the_wire(block), blocks.get(block)?);
                if block > furthest {
                    furthest = block;
                    exchange.say(packet);
                } else {
                    exchange.repeat(packet);
                }
            }
            let acknowledged = match exchange.hear()? {
                None => {
                    exchange.late();
                    sender.silence();
                    continue;
                }
                Some(Packet::Agreed(_)) => 0,
                Some(Packet::Acknowledged(block)) => block,
                Some(_) => continue,
            };
            if sender.acknowledge(acknowledged) {
                exchange.went_on();
                blocks.forget(sender.acknowledged());
            }
        }
        Ok(())
    }
}

/// The blocks of a file that are read, but not yet acknowledged.
struct Blocks<'a, R> {
    from: &'a mut R,
    left: u64,
    size: u64,
    block_size: u64,
    /// The number of the first one that is kept.
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

    /// A block that was not forgotten yet, or the next one of the file.
    fn get(&mut self, block: u64) -> Result<&[u8], TftpError> {
        let index = usize::try_from(block - self.first).unwrap_or(usize::MAX);
        while self.kept.len() <= index {
            let length = self.left.min(self.block_size);
            let mut bytes = Vec::new();
            let read = self.from.by_ref().take(length).read_to_end(&mut bytes);
            self.left -= read.map_err(TftpError::File)? as u64;
            if (bytes.len() as u64) < length {
                return Err(TftpError::Size {
                    announced: self.size,
                    real: self.size - self.left,
                });
            }
            self.kept.push_back(bytes);
        }
        Ok(&self.kept[index])
    }

    fn forget(&mut self, acknowledged: u64) {
        while self.first <= acknowledged {
            self.kept.pop_front();
            self.first += 1;
        }
    }
}

/// One transfer's packets: to whom, from whom, and how long to wait for them.
struct Exchange {
    socket: UdpSocket,
    server: SocketAddr,
    /// The port of the server that it answered from, and answers from since.
    peer: Option<SocketAddr>,
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

impl Exchange {
    fn begin(client: &Client, request: Vec<u8>) -> Result<Self, TftpError> {
        let any: SocketAddr = match client.server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let now = Instant::now();
        let mut exchange = Self {
            socket: UdpSocket::bind(any).map_err(TftpError::Socket)?,
            server: client.server,
            peer: None,
            patience: client.patience,
            pace: Pace::new(),
            said: Vec::new(),
            said_at: None,
            due: now,
            begun: now,
            went_on: now,
            fault: None,
            buffer: vec![0; 2048],
        };
        exchange.say(request);
        Ok(exchange)
    }

    /// Sends something new.
    fn say(&mut self, packet: Vec<u8>) {
        self.send(packet);
        self.said_at = Some(Instant::now());
    }

    /// Sends something that was sent before.
    fn repeat(&mut self, packet: Vec<u8>) {
        self.send(packet);
        self.said_at = None;
    }

    /// That something cannot be sent is as if it were lost.
    fn send(&mut self, packet: Vec<u8>) {
        let to = self.peer.unwrap_or(self.server);
        self.fault = self.socket.send_to(&packet, to).err();
        self.said = packet;
        self.due = Instant::now() + self.pace.wait();
    }

    /// Sends the last thing once more, when an answer to it is late.
    fn again(&mut self) {
        self.late();
        self.repeat(self.said.clone());
    }

    /// An answer is late: give the next one more time.
    fn late(&mut self) {
        self.pace.silence();
    }

    /// What was heard is new.
    fn went_on(&mut self) {
        self.went_on = Instant::now();
        let took = self.said_at.take().map(|said| self.went_on - said);
        self.pace.answered(took);
        self.due = self.went_on + self.pace.wait();
    }

    /// Ends the transfer when nothing has come for too long.
    fn bear(&self) -> Result<(), TftpError> {
        let waited = self.went_on.elapsed();
        if waited < self.patience.silence {
            return Ok(());
        }
        Err(TftpError::Silent {
            server: self.server,
            waited,
            fault: self.fault.as_ref().map(|fault| fault.kind().into()),
        })
    }

    /// The next packet of our transfer; `None` when an answer is late.
    fn hear(&mut self) -> Result<Option<Packet<'_>>, TftpError> {
        if self.begun.elapsed() >= self.patience.total {
            return Err(TftpError::Slow(self.patience.total));
        }
        let length = loop {
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
                Err(error) if is_passing(error.kind()) => {}
                Err(error) => return Err(TftpError::Socket(error)),
            }
        };
        match packet::read(&self.buffer[..length])? {
            Packet::Error { code, message } => Err(TftpError::Refused { code, message }),
            packet => Ok(Some(packet)),
        }
    }

    /// The first one who answers from the server's address is our peer; others are
    /// told to leave us alone (they answer a request that was sent twice).
    fn is_ours(&mut self, from: SocketAddr) -> bool {
        if from.ip() != self.server.ip() {
            return false;
        }
        let ours = *self.peer.get_or_insert(from) == from;
        if !ours {
            let stop = packet::error(UNKNOWN_TRANSFER, "this transfer goes on elsewhere");
            let _ = self.socket.send_to(&stop, from);
        }
        ours
    }

    /// Goes on answering for a second, in the background, in case that the last
    /// acknowledgement was lost; a program that ends earlier loses nothing.
    fn linger(mut self) {
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

/// Whether a receive may simply be tried again.
fn is_passing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(
        kind,
        ConnectionRefused | Interrupted | TimedOut | WouldBlock
    )
}
