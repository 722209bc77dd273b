//! Sends a file to the guest, a window of blocks at a time.

use std::error::Error;
use std::io::{self, IoSliceMut};
use std::time::{Duration, Instant};

use rustix::io::preadv;
use tftpd::ErrorCode;

use super::namespace::Offer;
use super::request::{Negotiated, Refusal};
use super::transport::{TransferError, Transport};
use crate::codec::{HEADER, Packet, data_header, wire_block};

/// The age of a send up to which a repeated acknowledgement was already in flight before it, and
/// does not report a loss.
const IN_FLIGHT_MAX: Duration = Duration::from_millis(30);

/// Sends everything and returns when the last block is acknowledged.
pub(super) fn send(
    transport: &mut Transport,
    offer: &Offer,
    size: u64,
    negotiated: &Negotiated,
) -> Result<(), TransferError> {
    transport.set_receive_size(0);
    if let Some(packet) = negotiated.packet() {
        send_until_acknowledged(transport, &packet, packet.len(), 0, 0)?;
    }
    let packet_size = HEADER + negotiated.block_size;
    transport.enable_segmentation(packet_size);
    let mut window = Window::new(offer, size, negotiated.block_size);
    let mut done = 0;
    while done < window.last {
        let end = (done + negotiated.window as u64).min(window.last);
        let packets = window
            .fill(done + 1, end)
            .map_err(|error| unreadable(&error))?;
        done = send_until_acknowledged(transport, packets, packet_size, done, end)?;
    }
    Ok(())
}

fn unreadable(error: &io::Error) -> TransferError {
    tracing::warn!(
        error = error as &dyn Error,
        "cannot read a file for the guest"
    );
    let reason = "the file cannot be read";
    TransferError::Refused(Refusal::new(ErrorCode::NotDefined, reason))
}

/// Sends the packets of the blocks after `done` up to `end` until at least one of them is
/// acknowledged. Returns the last acknowledged block. For an option acknowledgement, which is
/// acknowledged as block 0, both numbers are 0.
fn send_until_acknowledged(
    transport: &mut Transport,
    packets: &[u8],
    packet_size: usize,
    done: u64,
    end: u64,
) -> Result<u64, TransferError> {
    loop {
        let sent_at = Instant::now();
        transport.send(packets, packet_size)?;
        if let Some(acknowledged) = wait_for_acknowledgement(transport, sent_at, done, end)? {
            transport.record_progress();
            // The acknowledgement may answer an earlier send, and then the measured time is too
            // short. If that causes another retransmission, the timeout grows.
            transport.rto.add_measurement(sent_at.elapsed());
            return Ok(acknowledged);
        }
    }
}

/// Waits for an acknowledgement. Returns `None` when the packets must be sent again.
fn wait_for_acknowledgement(
    transport: &mut Transport,
    sent_at: Instant,
    done: u64,
    end: u64,
) -> Result<Option<u64>, TransferError> {
    let deadline = sent_at + transport.rto.timeout();
    while let Some(packet) = transport.receive(deadline)? {
        let Packet::Ack(block) = packet else { continue };
        let ahead = u64::from(block.wrapping_sub(wire_block(done)));
        if ahead <= end - done && (ahead > 0 || done == end) {
            return Ok(Some(done + ahead));
        }
        // The first block was lost, or the acknowledgement is a duplicate. With a window of
        // one, a retransmission for a duplicate would double all later packets (RFC 1123,
        // section 4.2.3.1).
        let has_several_blocks = end - done > 1;
        let age_min = if has_several_blocks {
            Duration::ZERO
        } else {
            IN_FLIGHT_MAX
        };
        if ahead == 0 && sent_at.elapsed() > transport.rto.round_trip().max(age_min) {
            return Ok(None);
        }
    }
    transport.rto.back_off();
    Ok(None)
}

/// The packets of consecutive blocks of a file.
struct Window<'a> {
    offer: &'a Offer,
    size: u64,
    block_size: usize,
    /// The last block of the file. It is shorter than the others, or empty.
    last: u64,
    packets: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(offer: &'a Offer, size: u64, block_size: usize) -> Self {
        Self {
            offer,
            size,
            block_size,
            last: size / block_size as u64 + 1,
            packets: Vec::new(),
        }
    }

    /// Reads the blocks from `first` to `end` and returns their packets.
    fn fill(&mut self, first: u64, end: u64) -> io::Result<&[u8]> {
        let from = (first - 1) * self.block_size as u64;
        let until = (end * self.block_size as u64).min(self.size);
        let length = usize::try_from(until - from).map_err(io::Error::other)?;
        let blocks = usize::try_from(end + 1 - first).map_err(io::Error::other)?;
        self.packets.resize(length + HEADER * blocks, 0);
        let packets = self.packets.chunks_mut(HEADER + self.block_size);
        let mut payloads = Vec::with_capacity(blocks);
        for (packet, block) in packets.zip(first..) {
            let (header, payload) = packet.split_at_mut(HEADER);
            header.copy_from_slice(&data_header(wire_block(block)));
            payloads.push(payload);
        }
        read_into(self.offer, from, length, payloads)?;
        Ok(&self.packets)
    }
}

/// Reads `length` bytes at `from` into the payloads.
fn read_into(offer: &Offer, from: u64, length: usize, payloads: Vec<&mut [u8]>) -> io::Result<()> {
    match offer {
        Offer::Deferred(_) => Err(truncated()),
        Offer::Bytes(bytes) => {
            let start = usize::try_from(from).map_err(io::Error::other)?;
            let mut rest = bytes.get(start..).unwrap_or_default();
            for payload in payloads {
                let (head, tail) = rest.split_at_checked(payload.len()).ok_or_else(truncated)?;
                payload.copy_from_slice(head);
                rest = tail;
            }
            Ok(())
        }
        Offer::File(file) => {
            let mut slots: Vec<_> = payloads.into_iter().map(IoSliceMut::new).collect();
            if preadv(file, &mut slots, from)? == length {
                Ok(())
            } else {
                Err(truncated())
            }
        }
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file was truncated")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_window_holds_numbered_blocks_of_which_the_last_is_short() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdefghij").unwrap();
        for offer in [
            Offer::File(Arc::new(file)),
            Offer::from("abcdefghij".to_owned()),
        ] {
            let mut window = Window::new(&offer, 10, 4);
            assert_eq!(window.last, 3);
            assert_eq!(
                window.fill(1, 2).unwrap(),
                b"\0\x03\0\x01abcd\0\x03\0\x02efgh"
            );
            assert_eq!(window.fill(3, 3).unwrap(), b"\0\x03\0\x03ij");
            let mut window = Window::new(&offer, 8, 8);
            assert_eq!(
                window.fill(1, 2).unwrap(),
                b"\0\x03\0\x01abcdefgh\0\x03\0\x02"
            );
            let mut window = Window::new(&offer, 20, 16);
            assert!(window.fill(1, 2).is_err());
        }
    }
}
