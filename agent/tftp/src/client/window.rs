//! The windows of the receiving and the sending side (RFC 7440). Pure. Blocks are counted in
//! 64 bits.

use crate::codec::wire_block;

/// The receiver's reaction to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The block is the expected one. Keep it, and acknowledge it if `acknowledge` is set.
    Accept { acknowledge: bool, last: bool },
    /// A block or an acknowledgement was lost. Repeat the acknowledgement.
    Acknowledge,
    /// The block is an old one, or follows a gap that has been reported.
    Ignore,
}

/// The receiving side of a transfer.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    block_size: usize,
    window: u16,
    received: u64,
    unacknowledged: u16,
    gap_reported: bool,
}

impl ReceiveWindow {
    pub(super) fn new(block_size: u16, window: u16) -> Self {
        Self {
            block_size: block_size.into(),
            window,
            received: 0,
            unacknowledged: 0,
            gap_reported: false,
        }
    }

    /// Returns the number of the last block that arrived in order, as on the wire.
    pub(super) fn last_received(&self) -> u16 {
        wire_block(self.received)
    }

    /// Returns the reaction to a block with a payload of `length` bytes.
    pub(super) fn receive(&mut self, block: u16, length: usize) -> Action {
        let ahead = block.wrapping_sub(wire_block(self.received + 1));
        if ahead == 0 {
            self.received += 1;
            self.unacknowledged += 1;
            self.gap_reported = false;
            let last = length < self.block_size;
            let acknowledge = last || self.unacknowledged >= self.window;
            if acknowledge {
                self.unacknowledged = 0;
            }
            return Action::Accept { acknowledge, last };
        }
        // The last received block ends a window that was retransmitted, because its
        // acknowledgement was lost.
        let lost_acknowledgement = ahead == u16::MAX;
        let gap = ahead < self.window && !self.gap_reported;
        if lost_acknowledgement || gap {
            self.gap_reported |= gap;
            self.unacknowledged = 0;
            return Action::Acknowledge;
        }
        Action::Ignore
    }

    /// Starts a new window after a timeout. The caller acknowledges again.
    pub(super) fn time_out(&mut self) {
        self.unacknowledged = 0;
        self.gap_reported = false;
    }
}

/// The sending side of a transfer.
#[derive(Debug)]
pub(super) struct SendWindow {
    blocks: u64,
    window: u64,
    acknowledged: u64,
    sent: u64,
    /// Set after a duplicate acknowledgement has caused a retransmission.
    retransmitted: bool,
}

impl SendWindow {
    pub(super) fn new(size: u64, block_size: u16, window: u16) -> Self {
        Self {
            blocks: size / u64::from(block_size) + 1,
            window: window.into(),
            acknowledged: 0,
            sent: 0,
            retransmitted: false,
        }
    }

    /// Returns the next block to send now, counted from 1.
    pub(super) fn next(&mut self) -> Option<u64> {
        let limit = self.blocks.min(self.acknowledged + self.window);
        (self.sent < limit).then(|| {
            self.sent += 1;
            self.sent
        })
    }

    /// Returns the last block that the receiver has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn is_done(&self) -> bool {
        self.acknowledged == self.blocks
    }

    /// Records that the receiver has all blocks up to `block` and misses the later ones. Returns
    /// true if that is progress.
    pub(super) fn acknowledge(&mut self, block: u16) -> bool {
        let new = u64::from(block.wrapping_sub(wire_block(self.acknowledged)));
        let duplicate = new == 0 && self.window > 1 && !self.retransmitted;
        if duplicate || (1..=self.sent - self.acknowledged).contains(&new) {
            self.retransmitted = duplicate;
            self.acknowledged += new;
            self.sent = self.acknowledged;
        }
        new > 0
    }

    /// Starts the window again after a timeout.
    pub(super) fn time_out(&mut self) {
        self.sent = self.acknowledged;
        self.retransmitted = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCEPT: Action = Action::Accept {
        acknowledge: false,
        last: false,
    };
    const ACKNOWLEDGE: Action = Action::Accept {
        acknowledge: true,
        last: false,
    };
    const END: Action = Action::Accept {
        acknowledge: true,
        last: true,
    };

    #[test]
    fn a_window_is_acknowledged_at_its_end() {
        let mut window = ReceiveWindow::new(512, 3);
        let actions = [1, 2, 3, 4].map(|block| window.receive(block, 512));
        assert_eq!(actions, [ACCEPT, ACCEPT, ACKNOWLEDGE, ACCEPT]);
        assert_eq!(window.receive(5, 511), END);
    }

    #[test]
    fn a_gap_is_reported_once() {
        let mut window = ReceiveWindow::new(512, 4);
        let actions = [1, 3, 4, 2].map(|block| window.receive(block, 512));
        assert_eq!(
            actions,
            [ACCEPT, Action::Acknowledge, Action::Ignore, ACCEPT],
            "after the report a new window begins with block 2"
        );
        assert_eq!(window.last_received(), 2);
    }

    #[test]
    fn a_retransmitted_window_is_acknowledged_at_its_end_only() {
        let mut window = ReceiveWindow::new(512, 2);
        let _ = [1, 2].map(|block| window.receive(block, 512));
        let actions = [1, 2].map(|block| window.receive(block, 512));
        assert_eq!(actions, [Action::Ignore, Action::Acknowledge]);
    }

    #[test]
    fn with_a_window_of_one_a_duplicate_acknowledgement_retransmits_nothing() {
        let mut window = SendWindow::new(2000, 512, 1);
        assert_eq!(window.next(), Some(1));
        assert!(window.acknowledge(1));
        assert_eq!(window.next(), Some(2));
        assert!(!window.acknowledge(1));
        assert_eq!(window.next(), None, "Sorcerer's Apprentice Syndrome");
    }

    #[test]
    fn a_file_of_whole_blocks_ends_with_an_empty_one() {
        assert_eq!(SendWindow::new(1024, 512, 1).blocks, 3);
        assert_eq!(SendWindow::new(0, 512, 1).blocks, 1);
    }

    /// Sends blocks over a link that loses a packet when `loses` returns true, and returns the
    /// blocks in the order of their arrival.
    fn transfer(blocks: u64, window: u16, start: u64, mut loses: impl FnMut() -> bool) -> Vec<u64> {
        let mut sender = SendWindow::new((start + blocks) * 512 - 1, 512, window);
        let mut receiver = ReceiveWindow::new(512, window);
        (sender.acknowledged, sender.sent, receiver.received) = (start, start, start);
        let mut arrived = Vec::new();
        let mut last_arrived = false;
        while !sender.is_done() {
            let mut acknowledgement = None;
            while let Some(block) = sender.next() {
                if loses() {
                    continue;
                }
                let length = if block == start + blocks { 511 } else { 512 };
                match receiver.receive(wire_block(block), length) {
                    Action::Accept { acknowledge, last } => {
                        arrived.push(block);
                        last_arrived |= last;
                        if acknowledge {
                            acknowledgement = Some(receiver.last_received());
                        }
                    }
                    Action::Acknowledge => acknowledgement = Some(receiver.last_received()),
                    Action::Ignore => {}
                }
            }
            match acknowledgement.filter(|_| !loses()) {
                Some(block) => drop(sender.acknowledge(block)),
                None => sender.time_out(),
            }
        }
        assert!(last_arrived);
        arrived
    }

    proptest! {
        #[test]
        fn every_block_arrives_once_and_in_order(
            blocks in 1..200_u64,
            window in 1..20_u16,
            start in prop_oneof![Just(0), Just(65_530), Just(131_060)],
            losses in prop::collection::vec(prop::bool::weighted(0.3), 0..400),
        ) {
            let mut losses = losses.into_iter();
            let arrived = transfer(blocks, window, start, || losses.next().unwrap_or(false));
            prop_assert_eq!(arrived, (start + 1..=start + blocks).collect::<Vec<_>>());
        }
    }
}
