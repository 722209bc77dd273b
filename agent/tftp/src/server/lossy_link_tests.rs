//! Tests with a client behind a link that loses, duplicates and reorders packets.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Event, Namespace, Offer, Server};
use crate::codec::{Packet, ack, data_header, parse};

const BLOCK_SIZE: usize = 64;
/// The client's timeout.
const TIMEOUT: Duration = Duration::from_millis(60);
/// The timeouts after which a transfer without progress counts as hung.
const TIMEOUTS_MAX: usize = 400;

/// The socket of a client. Its faults are the same in every run.
struct LossyLink {
    socket: UdpSocket,
    server: SocketAddr,
    random: u64,
    lost_percent: u64,
    /// A sent packet that is overtaken by the next one.
    delayed: Option<Vec<u8>>,
    received: VecDeque<Vec<u8>>,
}

impl LossyLink {
    fn new(server: SocketAddr, lost_percent: u64, seed: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self {
            socket,
            server,
            random: 0x9e37_79b9_7f4a_7c15 ^ seed,
            lost_percent,
            delayed: None,
            received: VecDeque::new(),
        }
    }

    /// Returns a random number below 100.
    fn percent(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100
    }

    fn send(&mut self, packet: &[u8]) {
        let chance = self.percent();
        if chance < self.lost_percent {
            return;
        }
        if (90..95).contains(&chance) && self.delayed.is_none() {
            self.delayed = Some(packet.to_vec());
            return;
        }
        let copies = if chance >= 95 { 2 } else { 1 };
        for _ in 0..copies {
            self.socket.send_to(packet, self.server).unwrap();
        }
        if let Some(delayed) = self.delayed.take() {
            self.socket.send_to(&delayed, self.server).unwrap();
        }
    }

    /// Returns the next packet, or `None` after a timeout. Later packets are sent to the
    /// port that it came from.
    fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(packet) = self.received.pop_front() {
                return Some(packet);
            }
            let mut buffer = [0; 600];
            let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
            self.server = from;
            let packet = buffer[..length].to_vec();
            match self.percent() {
                chance if chance < self.lost_percent => {}
                90..95 => self.received.push_back(packet),
                95.. => self.received.extend([packet.clone(), packet]),
                _ => self.received.push_front(packet),
            }
        }
    }

    fn request(&mut self, opcode: u8, name: &str, window: usize) {
        let text = format!("{name};octet;blksize;{BLOCK_SIZE};windowsize;{window};");
        let packet = [&[0, opcode][..], text.replace(';', "\0").as_bytes()].concat();
        let port = self.server;
        for _ in 0..TIMEOUTS_MAX {
            self.server = port;
            self.send(&packet);
            if let Some(answer) = self.receive() {
                assert!(
                    matches!(parse(&answer), Some(Packet::OptionAck(_))),
                    "{answer:?}"
                );
                return;
            }
        }
        panic!("no answer to {name}");
    }

    fn acknowledge(&mut self, block: u16) {
        self.send(&ack(block));
    }

    fn fetch(&mut self, name: &str, window: u16) -> Vec<u8> {
        self.request(1, name, window.into());
        let (mut file, mut received, mut timeouts) = (Vec::new(), 0, 0);
        self.acknowledge(0);
        loop {
            let packet = self.receive();
            match packet.as_deref().map(parse) {
                Some(Some(Packet::Data { block, payload })) if block == received + 1 => {
                    (received, timeouts) = (block, 0);
                    file.extend_from_slice(payload);
                    let last = payload.len() < BLOCK_SIZE;
                    if last || received % window == 0 {
                        self.acknowledge(received);
                    }
                    if last {
                        break;
                    }
                }
                Some(_) => self.acknowledge(received),
                None => {
                    timeouts += 1;
                    assert!(timeouts < TIMEOUTS_MAX, "{name} hangs at block {received}");
                    self.acknowledge(received);
                }
            }
        }
        // The server repeats the last block until it is acknowledged.
        while self.receive().is_some() || self.receive().is_some() {
            self.acknowledge(received);
        }
        file
    }

    fn put(&mut self, name: &str, file: &[u8], window: usize) {
        self.request(2, name, window);
        let last = file.len() / BLOCK_SIZE + 1;
        let (mut done, mut timeouts) = (0, 0);
        while done < last {
            for block in done + 1..=(done + window).min(last) {
                let end = (block * BLOCK_SIZE).min(file.len());
                let payload = &file[(block - 1) * BLOCK_SIZE..end];
                let header = data_header(u16::try_from(block).unwrap());
                self.send(&[&header[..], payload].concat());
            }
            let packet = self.receive();
            match packet.as_deref().map(parse) {
                Some(Some(Packet::Ack(block))) => {
                    if usize::from(block) > done {
                        (done, timeouts) = (block.into(), 0);
                    }
                }
                _ => timeouts += 1,
            }
            assert!(timeouts < TIMEOUTS_MAX, "{name} hangs at block {done}");
        }
    }
}

#[test]
fn files_are_complete_despite_lost_and_duplicated_packets() {
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
            let link = |seed| LossyLink::new(server.addresses()[0], lost_percent, seed);
            let what = format!("{lost_percent} % lost, window {window}");
            assert!(link(1).fetch("file", window) == file, "{what}: fetched");
            link(2).put("back", &file, window.into());
            let put = std::fs::read(directory.path().join("back")).unwrap();
            assert!(put == file, "{what}: put");
            drop(server);
            let mut reported = Vec::new();
            while let Ok(event) = events.try_recv() {
                reported.push(event);
            }
            let puts = |event: &&Event| matches!(event, Event::Put { .. });
            assert_eq!(
                reported.iter().filter(puts).count(),
                1,
                "{what}: {reported:?}"
            );
        }
    }
}
