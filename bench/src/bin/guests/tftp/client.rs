//! One client for all servers: it costs next to nothing, and sends again what was not
//! answered after a second, as most do. Its line can lose packets.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use config::task::GATEWAY;

const BLOCK: usize = 1468;
/// How long it waits before it sends again.
const WAIT: Duration = Duration::from_secs(1);

/// What the line does to packets: the same in every run.
pub(super) struct Line {
    lost_percent: u64,
    sent: Dice,
    received: Dice,
}

impl Line {
    /// A line that loses nothing.
    pub(super) fn whole() -> Self {
        Self::lossy(0, 0)
    }

    /// A line that loses so many packets of a hundred in each direction.
    pub(super) fn lossy(lost_percent: u64, seed: u64) -> Self {
        Self {
            lost_percent,
            sent: Dice::new(seed),
            received: Dice::new(!seed),
        }
    }

    fn loses_sent(&mut self) -> bool {
        self.lost_percent > 0 && self.sent.roll() % 100 < self.lost_percent
    }

    fn loses_received(&mut self) -> bool {
        self.lost_percent > 0 && self.received.roll() % 100 < self.lost_percent
    }
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd))
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}

/// A file in which no two blocks are alike.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let mut dice = Dice::new(1);
    std::iter::repeat_with(|| dice.roll().to_le_bytes()[0])
        .take(size)
        .collect()
}

/// What came.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) size: u64,
    /// What the server agreed to; 1 when it knows no windows.
    pub(super) window: u64,
}

/// Fetches a file and hands on what comes, in its order. With [`ErrorKind::TimedOut`],
/// it has taken longer than `patience`.
pub(super) fn fetch(
    name: &str,
    window: u64,
    line: &mut Line,
    patience: Duration,
    keep: &mut impl FnMut(&[u8]),
) -> io::Result<Fetched> {
    let socket = UdpSocket::bind((GATEWAY, 0))?;
    let deadline = Instant::now() + patience;
    socket.set_read_timeout(Some(WAIT.min(patience)))?;
    let window = ask(&socket, name, window, line, deadline)?;
    let mut buffer = [0; BLOCK + 5];
    let (mut got, mut size, mut in_window) = (0_u64, 0_u64, 0);
    let mut odd: Option<u16> = None;
    acknowledge(&socket, 0, line)?;
    loop {
        let Some(length) = receive(&socket, &mut buffer, line)? else {
            in_time(deadline)?;
            acknowledge(&socket, got, line)?;
            (in_window, odd) = (0, None);
            continue;
        };
        let (number, data) = data(&buffer[..length])?;
        if u64::from(number) != (got + 1) & 0xffff {
            // Something is missing, or our last word was: said once for each time
            // that the server sends from somewhere on.
            let again = odd.is_none_or(|odd| number.wrapping_sub(odd).cast_signed() <= 0);
            odd = Some(number);
            if again {
                in_time(deadline)?;
                acknowledge(&socket, got, line)?;
                in_window = 0;
            }
            continue;
        }
        keep(data);
        got += 1;
        in_window += 1;
        odd = None;
        size += data.len() as u64;
        let is_last = data.len() < BLOCK;
        if is_last || in_window == window {
            in_window = 0;
            in_time(deadline)?;
            acknowledge(&socket, got, line)?;
        }
        if is_last {
            return Ok(Fetched { size, window });
        }
    }
}

/// Asks for a file until a server answers; the socket is its from then on. Returns the
/// window: servers that know none leave the option out.
fn ask(
    socket: &UdpSocket,
    name: &str,
    window: u64,
    line: &mut Line,
    deadline: Instant,
) -> io::Result<u64> {
    let options = format!("{name};octet;blksize;{BLOCK};windowsize;{window};").replace(';', "\0");
    let request = [&[0, 1][..], options.as_bytes()].concat();
    let mut buffer = [0; BLOCK + 5];
    loop {
        in_time(deadline)?;
        if !line.loses_sent() {
            socket.send_to(&request, (GATEWAY, 69))?;
        }
        let (length, from) = match socket.recv_from(&mut buffer) {
            Err(error) if is_late(&error) => continue,
            received => received?,
        };
        if line.loses_received() {
            continue;
        }
        if buffer[1] != 6 {
            return Err(refused(&buffer[..length]));
        }
        socket.connect(from)?;
        let answer = String::from_utf8_lossy(&buffer[2..length]);
        let mut words = answer.split('\0');
        let known = words.any(|word| word.eq_ignore_ascii_case("windowsize"));
        return if known {
            Ok(words.next().and_then(|word| word.parse().ok()).unwrap_or(1))
        } else {
            Ok(1)
        };
    }
}

/// The next packet that the line lets through, unless none comes for a while.
fn receive(socket: &UdpSocket, buffer: &mut [u8], line: &mut Line) -> io::Result<Option<usize>> {
    loop {
        match socket.recv(buffer) {
            Err(error) if is_late(&error) => return Ok(None),
            received => {
                let length = received?;
                if !line.loses_received() {
                    return Ok(Some(length));
                }
            }
        }
    }
}

/// The number of a block, and what it carries.
fn data(packet: &[u8]) -> io::Result<(u16, &[u8])> {
    match packet {
        [0, 3, high, low, data @ ..] => Ok((u16::from_be_bytes([*high, *low]), data)),
        // The answer to our request, once more.
        [0, 6, ..] => Ok((0, &[])),
        _ => Err(refused(packet)),
    }
}

fn acknowledge(socket: &UdpSocket, block: u64, line: &mut Line) -> io::Result<()> {
    let [.., high, low] = block.to_be_bytes();
    if !line.loses_sent() {
        socket.send(&[0, 4, high, low])?;
    }
    Ok(())
}

fn in_time(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline {
        Ok(())
    } else {
        Err(ErrorKind::TimedOut.into())
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn refused(packet: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(packet.get(4..).unwrap_or_default());
    io::Error::other(format!("the server says: {text}"))
}
