//! The host as a guest sees it: a plain TFTP server over a map of files.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tftpd::{ErrorCode, OptionType, Packet, TransferOption};

/// After so long without a packet the server repeats its last one.
const LATE: Duration = Duration::from_millis(20);
/// After so many repetitions it gives up.
const REPETITIONS_MAX: u32 = 500;

/// What ends a transfer.
const DEATH: Packet = Packet::Error {
    code: ErrorCode::NotDefined,
    msg: String::new(),
};

/// What a host is like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// It has never heard of options.
    pub(crate) plain: bool,
    /// It takes smaller blocks than asked for.
    pub(crate) block_size_max: Option<u16>,
    /// It takes nothing under these names.
    pub(crate) refuses: Vec<&'static str>,
    /// It is killed when it has heard so many packets of transfers, and comes back when
    /// it was asked in vain twice.
    pub(crate) dies_after: Option<u32>,
}

/// How long a host lives.
#[derive(Debug, Clone)]
struct Life {
    /// How many packets it hears until it dies; it has lived when there are fewer than 0.
    left: Arc<AtomicI64>,
    /// How many requests it does not hear.
    away: Arc<AtomicI64>,
}

impl Life {
    fn new(manners: &Manners) -> Self {
        Self {
            left: Arc::new(manners.dies_after.map_or(i64::MAX, i64::from).into()),
            away: Arc::default(),
        }
    }

    /// Whether it dies of this packet.
    fn ends(&self) -> bool {
        let ends = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if ends {
            self.away.store(2, Ordering::SeqCst);
        }
        ends
    }

    fn is_away(&self) -> bool {
        self.away.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

/// A host that serves until the test ends.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    puts: Arc<Mutex<Vec<String>>>,
    life: Life,
}

impl Host {
    pub(crate) fn start(manners: Manners) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let host = Self {
            address: socket.local_addr().unwrap(),
            files: Arc::default(),
            puts: Arc::default(),
            life: Life::new(&manners),
        };
        let life = host.life.clone();
        let (files, puts) = (host.files.clone(), host.puts.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if life.is_away() {
                    continue;
                }
                let life = life.clone();
                let Ok(request) = Packet::deserialize(&buffer[..length]) else {
                    continue;
                };
                let (files, puts, manners) = (files.clone(), puts.clone(), manners.clone());
                std::thread::spawn(move || serve(peer, request, &manners, &files, &puts, life));
            }
        });
        host
    }

    pub(crate) fn give(&self, name: &str, content: impl Into<Vec<u8>>) {
        self.files
            .lock()
            .unwrap()
            .insert(name.to_owned(), content.into());
    }

    pub(crate) fn has(&self, name: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let content = self.has(name);
        String::from_utf8(content.unwrap_or_else(|| panic!("{name} was not put"))).unwrap()
    }

    pub(crate) fn has_died(&self) -> bool {
        self.life.left.load(Ordering::SeqCst) <= 0
    }

    /// The names of what was put, in order.
    pub(crate) fn puts(&self) -> Vec<String> {
        self.puts.lock().unwrap().clone()
    }
}

fn serve(
    peer: SocketAddr,
    request: Packet,
    manners: &Manners,
    files: &Mutex<BTreeMap<String, Vec<u8>>>,
    puts: &Mutex<Vec<String>>,
    life: Life,
) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peer).unwrap();
    socket.set_read_timeout(Some(LATE)).unwrap();
    match request {
        Packet::Rrq {
            filename, options, ..
        } => {
            let content = files.lock().unwrap().get(&filename).cloned();
            match content {
                Some(content) => {
                    let size = content.len() as u64;
                    Transfer::agree(socket, &options, manners, Some(size), life).send(&content);
                }
                None => refuse(&socket, ErrorCode::FileNotFound, "there is no such file"),
            }
        }
        Packet::Wrq { filename, .. } if manners.refuses.contains(&filename.as_str()) => {
            refuse(&socket, ErrorCode::DiskFull, "it is too large");
        }
        Packet::Wrq {
            filename, options, ..
        } => {
            Transfer::agree(socket, &options, manners, None, life).receive(|content| {
                let new = files.lock().unwrap().insert(filename.clone(), content);
                if new.is_none() {
                    puts.lock().unwrap().push(filename);
                }
            });
        }
        _ => {}
    }
}

fn refuse(socket: &UdpSocket, code: ErrorCode, words: &str) {
    let msg = words.to_owned();
    say(socket, &Packet::Error { code, msg });
}

fn say(socket: &UdpSocket, packet: &Packet) {
    let _ = socket.send(&packet.serialize().unwrap());
}

/// One transfer, with what was agreed.
struct Transfer {
    socket: UdpSocket,
    block_size: usize,
    window: u16,
    said: Packet,
    life: Life,
}

impl Transfer {
    fn agree(
        socket: UdpSocket,
        options: &[TransferOption],
        manners: &Manners,
        size: Option<u64>,
        life: Life,
    ) -> Self {
        let mut transfer = Self {
            socket,
            block_size: 512,
            window: 1,
            said: Packet::Ack(0),
            life,
        };
        if options.is_empty() || manners.plain {
            return transfer;
        }
        let mut agreed = options.to_vec();
        for option in &mut agreed {
            match option.option {
                OptionType::BlockSize => {
                    let max = manners.block_size_max.map_or(u64::MAX, u64::from);
                    option.value = option.value.min(max);
                    transfer.block_size = option.value.try_into().unwrap();
                }
                OptionType::WindowSize => transfer.window = option.value.try_into().unwrap(),
                OptionType::TransferSize => option.value = size.unwrap_or(option.value),
                _ => {}
            }
        }
        transfer.said = Packet::Oack(agreed);
        transfer
    }

    fn hear(&self) -> Option<Packet> {
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).ok()?;
        if self.life.ends() {
            return Some(DEATH);
        }
        Packet::deserialize(&buffer[..length]).ok()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the wire has 16 bits")]
    fn send(&mut self, content: &[u8]) {
        let blocks = content.len() / self.block_size + 1;
        let mut acknowledged = 0;
        if matches!(self.said, Packet::Oack(_)) && !self.wait_for_begin() {
            return;
        }
        let mut repetitions = 0;
        while acknowledged < blocks && repetitions < REPETITIONS_MAX {
            for block in acknowledged..blocks.min(acknowledged + usize::from(self.window)) {
                let start = block * self.block_size;
                let end = content.len().min(start + self.block_size);
                let packet = Packet::Data {
                    block_num: (block + 1) as u16,
                    data: content[start..end].to_vec(),
                };
                say(&self.socket, &packet);
            }
            repetitions += 1;
            while let Some(packet) = self.hear() {
                let Packet::Ack(block) = packet else { return };
                let news = block.wrapping_sub(acknowledged as u16);
                if (1..=self.window).contains(&news) {
                    acknowledged += usize::from(news);
                    repetitions = 0;
                    break;
                }
            }
        }
    }

    fn wait_for_begin(&self) -> bool {
        let heard = (0..REPETITIONS_MAX).find_map(|_| {
            say(&self.socket, &self.said);
            self.hear()
        });
        matches!(heard, Some(Packet::Ack(0)))
    }

    /// Keeps what comes, before the last acknowledgement: then it is there.
    fn receive(&mut self, keep: impl FnOnce(Vec<u8>)) {
        let (mut content, mut blocks) = (Vec::new(), 0_u16);
        let (mut repetitions, mut unacknowledged) = (0, 0);
        say(&self.socket, &self.said);
        while repetitions < REPETITIONS_MAX {
            match self.hear() {
                Some(Packet::Data { block_num, data }) if block_num == blocks.wrapping_add(1) => {
                    blocks = block_num;
                    repetitions = 0;
                    unacknowledged += 1;
                    content.extend_from_slice(&data);
                    self.said = Packet::Ack(blocks);
                    if data.len() < self.block_size {
                        keep(content);
                        return self.linger();
                    }
                    if unacknowledged == self.window {
                        unacknowledged = 0;
                        say(&self.socket, &self.said);
                    }
                }
                Some(Packet::Data { .. }) => {}
                Some(_) => return,
                None => {
                    repetitions += 1;
                    unacknowledged = 0;
                    say(&self.socket, &self.said);
                }
            }
        }
    }

    /// Says the last word, and says it again, in case that it was lost.
    fn linger(&self) {
        say(&self.socket, &self.said);
        for _ in 0..500 {
            if let Some(Packet::Data { .. }) = self.hear() {
                say(&self.socket, &self.said);
            }
        }
    }
}
