//! A cable between two networks that loses UDP packets. All other frames pass.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use config::task::{GATEWAY, GUEST};
use guest::network::{GUEST_MAC, Network};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tests::net::Net;
use tests::random::Xorshift;

/// The interval at which a cable checks whether it was cut.
const POLL: Duration = Duration::from_millis(100);
/// The size of the header that the kernel writes before every frame (`struct
/// virtio_net_hdr`).
const PREFIX: usize = 10;

/// A cable that is cut when it is dropped.
pub(super) struct LossyCable {
    cut: Arc<AtomicBool>,
    directions: Vec<JoinHandle<()>>,
}

impl LossyCable {
    /// Connects the guest's end of `net` to a new network that takes the place of a guest. The
    /// cable loses `lost_percent` of the packets in each direction.
    pub(super) fn connect(net: &Net, lost_percent: u32) -> (Self, Net) {
        let client_net = Net::new();
        client_net.shell(&format!(
            "nft flush ruleset; ip link set dev guest0 down; ip address flush dev guest0
             ip link set dev guest0 address {GUEST_MAC}
             ip address add {GUEST}/24 dev guest0; ip link set dev guest0 up"
        ));
        let end = |net: &Network| File::from(net.open_tap(None).unwrap());
        let (one, other) = (end(net), end(&client_net));
        let cut = Arc::new(AtomicBool::new(false));
        let direction = |from: &File, to: &File, seed| {
            let direction = Direction {
                from: from.try_clone().unwrap(),
                to: to.try_clone().unwrap(),
                lost_percent,
                random: Xorshift::new(seed),
            };
            let cut = Arc::clone(&cut);
            std::thread::spawn(move || direction.forward(&cut))
        };
        let directions = vec![
            direction(&one, &other, 0x2545_f491_4f6c_dd1d),
            direction(&other, &one, 0x9e37_79b9_7f4a_7c15),
        ];
        // After this, both ends know each other's hardware addresses.
        client_net.shell(&format!(
            "until busybox ping -q -c 1 -W 1 {GATEWAY}; do :; done"
        ));
        (Self { cut, directions }, client_net)
    }
}

impl Drop for LossyCable {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::Relaxed);
        for direction in self.directions.drain(..) {
            let _ = direction.join();
        }
    }
}

/// One direction of a cable.
struct Direction {
    from: File,
    to: File,
    lost_percent: u32,
    random: Xorshift,
}

impl Direction {
    fn forward(mut self, cut: &AtomicBool) {
        let mut frame = vec![0; 65_536];
        let timeout = Timespec::try_from(POLL).unwrap();
        while !cut.load(Ordering::Relaxed) {
            let mut ends = [PollFd::new(&self.from, PollFlags::IN)];
            poll(&mut ends, Some(&timeout)).unwrap();
            if ends[0].revents().contains(PollFlags::IN) {
                let Ok(length) = self.from.read(&mut frame) else {
                    return;
                };
                let frame = &frame[..length];
                if !is_udp(frame) || self.random.below(100) >= u64::from(self.lost_percent) {
                    // A full queue loses frames like any other.
                    let _ = self.to.write(frame);
                }
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
