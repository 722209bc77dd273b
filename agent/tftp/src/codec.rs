//! The packets of TFTP (RFC 1350, 2347 to 2349, 7440): the one codec of server and client.
//!
//! Requests, option acknowledgements and errors are those of the crate `tftpd`. DATA and
//! ACK are read and written in place, which saves a copy of every block.

use tftpd::{ErrorCode, Opcode, OptionType, Packet as Tftpd, TransferOption};

/// The bytes before the payload of a DATA packet.
pub(crate) const HEADER: usize = 4;
/// The block size without the option `blksize`.
pub(crate) const BLOCK_SIZE_DEFAULT: u16 = 512;

/// The options of a request or of its acknowledgement. Unknown ones are dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) block_size: Option<u64>,
    pub(crate) window: Option<u64>,
    pub(crate) timeout: Option<u64>,
    pub(crate) transfer_size: Option<u64>,
}

impl Options {
    /// Reads a list of options. If an option is repeated, the first value counts.
    pub(crate) fn from_list(list: &[TransferOption]) -> Self {
        let first = |kind: OptionType| {
            list.iter()
                .find(|option| option.option == kind)
                .map(|option| option.value)
        };
        Self {
            block_size: first(OptionType::BlockSize),
            window: first(OptionType::WindowSize),
            timeout: first(OptionType::Timeout),
            transfer_size: first(OptionType::TransferSize),
        }
    }

    /// Returns the options as `tftpd` writes them.
    pub(crate) fn to_list(self) -> Vec<TransferOption> {
        [
            (OptionType::BlockSize, self.block_size),
            (OptionType::WindowSize, self.window),
            (OptionType::Timeout, self.timeout),
            (OptionType::TransferSize, self.transfer_size),
        ]
        .into_iter()
        .filter_map(|(option, value)| value.map(|value| TransferOption { option, value }))
        .collect()
    }
}

/// A packet of a transfer that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Data { block: u16, payload: &'a [u8] },
    Ack(u16),
    OptionAck(Options),
    Error { code: u16, message: String },
}

/// Reads a packet of a transfer. Returns `None` for requests and malformed packets.
pub(crate) fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let (opcode, rest) = packet.split_first_chunk()?;
    match Opcode::from_u16(u16::from_be_bytes(*opcode)).ok()? {
        Opcode::Data => {
            let (block, payload) = split_number(rest)?;
            Some(Packet::Data { block, payload })
        }
        Opcode::Ack => split_number(rest).map(|(block, _)| Packet::Ack(block)),
        // `tftpd` knows only the error codes of the RFCs.
        Opcode::Error => {
            let (code, text) = split_number(rest)?;
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let message = String::from_utf8_lossy(text).into_owned();
            Some(Packet::Error { code, message })
        }
        Opcode::Oack => match Tftpd::deserialize(packet).ok()? {
            Tftpd::Oack(list) => Some(Packet::OptionAck(Options::from_list(&list))),
            _ => None,
        },
        Opcode::Rrq | Opcode::Wrq => None,
    }
}

/// Splits a 16-bit number off the start of a packet's bytes.
fn split_number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// Returns the bytes of a packet of `tftpd`.
pub(crate) fn serialize(packet: &Tftpd) -> Vec<u8> {
    // `tftpd` returns `Ok` for every kind of packet.
    packet.serialize().unwrap_or_default()
}

/// Returns the header of a DATA packet.
pub(crate) fn data_header(block: u16) -> [u8; HEADER] {
    header(Opcode::Data, block)
}

/// Returns an ACK packet.
pub(crate) fn ack(block: u16) -> [u8; HEADER] {
    header(Opcode::Ack, block)
}

fn header(opcode: Opcode, number: u16) -> [u8; HEADER] {
    let ([a, b], [c, d]) = (opcode.as_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

/// Returns an ERROR packet.
pub(crate) fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let msg = message.to_owned();
    serialize(&Tftpd::Error { code, msg })
}

/// Returns the number of a block on the wire, where 0 follows 65535.
#[expect(clippy::cast_possible_truncation, reason = "the wire has 16 bits")]
pub(crate) fn wire_block(block: u64) -> u16 {
    block as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_without_terminator_and_with_an_unknown_code_is_parsed() {
        let expected = Packet::Error {
            code: 99,
            message: "no".into(),
        };
        assert_eq!(parse(b"\0\x05\0\x63no"), Some(expected));
    }

    #[test]
    fn option_names_are_case_insensitive_and_unknown_ones_are_dropped() {
        let packet = b"\0\x06BLKSIZE\x00512\0windowsize\x004\0tsize\x009\0utimeout\x001\0";
        let expected = Options {
            block_size: Some(512),
            window: Some(4),
            timeout: None,
            transfer_size: Some(9),
        };
        assert_eq!(parse(packet), Some(Packet::OptionAck(expected)));
        assert_eq!(parse(b"\0\x06windowsize\0x\0"), None);
    }

    #[test]
    fn requests_and_malformed_packets_are_rejected() {
        assert_eq!(parse(b"\0\x01x\0octet\0"), None);
        assert_eq!(parse(b"\0\x03\0"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn data_and_acknowledgements_equal_those_of_tftpd(block: u16, payload: Vec<u8>) {
            let data = [&data_header(block)[..], &payload].concat();
            let same = Tftpd::Data { block_num: block, data: payload.clone() };
            prop_assert_eq!(&serialize(&same), &data);
            prop_assert_eq!(parse(&data), Some(Packet::Data { block, payload: &payload }));
            let packet = ack(block);
            prop_assert_eq!(&serialize(&Tftpd::Ack(block)), &packet);
            prop_assert_eq!(parse(&packet), Some(Packet::Ack(block)));
        }

        #[test]
        fn options_survive_a_round_trip(
            block_size: Option<u64>,
            window: Option<u64>,
            timeout: Option<u64>,
            transfer_size: Option<u64>,
        ) {
            let options = Options { block_size, window, timeout, transfer_size };
            let packet = serialize(&Tftpd::Oack(options.to_list()));
            prop_assert_eq!(parse(&packet), Some(Packet::OptionAck(options)));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, opcode in 0..8_u8) {
            let _ = parse(&bytes);
            let _ = parse(&[&[0, opcode][..], &bytes].concat());
        }
    }
}
