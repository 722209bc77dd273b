//! Tests: a client behind a line that loses, doubles and reorders packets.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Event, Namespace, Offer, Server};

const BLOCK: usize = 64;
const PATIENCE: Duration = Duration::from_millis(60);
/// Without progress for so many waits, a transfer hangs.
const WAITS_MAX: usize = 400;

/// A client's socket; what goes wrong is the same in every run.
struct Line {
    socket: UdpSocket,
    server: SocketAddr,
    state: u64,
    lost_percent: u64,
    late: Option<Vec<u8>>,
    came: VecDeque<Vec<u8>>,
}

impl Line {
    fn new(server: SocketAddr, lost_percent: u64, seed: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let state = 0x9e37_79b9_7f4a_7c15 ^ seed;
        let (late, came) = (None, VecDeque::new());
        Self {
            socket,
            server,
            state,
            lost_percent,
            late,
            came,
        }
    }

    /// Between 0 and 99.
    fn chance(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % 100
    }

    fn send(&mut self, packet: &[u8]) {
        let chance = self.chance();
        if chance < self.lost_percent {
            return;
        }
        if (90..95).contains(&chance) && self.late.is_none() {
            self.late = Some(packet.to_vec());
            return;
        }
        let times = if chance >= 95 { 2 } else { 1 };
        for _ in 0..times {
            self.socket.send_to(packet, self.server).unwrap();
        }
        if let Some(late) = self.late.take() {
            self.socket.send_to(&late, self.server).unwrap();
        }
    }

    /// The next packet, unless none comes in time. The first one tells the port.
    fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(packet) = self.came.pop_front() {
                return Some(packet);
            }
            let mut buffer = [0; 600];
            let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
            self.server = from;
            let packet = buffer[..length].to_vec();
            match self.chance() {
                chance if chance < self.lost_percent => {}
                90..95 => self.came.push_back(packet),
                95.. => self.came.extend([packet.clone(), packet]),
                _ => self.came.push_front(packet),
            }
        }
    }

    fn ask(&mut self, kind: u8, name: &str, window: usize) -> Vec<u8> {
        let text = format!("{name};octet;blksize;{BLOCK};windowsize;{window};");
        let packet = [&[0, kind][..], text.replace(';', "\0").as_bytes()].concat();
        let port = self.server;
        for _ in 0..WAITS_MAX {
            self.server = port;
            self.send(&packet);
            if let Some(answer) = self.receive() {
                assert_eq!(answer[..2], [0, 6], "{answer:?}");
                return answer;
            }
        }
        panic!("no answer to {name}");
    }

    fn acknowledge(&mut self, block: usize) {
        let [high, low] = number(block);
        self.send(&[0, 4, high, low]);
    }

    fn fetch(&mut self, name: &str, window: usize) -> Vec<u8> {
        self.ask(1, name, window);
        let (mut file, mut got, mut waits) = (Vec::new(), 0, 0);
        self.acknowledge(0);
        loop {
            match self.receive() {
                Some(packet) if packet[1] == 3 && packet[2..4] == number(got + 1) => {
                    (got, waits) = (got + 1, 0);
                    file.extend_from_slice(&packet[4..]);
                    let last = packet.len() < BLOCK + 4;
                    if last || got % window == 0 {
                        self.acknowledge(got);
                    }
                    if last {
                        break;
                    }
                }
                Some(_) => self.acknowledge(got),
                None => {
                    waits += 1;
                    assert!(waits < WAITS_MAX, "{name} hangs at block {got}");
                    self.acknowledge(got);
                }
            }
        }
        // Until the server is content: it repeats the last block otherwise.
        while self.receive().is_some() || self.receive().is_some() {
            self.acknowledge(got);
        }
        file
    }

    fn put(&mut self, name: &str, file: &[u8], window: usize) {
        self.ask(2, name, window);
        let last = file.len() / BLOCK + 1;
        let (mut done, mut waits) = (0, 0);
        while done < last {
            for block in done + 1..=(done + window).min(last) {
                let payload = &file[(block - 1) * BLOCK..(block * BLOCK).min(file.len())];
                let [high, low] = number(block);
                self.send(&[&[0, 3, high, low], payload].concat());
            }
            match self.receive() {
                Some(packet) if packet[1] == 4 => {
                    let acknowledged = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                    if acknowledged > done {
                        (done, waits) = (acknowledged, 0);
                    }
                }
                _ => waits += 1,
            }
            assert!(waits < WAITS_MAX, "{name} hangs at block {done}");
        }
    }
}

fn number(block: usize) -> [u8; 2] {
    u16::try_from(block).unwrap().to_be_bytes()
}

#[test]
fn a_bad_line_costs_time_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file: Vec<u8> = (0..6000_u32)
        .map(|n| ((n * n) >> 5).to_le_bytes()[0])
        .collect();
    for lost_percent in [0, 1, 5, 20] {
        for window in [1, 16] {
            let mut namespace = Namespace::new(1 << 20, 10);
            namespace.offer("file", Offer::Bytes(Arc::from(file.clone())));
            namespace.accept_below("", directory.path().to_owned(), 1 << 20);
            let (sender, mut events) = mpsc::channel(100);
            let address = "127.0.0.1:0".parse().unwrap();
            let server = Server::start(&[address], namespace, sender).unwrap();
            let line = |seed| Line::new(server.addresses()[0], lost_percent, seed);
            let what = format!("{lost_percent} % lost, window {window}");
            assert!(line(1).fetch("file", window) == file, "{what}: fetched");
            line(2).put("back", &file, window);
            let put = std::fs::read(directory.path().join("back")).unwrap();
            assert!(put == file, "{what}: put");
            drop(server);
            let mut seen = Vec::new();
            while let Ok(event) = events.try_recv() {
                seen.push(event);
            }
            let puts = |event: &&Event| matches!(event, Event::Put { .. });
            assert_eq!(seen.iter().filter(puts).count(), 1, "{what}: {seen:?}");
        }
    }
}
