//! Sending a file to a guest, a window of blocks at a time.

use std::io::{self, IoSliceMut};
use std::time::{Duration, Instant};

use rustix::io::preadv;
use tftpd::ErrorCode;

use super::namespace::Offer;
use super::request::{Agreed, Refusal};
use super::transport::{Inbound, TransferError, Transport, wire};

/// An old acknowledgement that comes so soon after we have sent was under way already.
const ECHO: Duration = Duration::from_millis(30);
const ECHO_WINDOW: Duration = Duration::ZERO;

/// Sends everything and returns when the last block was acknowledged.
pub(super) fn send(
    transport: &mut Transport,
    offer: &Offer,
    size: u64,
    agreed: &Agreed,
) -> Result<(), TransferError> {
    transport.expect(0);
    if let Some(packet) = agreed.packet() {
        send_until_acknowledged(transport, &packet, packet.len(), 0, 0)?;
    }
    transport.cut(agreed.block + 4);
    let mut window = Window::new(offer, size, agreed.block);
    let mut done = 0;
    while done < window.last {
        let end = (done + agreed.window as u64).min(window.last);
        let stride = agreed.block + 4;
        let packets = window
            .fill(done + 1, end)
            .map_err(|error| changed(&error))?;
        done = send_until_acknowledged(transport, packets, stride, done, end)?;
    }
    Ok(())
}

fn changed(error: &io::Error) -> TransferError {
    tracing::warn!(%error, "cannot read what a guest fetches");
    TransferError::Refused(Refusal::new(
        ErrorCode::NotDefined,
        "the file cannot be read",
    ))
}

/// Sends the packets of the blocks after `done` up to `end` until at least one of
/// them is acknowledged; returns the block up to which all are. For the answer to
/// a request, both are 0.
fn send_until_acknowledged(
    transport: &mut Transport,
    packets: &[u8],
    size: usize,
    done: u64,
    end: u64,
) -> Result<u64, TransferError> {
    loop {
        let sent = Instant::now();
        transport.send(packets, size)?;
        if let Some(acknowledged) = wait(transport, sent, done, end)? {
            transport.advance();
            transport.rto.answered(sent.elapsed());
            return Ok(acknowledged);
        }
    }
}

/// Waits for an acknowledgement; `None` means that the packets must be sent again.
fn wait(
    transport: &mut Transport,
    sent: Instant,
    done: u64,
    end: u64,
) -> Result<Option<u64>, TransferError> {
    let deadline = sent + transport.rto.wait();
    loop {
        match transport.receive(deadline)? {
            Inbound::Ack(block) => {
                let ahead = u64::from(block.wrapping_sub(wire(done)));
                if ahead <= end - done && (ahead > 0 || done == end) {
                    return Ok(Some(done + ahead));
                }
                // The first was lost, or it is an echo of our own repetition, which comes
                // at once: answering that would double every packet that follows.
                let echo = if end - done > 1 { ECHO_WINDOW } else { ECHO };
                if ahead == 0 && sent.elapsed() > transport.rto.usual().max(echo) {
                    return Ok(None);
                }
            }
            Inbound::Data(..) => {}
            Inbound::Nothing => {
                transport.rto.missed();
                return Ok(None);
            }
        }
    }
}

/// The packets of some blocks of a file, one behind the other.
struct Window<'a> {
    offer: &'a Offer,
    size: u64,
    block: usize,
    /// The last block; it is shorter than the others, or empty.
    last: u64,
    packets: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(offer: &'a Offer, size: u64, block: usize) -> Self {
        Self {
            offer,
            size,
            block,
            last: size / block as u64 + 1,
            packets: Vec::new(),
        }
    }

    fn fill(&mut self, first: u64, end: u64) -> io::Result<&[u8]> {
        let from = (first - 1) * self.block as u64;
        let until = (end * self.block as u64).min(self.size);
        let payload = usize::try_from(until - from).map_err(io::Error::other)?;
        let blocks = usize::try_from(end + 1 - first).map_err(io::Error::other)?;
        self.packets.resize(payload + 4 * blocks, 0);
        for (packet, number) in self.packets.chunks_mut(self.block + 4).zip(first..) {
            packet[..2].copy_from_slice(&[0, 3]);
            packet[2..4].copy_from_slice(&wire(number).to_be_bytes());
        }
        let slots = self.packets.chunks_mut(self.block + 4);
        let slots = slots.map(|packet| &mut packet[4..]);
        read_into(self.offer, from, payload, slots)?;
        Ok(&self.packets)
    }
}

/// Reads `payload` bytes at `from` into the slots.
fn read_into<'a>(
    offer: &Offer,
    from: u64,
    payload: usize,
    slots: impl Iterator<Item = &'a mut [u8]>,
) -> io::Result<()> {
    match offer {
        Offer::Deferred(_) => Err(shorter()),
        Offer::Bytes(bytes) => {
            let start = usize::try_from(from).map_err(io::Error::other)?;
            let mut rest = bytes.get(start..).unwrap_or_default();
            for slot in slots {
                let (head, tail) = rest.split_at_checked(slot.len()).ok_or_else(shorter)?;
                slot.copy_from_slice(head);
                rest = tail;
            }
            Ok(())
        }
        Offer::File(file) => {
            let mut slots: Vec<_> = slots.map(IoSliceMut::new).collect();
            if preadv(file, &mut slots, from)? == payload {
                Ok(())
            } else {
                Err(shorter())
            }
        }
    }
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_window_holds_numbered_blocks_the_last_one_short() {
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
