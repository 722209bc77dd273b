//! A bad cable between two networks: Ethernet that loses, doubles, delays and reorders
//! the packets of UDP. Everything else passes as it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::task::{GATEWAY, GUEST};
use guest::network::{GUEST_MAC, Network};
use rustix::event::{PollFd, PollFlags, poll};
use tests::net::Net;

/// What a cable does to packets; numbers are percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lost: u32,
    pub(super) doubled: u32,
    /// So many come after others that were sent behind them.
    pub(super) late: u32,
    /// The time that every packet takes.
    pub(super) delay: Duration,
}

/// The second of two, and what is late, comes up to so much later.
const LATER_MAX: Duration = Duration::from_millis(8);
/// How often a cable looks whether it has been cut.
const LOOK: Duration = Duration::from_millis(100);
/// What the kernel writes before every frame (`struct virtio_net_hdr`).
const PREFIX: usize = 10;

/// A cable that lies until it is dropped.
pub(super) struct Cable {
    cut: Arc<AtomicBool>,
    ways: Vec<JoinHandle<()>>,
}

impl Cable {
    /// Lays a cable from the guest's end of `net` to a new network, which is then a
    /// guest's inside.
    pub(super) fn lay(net: &Net, faults: Faults) -> (Self, Net) {
        let far = Net::new();
        far.shell(&format!(
            "nft flush ruleset; ip link set dev guest0 down; ip address flush dev guest0
             ip link set dev guest0 address {GUEST_MAC}
             ip address add {GUEST}/24 dev guest0; ip link set dev guest0 up"
        ));
        let end = |net: &Network| File::from(net.tap().unwrap());
        let (one, other) = (end(net), end(&far));
        let cut = Arc::new(AtomicBool::new(false));
        let way = |from: &File, to: &File, seed| {
            let way = Way {
                from: from.try_clone().unwrap(),
                to: to.try_clone().unwrap(),
                faults,
                dice: Dice(seed),
                flying: BinaryHeap::new(),
            };
            let cut = Arc::clone(&cut);
            std::thread::spawn(move || way.carry(&cut))
        };
        let ways = vec![
            way(&one, &other, 0x2545_f491_4f6c_dd1d),
            way(&other, &one, 0x9e37_79b9_7f4a_7c15),
        ];
        // Both ends know each other's hardware addresses then.
        far.shell(&format!(
            "until busybox ping -q -c 1 -W 1 {GATEWAY}; do :; done"
        ));
        (Self { cut, ways }, far)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::Relaxed);
        for way in self.ways.drain(..) {
            let _ = way.join();
        }
    }
}

/// One direction of a cable.
struct Way {
    from: File,
    to: File,
    faults: Faults,
    dice: Dice,
    /// Frames by the time at which they arrive.
    flying: BinaryHeap<Reverse<(Instant, Vec<u8>)>>,
}

impl Way {
    fn carry(mut self, cut: &AtomicBool) {
        let mut frame = vec![0; 65_536];
        while !cut.load(Ordering::Relaxed) {
            let mut ends = [PollFd::new(&self.from, PollFlags::IN)];
            let left = self.flying.peek().map_or(LOOK, |Reverse((due, _))| {
                due.saturating_duration_since(Instant::now()).min(LOOK)
            });
            let left = rustix::event::Timespec::try_from(left).unwrap();
            poll(&mut ends, Some(&left)).unwrap();
            if ends[0].revents().contains(PollFlags::IN) {
                let Ok(length) = self.from.read(&mut frame) else {
                    return;
                };
                self.take(&frame[..length]);
            }
            self.deliver();
        }
    }

    fn take(&mut self, frame: &[u8]) {
        let now = Instant::now();
        if !is_udp(frame) {
            self.flying.push(Reverse((now, frame.to_vec())));
            return;
        }
        if self.dice.hits(self.faults.lost) {
            return;
        }
        let mut arrive = |later| {
            let due = now + self.faults.delay + later;
            self.flying.push(Reverse((due, frame.to_vec())));
        };
        let later = LATER_MAX.mul_f64(self.dice.fraction());
        let is_late = self.dice.hits(self.faults.late);
        arrive(if is_late { later } else { Duration::ZERO });
        if self.dice.hits(self.faults.doubled) {
            arrive(later);
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((due, _))) = self.flying.peek() {
            if *due > Instant::now() {
                return;
            }
            if let Some(Reverse((_, frame))) = self.flying.pop() {
                // A full queue loses frames like any other.
                let _ = self.to.write(&frame);
            }
        }
    }
}

fn is_udp(frame: &[u8]) -> bool {
    let is = |at: usize, bytes: &[u8]| {
        frame
            .get(PREFIX + at..)
            .is_some_and(|it| it.starts_with(bytes))
    };
    is(12, &[0x08, 0x00]) && is(14 + 9, &[17])
}

/// Xorshift: the same throws in every run.
struct Dice(u64);

impl Dice {
    /// At least 0, and less than 1.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    fn hits(&mut self, percent: u32) -> bool {
        self.fraction() * 100.0 < f64::from(percent)
    }
}
