//! Which block comes next, what to acknowledge, and how long to wait: the part of
//! a transfer that only thinks. Block numbers are counted in 64 bits here; on the
//! wire they start over after 65535.

use std::time::Duration;

/// What the receiving side does with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one: keep it; acknowledge and end as told.
    Take { acknowledge: bool, last: bool },
    /// Something was lost: say again how far we are.
    Again,
    /// It is an old one, or one that we have complained about already.
    Ignore,
}

/// The receiving side of a transfer.
#[derive(Debug)]
pub(super) struct Receiver {
    block_size: usize,
    window: u16,
    taken: u64,
    unacknowledged: u16,
    complained: bool,
}

impl Receiver {
    pub(super) fn new(block_size: u16, window: u16) -> Self {
        Self {
            block_size: block_size.into(),
            window,
            taken: 0,
            unacknowledged: 0,
            complained: false,
        }
    }

    /// The last block that we have, as it is called on the wire.
    pub(super) fn taken(&self) -> u16 {
        on_the_wire(self.taken)
    }

    pub(super) fn block(&mut self, block: u16, length: usize) -> Verdict {
        let ahead = block.wrapping_sub(on_the_wire(self.taken + 1));
        if ahead == 0 {
            self.taken += 1;
            self.unacknowledged += 1;
            self.complained = false;
            let last = length < self.block_size;
            let acknowledge = last || self.unacknowledged >= self.window;
            if acknowledge {
                self.unacknowledged = 0;
            }
            return Verdict::Take { acknowledge, last };
        }
        // The block before the next one ends a window that is sent once more,
        // because our acknowledgement was lost.
        let lost_answer = ahead == u16::MAX;
        let gap = ahead < self.window && !self.complained;
        if lost_answer || gap {
            self.complained |= gap;
            self.unacknowledged = 0;
            return Verdict::Again;
        }
        Verdict::Ignore
    }

    /// Nothing came for a while: the caller says again how far we are.
    pub(super) fn silence(&mut self) {
        self.unacknowledged = 0;
        self.complained = false;
    }
}

/// The sending side of a transfer.
#[derive(Debug)]
pub(super) struct Sender {
    blocks: u64,
    window: u64,
    acknowledged: u64,
    sent: u64,
    repeated: bool,
}

impl Sender {
    /// For a file of `size` bytes; its last block is shorter than the others.
    pub(super) fn new(size: u64, block_size: u16, window: u16) -> Self {
        Self {
            blocks: size / u64::from(block_size) + 1,
            window: window.into(),
            acknowledged: 0,
            sent: 0,
            repeated: false,
        }
    }

    /// The next block to send now, counted from 1.
    pub(super) fn next(&mut self) -> Option<u64> {
        let limit = self.blocks.min(self.acknowledged + self.window);
        (self.sent < limit).then(|| {
            self.sent += 1;
            self.sent
        })
    }

    /// Up to this block the other side has everything.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn is_done(&self) -> bool {
        self.acknowledged == self.blocks
    }

    /// The other side has everything up to `block`; what came after it was lost.
    /// Says whether that is news.
    pub(super) fn acknowledge(&mut self, block: u16) -> bool {
        let news = u64::from(block.wrapping_sub(on_the_wire(self.acknowledged)));
        let told_again = news == 0 && self.window > 1 && !self.repeated;
        if told_again || (1..=self.sent - self.acknowledged).contains(&news) {
            self.repeated = told_again;
            self.acknowledged += news;
            self.sent = self.acknowledged;
        }
        news > 0
    }

    /// No answer came: send the window once more.
    pub(super) fn silence(&mut self) {
        self.sent = self.acknowledged;
        self.repeated = false;
    }
}

/// A block's number on the wire.
#[expect(clippy::cast_possible_truncation, reason = "the wire has 16 bits")]
pub(super) fn on_the_wire(block: u64) -> u16 {
    block as u16
}

/// How long to wait for an answer before asking again: a little more than answers
/// have taken so far, as TCP does it (RFC 6298), and twice as long after each
/// silence, until something new comes.
#[derive(Debug)]
pub(super) struct Pace {
    usual: Option<Duration>,
    spread: Duration,
    wait: Duration,
}

impl Pace {
    const WAIT_FIRST: Duration = Duration::from_millis(250);
    const WAIT_MIN: Duration = Duration::from_millis(25);
    const WAIT_MAX: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Self {
            usual: None,
            spread: Duration::ZERO,
            wait: Self::WAIT_FIRST,
        }
    }

    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Something new came; it took so long, where that can be told. What took far longer
    /// than usual was lost, and the server repeated it by itself.
    pub(super) fn answered(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            let usual = self.usual.unwrap_or(Self::WAIT_FIRST);
            let took = took.min((usual * 4).max(Self::WAIT_MIN));
            self.spread = match self.usual {
                None => took / 2,
                Some(usual) => (self.spread * 3 + usual.abs_diff(took)) / 4,
            };
            self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        }
        self.wait = self.usual.map_or(Self::WAIT_FIRST, |usual| {
            (usual + self.spread * 4).clamp(Self::WAIT_MIN, Self::WAIT_MAX)
        });
    }

    /// No answer came in time.
    pub(super) fn silence(&mut self) {
        self.wait = (self.wait * 2).min(Self::WAIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEP: Verdict = Verdict::Take {
        acknowledge: false,
        last: false,
    };
    const ANSWER: Verdict = Verdict::Take {
        acknowledge: true,
        last: false,
    };
    const END: Verdict = Verdict::Take {
        acknowledge: true,
        last: true,
    };

    #[test]
    fn a_window_is_acknowledged_at_its_end() {
        let mut receiver = Receiver::new(512, 3);
        let verdicts = [1, 2, 3, 4].map(|block| receiver.block(block, 512));
        assert_eq!(verdicts, [KEEP, KEEP, ANSWER, KEEP]);
        assert_eq!(receiver.block(5, 511), END);
    }

    #[test]
    fn a_gap_is_complained_of_once() {
        let mut receiver = Receiver::new(512, 4);
        let verdicts = [1, 3, 4, 2].map(|block| receiver.block(block, 512));
        assert_eq!(
            verdicts,
            [KEEP, Verdict::Again, Verdict::Ignore, KEEP],
            "after the complaint a new window begins with block 2"
        );
        assert_eq!(receiver.taken(), 2);
    }

    #[test]
    fn a_repeated_window_is_answered_at_its_end_only() {
        let mut receiver = Receiver::new(512, 2);
        let _ = [1, 2].map(|block| receiver.block(block, 512));
        let verdicts = [1, 2].map(|block| receiver.block(block, 512));
        assert_eq!(verdicts, [Verdict::Ignore, Verdict::Again]);
    }

    #[test]
    fn with_a_window_of_one_an_answer_told_twice_repeats_nothing() {
        let mut sender = Sender::new(2000, 512, 1);
        assert_eq!(sender.next(), Some(1));
        assert!(sender.acknowledge(1));
        assert_eq!(sender.next(), Some(2));
        assert!(!sender.acknowledge(1));
        assert_eq!(
            sender.next(),
            None,
            "the sorcerer's apprentice stays asleep"
        );
    }

    #[test]
    fn a_file_of_whole_blocks_ends_with_an_empty_one() {
        assert_eq!(Sender::new(1024, 512, 1).blocks, 3);
        assert_eq!(Sender::new(0, 512, 1).blocks, 1);
    }

    #[test]
    fn the_wait_follows_the_answers_and_grows_with_losses() {
        let mut pace = Pace::new();
        for _ in 0..50 {
            pace.answered(Some(Duration::from_millis(100)));
        }
        assert!((100..150).contains(&pace.wait().as_millis()));
        for _ in 0..50 {
            pace.silence();
        }
        assert_eq!(pace.wait(), Pace::WAIT_MAX);
        pace.answered(None);
        assert!((100..150).contains(&pace.wait().as_millis()));
    }

    /// Sends `blocks` from one side to the other over a line that loses what
    /// `loses` says, and returns what arrived, in order.
    fn transfer(blocks: u64, window: u16, start: u64, mut loses: impl FnMut() -> bool) -> Vec<u64> {
        let mut sender = Sender::new((start + blocks) * 512 - 1, 512, window);
        let mut receiver = Receiver::new(512, window);
        (sender.acknowledged, sender.sent, receiver.taken) = (start, start, start);
        let mut arrived = Vec::new();
        let mut last_seen = false;
        while !sender.is_done() {
            let mut answer = None;
            while let Some(block) = sender.next() {
                if loses() {
                    continue;
                }
                let length = if block == start + blocks { 511 } else { 512 };
                match receiver.block(on_the_wire(block), length) {
                    Verdict::Take { acknowledge, last } => {
                        arrived.push(block);
                        last_seen |= last;
                        if acknowledge {
                            answer = Some(receiver.taken());
                        }
                    }
                    Verdict::Again => answer = Some(receiver.taken()),
                    Verdict::Ignore => {}
                }
            }
            match answer.filter(|_| !loses()) {
                Some(block) => drop(sender.acknowledge(block)),
                None => sender.silence(),
            }
        }
        assert!(last_seen);
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
