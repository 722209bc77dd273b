//! A client of TFTP: gets and puts whole files, quickly and through loss.
//!
//! It asks for windows of blocks (RFC 7440), so that a transfer does not wait for
//! an answer to every block, and it asks again as soon as an answer is later than
//! answers usually are, not after whole seconds. A transfer of which the server knows
//! nothing any more, because it died and came back, is begun anew. Each ends in time.

mod packet;

mod window;

mod transfer;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::time::Duration;

use packet::{Packet, Request, Terms};
use transfer::Transfer;
use window::{Receiver, Sender, Verdict};

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
    /// The server knew nothing of the transfer any more, again and again.
    #[error("the server gave the transfer up {0} times")]
    Gone(u32),
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
/// So often a transfer is begun anew.
const BEGINNINGS_MAX: u32 = 20;

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
            silence: Duration::from_mins(1),
            total: Duration::from_mins(30),
        }
    }
}

/// Where a file goes that is got.
pub trait Destination: Write {
    /// Forgets what was written: the file comes from its beginning again.
    ///
    /// # Errors
    /// It cannot.
    fn begin_anew(&mut self) -> io::Result<()>;
}

impl Destination for File {
    fn begin_anew(&mut self) -> io::Result<()> {
        self.rewind()?;
        self.set_len(0)
    }
}

impl Destination for Vec<u8> {
    fn begin_anew(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Destination for io::Sink {
    fn begin_anew(&mut self) -> io::Result<()> {
        Ok(())
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
    pub fn get(&self, name: &str, to: &mut impl Destination) -> Result<u64, TftpError> {
        let (size, transfer) = self.persist(Terms::wished(0), |wish, again, transfer| {
            if again {
                to.begin_anew().map_err(TftpError::File)?;
            }
            get_with(transfer, name, wish, to)
        })?;
        transfer.linger();
        Ok(size)
    }

    /// Puts a file of `size` bytes; on return the server has all of it.
    ///
    /// # Errors
    /// Whatever kept the file from arriving whole.
    pub fn put(
        &self,
        name: &str,
        from: &mut (impl Read + Seek),
        size: u64,
    ) -> Result<(), TftpError> {
        self.persist(Terms::wished(size), |wish, again, transfer| {
            if again {
                from.rewind().map_err(TftpError::File)?;
            }
            put_with(transfer, name, wish, from, size)
        })?;
        Ok(())
    }

    /// Does a transfer, and does it again when the server knew nothing of it any more.
    fn persist<T>(
        &self,
        mut wish: Terms,
        mut attempt: impl FnMut(Terms, bool, &mut Transfer) -> Result<T, TftpError>,
    ) -> Result<(T, Transfer), TftpError> {
        let mut transfer = Transfer::new(self.server, self.patience)?;
        for beginnings in 0..BEGINNINGS_MAX {
            match attempt(wish, beginnings > 0, &mut transfer) {
                Err(TftpError::Refused { code, .. })
                    if code == REFUSES_OPTIONS && wish != Terms::PLAIN =>
                {
                    wish = Terms::PLAIN;
                }
                Err(TftpError::Gone(_)) => {}
                ended => return ended.map(|it| (it, transfer)),
            }
            transfer.begin_anew()?;
        }
        Err(TftpError::Gone(BEGINNINGS_MAX))
    }
}

fn get_with(
    transfer: &mut Transfer,
    name: &str,
    wish: Terms,
    to: &mut impl Write,
) -> Result<u64, TftpError> {
    transfer.say(packet::request(Request::Read, name, wish));
    let mut terms = Terms::PLAIN;
    let mut receiver = Receiver::new(terms.block_size, terms.window);
    let mut size = 0;
    loop {
        let answer = match transfer.hear()? {
            None => {
                receiver.silence();
                transfer.again();
                continue;
            }
            Some(Packet::Agreed(agreed)) if receiver.taken() == 0 => {
                transfer.went_on();
                terms = agreed;
                receiver = Receiver::new(terms.block_size, terms.window);
                true
            }
            Some(Packet::Data { block, bytes }) => match receiver.block(block, bytes.len()) {
                Verdict::Take { acknowledge, last } => {
                    to.write_all(bytes).map_err(TftpError::File)?;
                    size += bytes.len() as u64;
                    transfer.went_on();
                    if last {
                        transfer.say(packet::acknowledgement(receiver.taken()));
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
            transfer.say(packet::acknowledgement(receiver.taken()));
        }
    }
    match terms.size {
        Some(announced) if announced != size => Err(TftpError::Size {
            announced,
            real: size,
        }),
        _ => Ok(size),
    }
}

fn put_with(
    transfer: &mut Transfer,
    name: &str,
    wish: Terms,
    from: &mut impl Read,
    size: u64,
) -> Result<(), TftpError> {
    transfer.say(packet::request(Request::Write, name, wish));
    let terms = loop {
        match transfer.hear()? {
            None => transfer.again(),
            Some(Packet::Agreed(terms)) => break terms,
            Some(Packet::Acknowledged(0)) => break Terms::PLAIN,
            Some(_) => {}
        }
    };
    transfer.went_on();
    let mut sender = Sender::new(size, terms.block_size, terms.window);
    let mut blocks = Blocks::new(from, size, terms.block_size);
    let mut furthest = 0;
    while !sender.is_done() {
        while let Some(block) = sender.next() {
            let packet = packet::data(window::on_the_wire(block), blocks.get(block)?);
            if block > furthest {
                furthest = block;
                transfer.say(packet);
            } else {
                transfer.repeat(packet);
            }
        }
        let acknowledged = match transfer.hear()? {
            None => {
                transfer.late();
                sender.silence();
                continue;
            }
            Some(Packet::Agreed(_)) => 0,
            Some(Packet::Acknowledged(block)) => block,
            Some(_) => continue,
        };
        if sender.acknowledge(acknowledged) {
            transfer.went_on();
            blocks.forget(sender.acknowledged());
        }
    }
    Ok(())
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
