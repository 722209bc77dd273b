//! Receives a file from the guest, a window of blocks at a time.

use std::time::{Duration, Instant};

use super::request::Negotiated;
use super::staging::StagedFile;
use super::transport::{Phase, TransferError, Transport, illegal};
use crate::codec::{Packet, wire_block};

/// The age of an acknowledgement up to which a repeated block is a duplicate from the network. An
/// acknowledgement of a duplicate would double all later packets (RFC 1123, section 4.2.3.1).
const DUPLICATE_AGE_MAX: Duration = Duration::from_millis(30);
/// The shortest time before an acknowledgement is repeated (RFC 6298, section 2.4). It is long,
/// because the client retransmits its blocks by its own timer.
const REPEAT_MIN: Duration = Duration::from_secs(1);
/// The number of repetitions of the last acknowledgement that the client has not asked for.
const LAST_ACK_REPEATS: u32 = 4;
/// The time for which the last acknowledgement is repeated on request: three times as long
/// as many clients wait before they retransmit.
const DALLY: Duration = Duration::from_secs(16);

/// Receives everything into `staged` and returns the number of the last block, which is not
/// acknowledged yet.
pub(super) fn receive(
    transport: &mut Transport,
    negotiated: &Negotiated,
    staged: &mut StagedFile,
) -> Result<u64, TransferError> {
    let mut progress = Progress::new(negotiated);
    transport.set_receive_size(progress.block_size);
    match negotiated.packet() {
        Some(packet) => {
            transport.phase.keep_option_ack(&packet);
            transport.send(&packet, packet.len())?;
        }
        None => progress.acknowledge(transport)?,
    }
    loop {
        match transport.receive(progress.deadline(transport))? {
            Some(Packet::Data { block, payload }) if block == wire_block(progress.received + 1) => {
                if payload.len() > progress.block_size {
                    return Err(illegal("a block is longer than agreed"));
                }
                staged.write(payload)?;
                let last = payload.len() < progress.block_size;
                progress.advance(transport);
                if last {
                    return Ok(progress.received);
                }
                if progress.unacknowledged == progress.window {
                    progress.acknowledge(transport)?;
                }
            }
            Some(Packet::Data { block, .. }) => progress.handle_out_of_order(transport, block)?,
            Some(_) => {}
            None => {
                transport.rto.back_off();
                progress.time_out(transport)?;
            }
        }
    }
}

/// The blocks that have arrived, and their acknowledgement.
struct Progress {
    block_size: usize,
    window: u64,
    /// Set while only the option acknowledgement was sent.
    negotiating: bool,
    /// The last block that arrived in order.
    received: u64,
    /// The blocks since the last acknowledgement.
    unacknowledged: u64,
    acknowledged_at: Instant,
    /// The time of the last block in order or acknowledgement.
    active_at: Instant,
    /// Set after the last acknowledgement was repeated, because the next block does not measure a
    /// round trip then.
    repeated: bool,
    /// Set after a gap was reported, because the blocks behind the gap need no answer then.
    gap_reported: bool,
}

impl Progress {
    fn new(negotiated: &Negotiated) -> Self {
        let now = Instant::now();
        Self {
            block_size: negotiated.block_size,
            window: negotiated.window as u64,
            negotiating: negotiated.packet().is_some(),
            received: 0,
            unacknowledged: 0,
            acknowledged_at: now,
            active_at: now,
            repeated: false,
            gap_reported: false,
        }
    }

    fn deadline(&self, transport: &Transport) -> Instant {
        self.active_at + transport.rto.timeout().max(REPEAT_MIN)
    }

    fn acknowledge(&mut self, transport: &mut Transport) -> Result<(), TransferError> {
        transport.acknowledge(self.received)?;
        self.unacknowledged = 0;
        self.acknowledged_at = Instant::now();
        self.active_at = self.acknowledged_at;
        Ok(())
    }

    /// Repeats the last acknowledgement, because it or the block after it was lost.
    fn acknowledge_again(&mut self, transport: &mut Transport) -> Result<(), TransferError> {
        self.repeated = true;
        self.acknowledge(transport)
    }

    fn time_out(&mut self, transport: &mut Transport) -> Result<(), TransferError> {
        self.gap_reported = false;
        if self.negotiating {
            // The listener repeats the option acknowledgement when the client repeats its
            // request. Without a request, curl would take it for the acknowledgement of the
            // block that it has sent.
            self.active_at = Instant::now();
            return Ok(());
        }
        self.acknowledge_again(transport)
    }

    /// Records a block that arrived in order.
    fn advance(&mut self, transport: &mut Transport) {
        self.active_at = Instant::now();
        if self.unacknowledged == 0 && !self.repeated && !self.negotiating {
            transport
                .rto
                .add_measurement(self.active_at - self.acknowledged_at);
        } else {
            transport.rto.reset();
        }
        transport.record_progress();
        self.negotiating = false;
        self.received += 1;
        self.unacknowledged += 1;
        self.repeated = false;
        self.gap_reported = false;
    }

    /// Handles a block out of order: an earlier block or an acknowledgement was lost.
    fn handle_out_of_order(
        &mut self,
        transport: &mut Transport,
        block: u16,
    ) -> Result<(), TransferError> {
        let answered = if self.window == 1 {
            let age_min = DUPLICATE_AGE_MAX.max(transport.rto.round_trip());
            block == wire_block(self.received) && self.acknowledged_at.elapsed() >= age_min
        } else {
            !self.gap_reported
        };
        if !answered {
            return Ok(());
        }
        self.gap_reported = true;
        self.acknowledge_again(transport)
    }
}

/// Acknowledges the last block. Repeats that a few times in case it was lost, and then whenever
/// the block arrives again (RFC 1350, section 6).
pub(super) fn dally(transport: &mut Transport, last: u64) -> Result<(), TransferError> {
    transport.phase.set(Phase::Dallying);
    let end = Instant::now() + DALLY;
    for _ in 0..LAST_ACK_REPEATS {
        transport.acknowledge(last)?;
        let deadline = Instant::now() + transport.rto.timeout();
        acknowledge_last_until(transport, last, deadline)?;
        transport.rto.back_off();
    }
    acknowledge_last_until(transport, last, end)
}

fn acknowledge_last_until(
    transport: &mut Transport,
    last: u64,
    deadline: Instant,
) -> Result<(), TransferError> {
    loop {
        match transport.receive(deadline)? {
            Some(Packet::Data { block, .. }) if block == wire_block(last) => {
                transport.acknowledge(last)?;
            }
            None => return Ok(()),
            _ => {}
        }
    }
}
