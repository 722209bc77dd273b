//! Receiving a file from a guest, a window of blocks at a time.

use std::time::{Duration, Instant};

use super::manner::Manner;
use super::request::{Agreed, BLOCK_PLAIN};
use super::staging::StagedFile;
use super::transport::{Inbound, Phase, TransferError, Transport, illegal, wire};

/// A block that comes again so soon was doubled on its way, or is the answer to an
/// answer of ours that was: to answer it would double every packet that follows.
const ECHO: Duration = Duration::from_millis(30);
/// How often the last acknowledgement is repeated unasked, in case it was lost.
const FAREWELLS: u32 = 4;
/// How long the last acknowledgement is repeated when asked for: three times as long as
/// patient clients wait before they ask.
const DALLY: Duration = Duration::from_secs(16);

/// Receives everything into `staged`; the last block is not acknowledged yet.
/// Returns its number. `told` is the size that the client says the file has.
pub(super) fn receive(
    transport: &mut Transport,
    agreed: &Agreed,
    told: Option<u64>,
    staged: &mut StagedFile,
) -> Result<u64, TransferError> {
    let mut progress = Progress::new(agreed, told);
    transport.expect(progress.block_max());
    if let Some(packet) = &progress.opening {
        transport.phase.answered(packet);
    }
    progress.answer(transport)?;
    loop {
        let deadline = progress.moved + progress.patience(transport, staged.bytes);
        match transport.receive(deadline)? {
            Inbound::Data(block, payload) if block == wire(progress.got + 1) => {
                progress.settle(payload.len());
                if payload.len() > progress.block {
                    return Err(illegal("a block is longer than agreed"));
                }
                staged.write(payload)?;
                let last = payload.len() < progress.block;
                progress.step(transport);
                if last {
                    return Ok(progress.got);
                }
                if progress.unanswered == progress.window {
                    progress.answer(transport)?;
                }
            }
            Inbound::Data(block, _) => progress.gap(transport, block)?,
            Inbound::Ack(_) => {}
            Inbound::Nothing => {
                transport.rto.missed();
                progress.repeat(transport)?;
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
    fn patience(&self, transport: &Transport, have: u64) -> Duration {
        let left = self.told.and_then(|size| size.checked_sub(have));
        let is_last = left.is_some_and(|left| left < self.block as u64);
        let is_opening = self.opening.is_some();
        self.manner
            .patience(transport.rto.wait(), self.repeats, is_opening || is_last)
    }

    /// Says how far we have come.
    fn answer(&mut self, transport: &mut Transport) -> Result<(), TransferError> {
        match &self.opening {
            Some(packet) if !self.plain => transport.send(packet, packet.len())?,
            _ => transport.acknowledge(self.got)?,
        }
        self.unanswered = 0;
        self.answered = Instant::now();
        self.moved = self.answered;
        Ok(())
    }

    /// Nothing came in time: our answer was lost, or what followed it.
    fn repeat(&mut self, transport: &mut Transport) -> Result<(), TransferError> {
        self.gap_told = false;
        if self.opening.is_some() {
            let asked = std::mem::replace(&mut self.asked, transport.phase.repeated());
            if asked != self.asked || !self.may_be_plain() {
                // The client asks again, and the listener answers.
                self.moved = Instant::now();
                return Ok(());
            }
            self.plain = true;
        }
        self.repeats += 1;
        self.answer(transport)
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
    fn step(&mut self, transport: &mut Transport) {
        self.moved = Instant::now();
        let time = self.moved - self.answered;
        if self.repeats > 0 && self.opening.is_none() {
            self.manner.went_on(time);
        }
        let asked_again = self.got == 0 && transport.phase.repeated() > 0;
        if self.unanswered == 0 && self.repeats == 0 && !self.echoed && !asked_again {
            transport.rto.answered(time);
        } else {
            transport.rto.went_on();
        }
        transport.advance();
        self.opening = None;
        self.got += 1;
        self.unanswered += 1;
        self.repeats = 0;
        self.echoed = false;
        self.gap_told = false;
    }

    /// A block came out of order: one was lost, or our answer was.
    fn gap(&mut self, transport: &mut Transport, block: u16) -> Result<(), TransferError> {
        let time = self.answered.elapsed();
        if self.window == 1 {
            if block != wire(self.got) || time < ECHO.max(transport.rto.usual()) {
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
        self.answer(transport)
    }
}

/// Acknowledges the last block, some times more in case that was lost, and again
/// whenever it comes again.
pub(super) fn dally(transport: &mut Transport, last: u64) -> Result<(), TransferError> {
    transport.phase.set(Phase::Dallying);
    let end = Instant::now() + DALLY;
    for _ in 0..FAREWELLS {
        transport.acknowledge(last)?;
        let deadline = Instant::now() + transport.rto.wait();
        answer_last(transport, last, deadline)?;
        transport.rto.missed();
    }
    answer_last(transport, last, end)
}

fn answer_last(transport: &mut Transport, last: u64, until: Instant) -> Result<(), TransferError> {
    loop {
        match transport.receive(until)? {
            Inbound::Data(block, _) if block == wire(last) => transport.acknowledge(last)?,
            Inbound::Nothing => return Ok(()),
            _ => {}
        }
    }
}
