//! Receiving a file from a guest, a window of blocks at a time.

use std::time::{Duration, Instant};

use super::link::{End, Inbound, Link, Stage, illegal, wire};
use super::request::Agreed;
use super::staging::Staging;

/// After so many quick repetitions it was not our answer that was lost, but what
/// the other side sent: it repeats that after a wait of its own.
const REPEATS_MAX: u32 = 3;
/// How long the last acknowledgement is repeated when asked for.
const DALLY: Duration = Duration::from_secs(6);

/// Receives everything into `staging`; the last block is not acknowledged yet.
/// Returns its number. `told` is the size that the client says the file has.
pub(super) fn receive(
    link: &mut Link,
    agreed: &Agreed,
    told: Option<u64>,
    staging: &mut Staging,
) -> Result<u64, End> {
    link.expect(agreed.block);
    let mut progress = Progress::new(agreed);
    if let Some(packet) = &progress.opening {
        link.stage.answered(packet);
    }
    progress.answer(link)?;
    loop {
        let deadline = progress.moved + link.pace.wait();
        match link.receive(deadline)? {
            Inbound::Data(block, payload) if block == wire(progress.got + 1) => {
                if payload.len() > agreed.block {
                    return Err(illegal("a block is longer than agreed"));
                }
                staging.write(payload)?;
                let last = payload.len() < agreed.block;
                progress.step(link);
                if last {
                    return Ok(progress.got);
                }
                if progress.unanswered == agreed.window as u64 {
                    progress.answer(link)?;
                }
            }
            Inbound::Data(..) => progress.gap(link)?,
            Inbound::Ack(_) => {}
            Inbound::Nothing => {
                link.pace.missed();
                if is_last_awaited(agreed, told, staging.bytes) {
                    progress.leave_to_client();
                } else {
                    progress.repeat(link)?;
                }
            }
        }
    }
}

/// Whether only the last block is missing, of a client that sends one at a time.
///
/// Such a client is left to repeat that block by itself. busybox (1.35, and all others
/// that we have read) takes an old acknowledgement that comes while it waits for the
/// last one to be its own kind of packet: when its wait is over it sends the last block
/// once more, does not wait for the answer, and ends with status 0. If that packet is
/// lost, the file never comes, and busybox has called it a success.
fn is_last_awaited(agreed: &Agreed, told: Option<u64>, have: u64) -> bool {
    let left = told.and_then(|size| size.checked_sub(have));
    agreed.window == 1 && left.is_some_and(|left| left < agreed.block as u64)
}

/// How far a transfer has come, and what was said of it.
struct Progress {
    /// The answer to the request, until data comes: then it was understood.
    opening: Option<Vec<u8>>,
    /// The last block that came in order.
    got: u64,
    /// Blocks since the last answer.
    unanswered: u64,
    /// When something came in order, or was answered.
    moved: Instant,
    answered: Instant,
    /// How often the last answer was repeated: what follows a repetition says
    /// nothing of the way there and back.
    repeated: u32,
    /// A block out of order was answered: those behind it need no answer.
    gap_told: bool,
}

impl Progress {
    fn new(agreed: &Agreed) -> Self {
        Self {
            opening: agreed.packet(),
            got: 0,
            unanswered: 0,
            moved: Instant::now(),
            answered: Instant::now(),
            repeated: 0,
            gap_told: false,
        }
    }

    /// Says how far we have come.
    fn answer(&mut self, link: &mut Link) -> Result<(), End> {
        match &self.opening {
            Some(packet) => link.send(packet, packet.len())?,
            _ => link.acknowledge(self.got)?,
        }
        self.unanswered = 0;
        self.answered = Instant::now();
        self.moved = self.answered;
        Ok(())
    }

    /// Nothing came in time: our answer was lost, or what followed it.
    fn repeat(&mut self, link: &mut Link) -> Result<(), End> {
        if self.opening.is_some() {
            // There are clients that take a second answer to their request for an
            // acknowledgement and leave a block out. When the first one was lost,
            // they ask again, and the listener answers.
            self.leave_to_client();
            return Ok(());
        }
        self.repeated += 1;
        if self.repeated >= REPEATS_MAX {
            link.pace.pause();
        }
        self.gap_told = false;
        self.answer(link)
    }

    /// Nothing came in time, and it is for the client to repeat itself.
    fn leave_to_client(&mut self) {
        self.moved = Instant::now();
        self.gap_told = false;
    }

    /// A block came in order.
    fn step(&mut self, link: &mut Link) {
        self.moved = Instant::now();
        if self.unanswered == 0 && self.repeated == 0 {
            link.pace.answered(self.moved - self.answered);
        }
        link.advance();
        self.opening = None;
        self.got += 1;
        self.unanswered += 1;
        self.repeated = 0;
        self.gap_told = false;
    }

    /// A block came out of order: one was lost, or our answer was.
    fn gap(&mut self, link: &mut Link) -> Result<(), End> {
        if self.gap_told {
            return Ok(());
        }
        self.opening = None;
        self.gap_told = true;
        self.repeated += 1;
        self.answer(link)
    }
}

/// Acknowledges the last block, and again whenever it comes again.
pub(super) fn dally(link: &mut Link, last: u64) -> Result<(), End> {
    link.stage.set(Stage::Waiting);
    link.acknowledge(last)?;
    let deadline = Instant::now() + DALLY;
    loop {
        match link.receive(deadline)? {
            Inbound::Data(block, _) if block == wire(last) => link.acknowledge(last)?,
            Inbound::Nothing => return Ok(()),
            _ => {}
        }
    }
}
