//! A link between a client and a server that loses and duplicates packets.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// The faults of a link, in percent of the packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
}

/// Opens a link to `server` and returns the address of its near end.
pub(crate) fn open(server: SocketAddr, faults: Faults) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = near.local_addr().unwrap();
    let dice = Arc::new(Mutex::new(Dice(0x2545_f491_4f6c_dd1d)));
    std::thread::spawn(move || {
        let mut clients: HashMap<SocketAddr, FarEnd> = HashMap::new();
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = near.recv_from(&mut buffer) {
            let far = clients.entry(client).or_insert_with(|| {
                FarEnd::open(server, client, near.clone(), dice.clone(), faults)
            });
            let is_request = matches!(buffer[1], 1 | 2);
            let to = if is_request {
                server
            } else {
                *far.peer.lock().unwrap()
            };
            for _ in 0..copies(&dice, faults) {
                let _ = far.socket.send_to(&buffer[..length], to);
            }
        }
    });
    address
}

/// The far end for one client.
struct FarEnd {
    socket: UdpSocket,
    /// The address that the server answers from.
    peer: Arc<Mutex<SocketAddr>>,
}

impl FarEnd {
    fn open(
        server: SocketAddr,
        client: SocketAddr,
        near: Arc<UdpSocket>,
        dice: Arc<Mutex<Dice>>,
        faults: Faults,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = Self {
            peer: Arc::new(Mutex::new(server)),
            socket: socket.try_clone().unwrap(),
        };
        let peer = far.peer.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                {
                    // A duplicated request has two answers. Only the first one passes.
                    let mut peer = peer.lock().unwrap();
                    if *peer == server {
                        *peer = from;
                    }
                    if *peer != from {
                        continue;
                    }
                }
                for _ in 0..copies(&dice, faults) {
                    let _ = near.send_to(&buffer[..length], client);
                }
            }
        });
        far
    }
}

/// Returns the number of copies of a packet that arrive.
fn copies(dice: &Mutex<Dice>, faults: Faults) -> u32 {
    match dice.lock().unwrap().percent() {
        n if n < faults.lost => 0,
        n if n < faults.lost + faults.duplicated => 2,
        _ => 1,
    }
}

/// A random number generator (xorshift) with the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn percent(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % 100
    }
}
