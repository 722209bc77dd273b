//! A plain TFTP server over a table of files, which can be killed and restarted.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tftpd::{ErrorCode, OptionType, Packet, TransferOption};

/// The server repeats its last packet after this time.
const TIMEOUT: Duration = Duration::from_millis(20);
/// The server gives up after so many repetitions.
const REPETITIONS_MAX: u32 = 500;
/// The requests that a killed server does not receive until it is restarted.
const DOWN_REQUESTS: i64 = 2;

/// The packet that ends a transfer of a killed server.
const KILLED: Packet = Packet::Error {
    code: ErrorCode::NotDefined,
    msg: String::new(),
};

/// The behavior of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behavior {
    /// It knows no options.
    pub(crate) without_options: bool,
    /// It lowers the block size to this one.
    pub(crate) block_size_max: Option<u16>,
    /// It refuses files with these names.
    pub(crate) refused: Vec<&'static str>,
    /// It is killed after so many packets of transfers, and restarted after two requests.
    pub(crate) killed_after: Option<u32>,
}

/// The countdown until a server is killed and restarted.
#[derive(Debug, Clone)]
struct Lifetime {
    /// The packets until it is killed.
    packets: Arc<AtomicI64>,
    /// The requests until it is restarted.
    down: Arc<AtomicI64>,
}

impl Lifetime {
    fn new(behavior: &Behavior) -> Self {
        let packets = behavior.killed_after.map_or(i64::MAX, i64::from);
        Self {
            packets: Arc::new(packets.into()),
            down: Arc::default(),
        }
    }

    /// Counts a packet and returns whether the server is killed now.
    fn ends(&self) -> bool {
        let ends = self.packets.fetch_sub(1, Ordering::SeqCst) == 1;
        if ends {
            self.down.store(DOWN_REQUESTS, Ordering::SeqCst);
        }
        ends
    }

    /// Counts a request and returns whether the server is down.
    fn is_down(&self) -> bool {
        self.down.fetch_sub(1, Ordering::SeqCst) > 0
    }
}

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server that runs until the test ends.
pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    files: Files,
    lifetime: Lifetime,
}

impl FakeServer {
    pub(crate) fn start(behavior: Behavior) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            files: Arc::default(),
            lifetime: Lifetime::new(&behavior),
        };
        let (files, lifetime) = (server.files.clone(), server.lifetime.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                if lifetime.is_down() {
                    continue;
                }
                let Ok(request) = Packet::deserialize(&buffer[..length]) else {
                    continue;
                };
                let (files, behavior) = (files.clone(), behavior.clone());
                let lifetime = lifetime.clone();
                std::thread::spawn(move || serve(peer, request, &behavior, &files, lifetime));
            }
        });
        server
    }

    pub(crate) fn offer(&self, name: &str, content: impl Into<Vec<u8>>) {
        self.files
            .lock()
            .unwrap()
            .insert(name.to_owned(), content.into());
    }

    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.lifetime.packets.load(Ordering::SeqCst) <= 0
    }
}

fn serve(peer: SocketAddr, request: Packet, behavior: &Behavior, files: &Files, life: Lifetime) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peer).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    match request {
        Packet::Rrq {
            filename, options, ..
        } => {
            let content = files.lock().unwrap().get(&filename).cloned();
            match content {
                Some(content) => {
                    let size = content.len() as u64;
                    Transfer::negotiate(socket, &options, behavior, Some(size), life)
                        .send(&content);
                }
                None => refuse(&socket, ErrorCode::FileNotFound, "there is no such file"),
            }
        }
        Packet::Wrq { filename, .. } if behavior.refused.contains(&filename.as_str()) => {
            refuse(&socket, ErrorCode::DiskFull, "it is too large");
        }
        Packet::Wrq {
            filename, options, ..
        } => {
            Transfer::negotiate(socket, &options, behavior, None, life).receive(|content| {
                files.lock().unwrap().insert(filename, content);
            });
        }
        _ => {}
    }
}

fn refuse(socket: &UdpSocket, code: ErrorCode, message: &str) {
    let msg = message.to_owned();
    send(socket, &Packet::Error { code, msg });
}

fn send(socket: &UdpSocket, packet: &Packet) {
    let _ = socket.send(&packet.serialize().unwrap());
}

/// One transfer with its negotiated options.
struct Transfer {
    socket: UdpSocket,
    block_size: usize,
    window: u16,
    last_sent: Packet,
    lifetime: Lifetime,
}

impl Transfer {
    fn negotiate(
        socket: UdpSocket,
        options: &[TransferOption],
        behavior: &Behavior,
        size: Option<u64>,
        lifetime: Lifetime,
    ) -> Self {
        let mut transfer = Self {
            socket,
            block_size: 512,
            window: 1,
            last_sent: Packet::Ack(0),
            lifetime,
        };
        if options.is_empty() || behavior.without_options {
            return transfer;
        }
        let mut accepted = options.to_vec();
        for option in &mut accepted {
            match option.option {
                OptionType::BlockSize => {
                    let max = behavior.block_size_max.map_or(u64::MAX, u64::from);
                    option.value = option.value.min(max);
                    transfer.block_size = option.value.try_into().unwrap();
                }
                OptionType::WindowSize => transfer.window = option.value.try_into().unwrap(),
                OptionType::TransferSize => option.value = size.unwrap_or(option.value),
                _ => {}
            }
        }
        transfer.last_sent = Packet::Oack(accepted);
        transfer
    }

    fn next_packet(&self) -> Option<Packet> {
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).ok()?;
        if self.lifetime.ends() {
            return Some(KILLED);
        }
        Packet::deserialize(&buffer[..length]).ok()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the wire has 16 bits")]
    fn send(&mut self, content: &[u8]) {
        let blocks = content.len() / self.block_size + 1;
        let mut acknowledged = 0;
        if matches!(self.last_sent, Packet::Oack(_)) && !self.options_are_acknowledged() {
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
                send(&self.socket, &packet);
            }
            repetitions += 1;
            while let Some(packet) = self.next_packet() {
                let Packet::Ack(block) = packet else { return };
                let new = block.wrapping_sub(acknowledged as u16);
                if (1..=self.window).contains(&new) {
                    acknowledged += usize::from(new);
                    repetitions = 0;
                    break;
                }
            }
        }
    }

    fn options_are_acknowledged(&self) -> bool {
        let answer = (0..REPETITIONS_MAX).find_map(|_| {
            send(&self.socket, &self.last_sent);
            self.next_packet()
        });
        matches!(answer, Some(Packet::Ack(0)))
    }

    /// Receives a file and keeps it before the last acknowledgement.
    fn receive(&mut self, keep: impl FnOnce(Vec<u8>)) {
        let (mut content, mut blocks) = (Vec::new(), 0_u16);
        let (mut repetitions, mut unacknowledged) = (0, 0);
        send(&self.socket, &self.last_sent);
        while repetitions < REPETITIONS_MAX {
            match self.next_packet() {
                Some(Packet::Data { block_num, data }) if block_num == blocks.wrapping_add(1) => {
                    blocks = block_num;
                    repetitions = 0;
                    unacknowledged += 1;
                    content.extend_from_slice(&data);
                    self.last_sent = Packet::Ack(blocks);
                    if data.len() < self.block_size {
                        keep(content);
                        return self.dally();
                    }
                    if unacknowledged == self.window {
                        unacknowledged = 0;
                        send(&self.socket, &self.last_sent);
                    }
                }
                Some(Packet::Data { .. }) => {}
                Some(_) => return,
                None => {
                    repetitions += 1;
                    unacknowledged = 0;
                    send(&self.socket, &self.last_sent);
                }
            }
        }
    }

    /// Sends the last acknowledgement, and repeats it on request.
    fn dally(&self) {
        send(&self.socket, &self.last_sent);
        for _ in 0..REPETITIONS_MAX {
            if let Some(Packet::Data { .. }) = self.next_packet() {
                send(&self.socket, &self.last_sent);
            }
        }
    }
}
