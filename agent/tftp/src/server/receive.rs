//! Receiving a file from a guest, a window of blocks at a time.

use std::time::{Duration, Instant};

use super::link::{End, Inbound, Link, Stage, illegal, wire};
use super::manner::Manner;
use super::request::{Agreed, BLOCK_PLAIN};
use super::staging::Staging;

/// A block that comes again so soon was doubled on its way, or is the answer to an
/// answer of ours that was: to answer it would double every packet that follows.
const ECHO: Duration = Duration::from_millis(30);
/// How often the last acknowledgement is repeated unasked, in case it was lost.
const FAREWELLS: u32 = 4;
/// How long the last acknowledgement is repeated when asked for: three times as long as
/// patient clients wait before they ask.
const DALLY: Duration = Duration::from_secs(16);

/// Receives everything into `staging`; the last block is not acknowledged yet.
/// Returns its number. `told` is the size that the client says the file has.
pub(super) fn receive(
    link: &mut Link,
    agreed: &Agreed,
    told: Option<u64>,
    staging: &mut Staging,
) -> Result<u64, End> {
    let mut progress = Progress::new(agreed, told);
    link.expect(progress.block_max());
    if let Some(packet) = &progress.opening {
        link.stage.answered(packet);
    }
    progress.answer(link)?;
    loop {
        let deadline = progress.moved + progress.patience(link, staging.bytes);
        match link.receive(deadline)? {
            Inbound::Data(block, payload) if block == wire(progress.got + 1) => {
                progress.settle(payload.len());
                if payload.len() > progress.block {
                    return Err(illegal("a block is longer than agreed"));
                }
                staging.write(payload)?;
                let last = payload.len() < progress.block;
                progress.step(link);
                if last {
                    return Ok(progress.got);
                }
                if progress.unanswered == progress.window {
                    progress.answer(link)?;
                }
            }
            Inbound::Data(block, _) => progress.gap(link, block)?,
            Inbound::Ack(_) => {}
            Inbound::Nothing => {
                link.pace.missed();
                progress.repeat(link)?;
            }
        }
    }
}

/// How far a transfer has come, and what was said of it.
struct Progress {
    block: usize,
    window: u64,
    told: Option<u64>,
    /// The answer to the request, until data comes: then it was understood.
    opening: Option<Vec<u8>>,
    /// Whether that answer was repeated as an acknowledgement.
    plain: bool,
    /// How often the client had asked again when we last looked.
    asked: u32,
    /// The last block that came in order.
    got: u64,
    /// Blocks since the last answer.
    unanswered: u64,
    /// When something came in order, or was answered.
    moved: Instant,
    answered: Instant,
    /// How often the last answer was repeated because nothing came.
    repeats: u32,
    /// It was given again because something came again.
    echoed: bool,
    /// A block out of order was answered: those behind it need no answer.
    gap_told: bool,
    manner: Manner,
}

impl Progress {
    fn new(agreed: &Agreed, told: Option<u64>) -> Self {
        let window = agreed.window as u64;
        // Who does not know it (curl, of its standard input) says 0, too.
        let told = told.filter(|told| *told > 0);
        Self {
            block: agreed.block,
            window,
            told,
            opening: agreed.packet(),
            plain: false,
            asked: 0,
            got: 0,
            unanswered: 0,
            moved: Instant::now(),
            answered: Instant::now(),
            repeats: 0,
            echoed: false,
            gap_told: false,
            manner: Manner::new(window),
        }
    }

    /// The longest block that may come.
    fn block_max(&self) -> usize {
        self.block.max(BLOCK_PLAIN)
    }

    /// How long to wait before our last answer is repeated, when `have` bytes are there.
    fn patience(&self, link: &Link, have: u64) -> Duration {
        let left = self.told.and_then(|size| size.checked_sub(have));
        let is_last = left.is_some_and(|left| left < self.block as u64);
        let is_opening = self.opening.is_some();
        self.manner
            .patience(link.pace.wait(), self.repeats, is_opening || is_last)
    }

    /// Says how far we have come.
    fn answer(&mut self, link: &mut Link) -> Result<(), End> {
        match &self.opening {
            Some(packet) if !self.plain => link.send(packet, packet.len())?,
            _ => link.acknowledge(self.got)?,
        }
        self.unanswered = 0;
        self.answered = Instant::now();
        self.moved = self.answered;
        Ok(())
    }

    /// Nothing came in time: our answer was lost, or what followed it.
    fn repeat(&mut self, link: &mut Link) -> Result<(), End> {
        self.gap_told = false;
        if self.opening.is_some() {
            let asked = std::mem::replace(&mut self.asked, link.stage.repeated());
            if asked != self.asked || !self.may_be_plain() {
                // The client asks again, and the listener answers.
                self.moved = Instant::now();
                return Ok(());
            }
            self.plain = true;
        }
        self.repeats += 1;
        self.answer(link)
    }

    /// Whether the answer to a request with options may be repeated as an
    /// acknowledgement, as if we knew no options.
    ///
    /// The same answer twice is poison to some that heard the first one and whose block
    /// was lost: curl (7.88) goes on with its second block and calls it the first, atftp
    /// (0.8) goes on with the second and leaves the first out. busybox and tftp-hpa pass
    /// over it. An acknowledgement of block 0 does no harm to any: curl and atftp repeat
    /// their block at once. And who heard no answer goes on without options, all four of
    /// them: the length of the first block tells, unless both agreements begin with the
    /// same one.
    fn may_be_plain(&self) -> bool {
        let ambiguous = || {
            self.told
                .is_none_or(|told| told == BLOCK_PLAIN.min(self.block) as u64)
        };
        self.window == 1 && (self.block == BLOCK_PLAIN || !ambiguous())
    }

    /// Finds out of the first block whether the client knows what was agreed.
    fn settle(&mut self, length: usize) {
        let first = |block: usize| {
            self.told
                .map_or(block as u64, |told| told.min(block as u64))
        };
        if self.got == 0 && self.plain && length as u64 == first(BLOCK_PLAIN) {
            self.block = BLOCK_PLAIN;
        }
    }

    /// A block came in order.
    fn step(&mut self, link: &mut Link) {
        self.moved = Instant::now();
        let time = self.moved - self.answered;
        if self.repeats > 0 && self.opening.is_none() {
            self.manner.went_on(time);
        }
        let asked_again = self.got == 0 && link.stage.repeated() > 0;
        if self.unanswered == 0 && self.repeats == 0 && !self.echoed && !asked_again {
            link.pace.answered(time);
        } else {
            link.pace.went_on();
        }
        link.advance();
        self.opening = None;
        self.got += 1;
        self.unanswered += 1;
        self.repeats = 0;
        self.echoed = false;
        self.gap_told = false;
    }

    /// A block came out of order: one was lost, or our answer was.
    fn gap(&mut self, link: &mut Link, block: u16) -> Result<(), End> {
        let time = self.answered.elapsed();
        if self.window == 1 {
            if block != wire(self.got) || time < ECHO.max(link.pace.usual()) {
                return Ok(());
            }
            if self.repeats == 0 {
                self.manner.repeated_itself(time);
            }
        } else if self.gap_told {
            return Ok(());
        }
        self.gap_told = true;
        self.echoed = true;
        self.answer(link)
    }
}

/// Acknowledges the last block, some times more in case that was lost, and again
/// whenever it comes again.
pub(super) fn dally(link: &mut Link, last: u64) -> Result<(), End> {
    link.stage.set(Stage::Waiting);
    let end = Instant::now() + DALLY;
    for _ in 0..FAREWELLS {
        link.acknowledge(last)?;
        let deadline = Instant::now() + link.pace.wait();
        answer_last(link, last, deadline)?;
        link.pace.missed();
    }
    answer_last(link, last, end)
}

fn answer_last(link: &mut Link, last: u64, until: Instant) -> Result<(), End> {
    loop {
        match link.receive(until)? {
            Inbound::Data(block, _) if block == wire(last) => link.acknowledge(last)?,
            Inbound::Nothing => return Ok(()),
            _ => {}
        }
    }
}
