//! The packets of TFTP (RFC 1350, 2347–2349, 7440), as a client writes and reads them.
//!
//! Written by hand, because all that a client needs of it is this page, while the
//! `tftpd` crate brings a whole server into a binary that every guest must load;
//! that crate's codec is what the tests hold this one against.

use super::TftpError;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Read = 1,
    Write = 2,
}

/// What both sides agree on before the first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) block_size: u16,
    pub(super) window: u16,
    /// The size of the whole file, where it is known.
    pub(super) size: Option<u64>,
}

impl Terms {
    /// The terms of a server that knows no options.
    pub(super) const PLAIN: Self = Self {
        block_size: 512,
        window: 1,
        size: None,
    };

    /// What we ask for: blocks that fit an Ethernet frame, and 16 of them on the way.
    pub(super) fn wished(size: u64) -> Self {
        Self {
            block_size: 1428,
            window: 16,
            size: Some(size),
        }
    }
}

/// A packet that a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Data { block: u16, bytes: &'a [u8] },
    Acknowledged(u16),
    Agreed(Terms),
    Error { code: u16, message: String },
}

/// A request; the options of `terms` go with it unless they are the plain ones.
pub(super) fn request(what: Request, name: &str, terms: Terms) -> Vec<u8> {
    let mut packet = vec![0, what as u8];
    let mut word = |text: &str| {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    };
    word(name);
    word("octet");
    if terms != Terms::PLAIN {
        let options = [
            ("blksize", u64::from(terms.block_size)),
            ("windowsize", u64::from(terms.window)),
            ("timeout", 1),
            ("tsize", terms.size.unwrap_or(0)),
        ];
        for (name, value) in options {
            word(name);
            word(&value.to_string());
        }
    }
    packet
}

/// One block of a file.
pub(super) fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
    [&[0, 3], &block.to_be_bytes()[..], bytes].concat()
}

/// That all blocks up to `block` have arrived.
pub(super) fn acknowledgement(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

/// That we want to hear no more.
pub(super) fn error(code: u16, message: &str) -> Vec<u8> {
    [&[0, 5], &code.to_be_bytes()[..], message.as_bytes(), &[0]].concat()
}

/// Reads a packet of a server.
pub(super) fn read(packet: &[u8]) -> Result<Packet<'_>, TftpError> {
    let odd = TftpError::Odd("a packet that is none of TFTP's");
    let Some((&[high, low], rest)) = packet.split_first_chunk::<2>() else {
        return Err(odd);
    };
    match (high, low, rest.split_first_chunk::<2>()) {
        (0, 3, Some((block, bytes))) => Ok(Packet::Data {
            block: u16::from_be_bytes(*block),
            bytes,
        }),
        (0, 4, Some((block, _))) => Ok(Packet::Acknowledged(u16::from_be_bytes(*block))),
        (0, 5, Some((code, text))) => Ok(Packet::Error {
            code: u16::from_be_bytes(*code),
            message: String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap_or(&[]))
                .into_owned(),
        }),
        (0, 6, _) => agreed(rest).map(Packet::Agreed),
        _ => Err(odd),
    }
}

/// Reads what a server agreed to; it may ask for less than we wished, not for more.
fn agreed(options: &[u8]) -> Result<Terms, TftpError> {
    let mut terms = Terms::PLAIN;
    let wished = Terms::wished(0);
    let mut words = options.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let value: Option<u64> = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok());
        let within = |max: u16| {
            value
                .and_then(|value| u16::try_from(value).ok())
                .filter(|value| (1..=max).contains(value))
                .ok_or(TftpError::Odd("options that we did not ask for"))
        };
        match name.to_ascii_lowercase().as_slice() {
            b"blksize" => terms.block_size = within(wished.block_size)?,
            b"windowsize" => terms.window = within(wished.window)?,
            b"tsize" => terms.size = value,
            _ => {}
        }
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tftpd::{OptionType, TransferOption};

    use super::*;

    #[test]
    fn another_codec_reads_our_requests() {
        let packet = request(Request::Write, "artifacts/a.ipk", Terms::wished(70_000));
        let options = [
            (OptionType::BlockSize, 1428),
            (OptionType::WindowSize, 16),
            (OptionType::Timeout, 1),
            (OptionType::TransferSize, 70_000),
        ];
        let expected = tftpd::Packet::Wrq {
            filename: "artifacts/a.ipk".into(),
            mode: "octet".into(),
            options: options
                .map(|(option, value)| TransferOption { option, value })
                .into(),
        };
        assert_eq!(tftpd::Packet::deserialize(&packet).unwrap(), expected);
    }

    #[test]
    fn a_plain_request_has_no_options() {
        let packet = request(Request::Read, "x", Terms::PLAIN);
        assert_eq!(packet, b"\0\x01x\0octet\0");
    }

    #[test]
    fn a_server_may_agree_to_less_and_not_to_more() {
        let terms = |text: &'static [u8]| read(text).map_err(|error| error.to_string());
        let less = terms(b"\0\x06BLKSIZE\x00512\0windowsize\x004\0tsize\x009\0utimeout\x001\0");
        let expected = Terms {
            block_size: 512,
            window: 4,
            size: Some(9),
        };
        assert_eq!(less, Ok(Packet::Agreed(expected)));
        assert!(terms(b"\0\x06blksize\x0065464\0").is_err());
        assert!(terms(b"\0\x06windowsize\x000\0").is_err());
        assert!(terms(b"\0\x06windowsize\0x\0").is_err());
    }

    #[test]
    fn an_error_may_lack_its_end_and_have_any_number() {
        let expected = Packet::Error {
            code: 99,
            message: "no".into(),
        };
        assert_eq!(read(b"\0\x05\0\x63no").unwrap(), expected);
    }

    proptest! {
        #[test]
        fn another_codec_agrees_on_blocks(block: u16, bytes: Vec<u8>) {
            let packet = tftpd::Packet::Data { block_num: block, data: bytes.clone() };
            let ours = data(block, &bytes);
            prop_assert_eq!(&packet.serialize().unwrap(), &ours);
            prop_assert_eq!(read(&ours).unwrap(), Packet::Data { block, bytes: &bytes });
            let ours = acknowledgement(block);
            prop_assert_eq!(&tftpd::Packet::Ack(block).serialize().unwrap(), &ours);
            prop_assert_eq!(read(&ours).unwrap(), Packet::Acknowledged(block));
        }

        #[test]
        fn no_bytes_make_the_reader_fall_over(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
