//! A TFTP client for measurements of all servers. It has little overhead, retransmits after one
//! second, as most clients do, and can simulate packet loss.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use config::task::GATEWAY;

const BLOCK: usize = 1468;
/// The time after which the client retransmits.
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_secs(1);

/// A link that loses the same packets in every run.
pub(super) struct Link {
    lost_percent: u64,
    sent: Xorshift,
    received: Xorshift,
}

impl Link {
    /// Returns a link that loses no packets.
    pub(super) fn lossless() -> Self {
        Self::lossy(0, 0)
    }

    /// Returns a link that loses a percentage of the packets in each direction.
    pub(super) fn lossy(lost_percent: u64, seed: u64) -> Self {
        Self {
            lost_percent,
            sent: Xorshift::new(seed),
            received: Xorshift::new(!seed),
        }
    }

    fn loses_sent(&mut self) -> bool {
        self.lost_percent > 0 && self.sent.draw() % 100 < self.lost_percent
    }

    fn loses_received(&mut self) -> bool {
        self.lost_percent > 0 && self.received.draw() % 100 < self.lost_percent
    }
}

/// A generator of pseudo-random numbers.
struct Xorshift(u64);

impl Xorshift {
    fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd))
    }

    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}

/// Returns content in which no two blocks are equal.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let mut random = Xorshift::new(1);
    std::iter::repeat_with(|| random.draw().to_le_bytes()[0])
        .take(size)
        .collect()
}

/// A file that was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) size: u64,
    /// The window to which the server agreed; 1 if it does not support windows.
    pub(super) window: u64,
}

/// Fetches a file and passes its blocks to `keep` in order. The error is [`ErrorKind::TimedOut`] if
/// the transfer exceeds the time limit.
pub(super) fn fetch(
    name: &str,
    window: u64,
    link: &mut Link,
    time_limit: Duration,
    keep: &mut impl FnMut(&[u8]),
) -> io::Result<Fetched> {
    let socket = UdpSocket::bind((GATEWAY, 0))?;
    let deadline = Instant::now() + time_limit;
    socket.set_read_timeout(Some(RETRANSMISSION_TIMEOUT.min(time_limit)))?;
    let window = request(&socket, name, window, link, deadline)?;
    let mut buffer = [0; BLOCK + 5];
    let (mut received, mut size, mut in_window) = (0_u64, 0_u64, 0);
    let mut unexpected: Option<u16> = None;
    acknowledge(&socket, 0, link)?;
    loop {
        let Some(length) = receive(&socket, &mut buffer, link)? else {
            check_deadline(deadline)?;
            acknowledge(&socket, received, link)?;
            (in_window, unexpected) = (0, None);
            continue;
        };
        let (number, data) = data(&buffer[..length])?;
        if u64::from(number) != (received + 1) & 0xffff {
            // A block or the last acknowledgement was lost. The acknowledgement is repeated once
            // for each retransmission by the server.
            let is_retransmission = unexpected
                .is_none_or(|unexpected| number.wrapping_sub(unexpected).cast_signed() <= 0);
            unexpected = Some(number);
            if is_retransmission {
                check_deadline(deadline)?;
                acknowledge(&socket, received, link)?;
                in_window = 0;
            }
            continue;
        }
        keep(data);
        received += 1;
        in_window += 1;
        unexpected = None;
        size += data.len() as u64;
        let is_last = data.len() < BLOCK;
        if is_last || in_window == window {
            in_window = 0;
            check_deadline(deadline)?;
            acknowledge(&socket, received, link)?;
        }
        if is_last {
            return Ok(Fetched { size, window });
        }
    }
}

/// Requests a file until a server replies, connects the socket to the server, and returns the
/// window. A server that does not support windows omits the option.
fn request(
    socket: &UdpSocket,
    name: &str,
    window: u64,
    link: &mut Link,
    deadline: Instant,
) -> io::Result<u64> {
    let options = format!("{name};octet;blksize;{BLOCK};windowsize;{window};").replace(';', "\0");
    let request = [&[0, 1][..], options.as_bytes()].concat();
    let mut buffer = [0; BLOCK + 5];
    loop {
        check_deadline(deadline)?;
        if !link.loses_sent() {
            socket.send_to(&request, (GATEWAY, 69))?;
        }
        let (length, from) = match socket.recv_from(&mut buffer) {
            Err(error) if is_timeout(&error) => continue,
            received => received?,
        };
        if link.loses_received() {
            continue;
        }
        if buffer[1] != 6 {
            return Err(server_error(&buffer[..length]));
        }
        socket.connect(from)?;
        let options = String::from_utf8_lossy(&buffer[2..length]);
        let mut fields = options.split('\0');
        let has_window = fields.any(|field| field.eq_ignore_ascii_case("windowsize"));
        let window = fields.next().and_then(|field| field.parse().ok());
        return Ok(window.filter(|_| has_window).unwrap_or(1));
    }
}

/// Returns the length of the next packet that is not lost, or `None` after a timeout.
fn receive(socket: &UdpSocket, buffer: &mut [u8], link: &mut Link) -> io::Result<Option<usize>> {
    loop {
        match socket.recv(buffer) {
            Err(error) if is_timeout(&error) => return Ok(None),
            received => {
                let length = received?;
                if !link.loses_received() {
                    return Ok(Some(length));
                }
            }
        }
    }
}

/// Returns the number and the data of a block.
fn data(packet: &[u8]) -> io::Result<(u16, &[u8])> {
    match packet {
        [0, 3, high, low, data @ ..] => Ok((u16::from_be_bytes([*high, *low]), data)),
        // A repeated option acknowledgement.
        [0, 6, ..] => Ok((0, &[])),
        _ => Err(server_error(packet)),
    }
}

fn acknowledge(socket: &UdpSocket, block: u64, link: &mut Link) -> io::Result<()> {
    let [.., high, low] = block.to_be_bytes();
    if !link.loses_sent() {
        socket.send(&[0, 4, high, low])?;
    }
    Ok(())
}

fn check_deadline(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline {
        Ok(())
    } else {
        Err(ErrorKind::TimedOut.into())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn server_error(packet: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(packet.get(4..).unwrap_or_default());
    io::Error::other(format!("the server replied: {text}"))
}
