//! What a client asks for, and what we agree to. Pure: packets in, values out.

use tftpd::{ErrorCode, OptionType, Packet, TransferOption};

/// Payload that may be under way at once; more overruns a socket's buffer.
const FLIGHT_MAX: usize = 128 * 1024;
/// Blocks that may be under way at once: small ones cost the kernel more than they hold.
const WINDOW_MAX: usize = 128;
/// The length of a block where nothing was agreed.
pub(super) const BLOCK_PLAIN: usize = 512;
const BLOCK_MIN: u64 = 8;
const BLOCK_MAX: u64 = 65464;
/// The longest request that we read; names and options of ours are far shorter.
pub(super) const REQUEST_MAX: usize = 1024;

/// Which way a file goes, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Fetch,
    Put,
}

/// A request that can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) direction: Direction,
    pub(super) name: String,
    pub(super) wanted: Wanted,
}

/// The options of a request that have a meaning; others are passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    block: Option<u64>,
    window: Option<u64>,
    /// Agreed to and not used: our own waits are shorter, then longer.
    timeout: Option<u64>,
    pub(super) size: Option<u64>,
}

/// How a transfer will go, and the answer that says so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Agreed {
    pub(super) block: usize,
    pub(super) window: usize,
    /// Empty when no option was asked for: then there is no answer.
    pub(super) answer: Vec<TransferOption>,
}

/// Why a request or a transfer is refused, as the other side is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { code, reason }
    }

    /// The ERROR packet.
    pub(super) fn packet(&self) -> Vec<u8> {
        let error = Packet::Error {
            code: self.code,
            msg: self.reason.clone(),
        };
        error.serialize().unwrap_or_default()
    }
}

/// Reads a packet that came to the server's port. `None` is no request at all.
pub(super) fn parse(packet: &[u8]) -> Option<Result<Request, Refusal>> {
    if !matches!(packet, [0, 1 | 2, ..]) {
        return None;
    }
    let illegal = |reason: &str| Some(Err(Refusal::new(ErrorCode::IllegalOperation, reason)));
    if packet.len() > REQUEST_MAX {
        return illegal("the request is too long");
    }
    let (direction, name, mode, options) = match Packet::deserialize(&without_strange(packet)) {
        Ok(Packet::Rrq {
            filename,
            mode,
            options,
        }) => (Direction::Fetch, filename, mode, options),
        Ok(Packet::Wrq {
            filename,
            mode,
            options,
        }) => (Direction::Put, filename, mode, options),
        _ => return illegal("the request cannot be read"),
    };
    if !mode.eq_ignore_ascii_case("octet") {
        return illegal("only mode octet is served");
    }
    Some(Ok(Request {
        direction,
        name,
        wanted: Wanted::read(&options),
    }))
}

/// The request without options whose values are no numbers: the codec would
/// refuse it whole, while RFC 2347 wants such options passed over.
fn without_strange(packet: &[u8]) -> Vec<u8> {
    let mut fields = packet[2..].split(|byte| *byte == 0);
    let mut kept = packet[..2].to_vec();
    let mut keep = |field: &[u8]| {
        kept.extend_from_slice(field);
        kept.push(0);
    };
    fields.by_ref().take(2).for_each(&mut keep);
    while let (Some(option), Some(value)) = (fields.next(), fields.next()) {
        let number = !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit);
        if number && option.is_ascii() {
            keep(option);
            keep(value);
        }
    }
    kept
}

impl Wanted {
    fn read(options: &[TransferOption]) -> Self {
        let first = |kind: OptionType| {
            let mut found = options.iter().filter(|option| option.option == kind);
            found.next().map(|option| option.value)
        };
        Self {
            block: first(OptionType::BlockSize).filter(|size| *size >= BLOCK_MIN),
            window: first(OptionType::WindowSize).filter(|size| (1..=65535).contains(size)),
            timeout: first(OptionType::Timeout).filter(|s| (1..=255).contains(s)),
            size: first(OptionType::TransferSize),
        }
    }

    /// What we make of it; `size` is that of the file when one is fetched.
    pub(super) fn agree(self, size: Option<u64>) -> Agreed {
        let block = self.block.map(|size| size.min(BLOCK_MAX));
        let bytes = to_usize(block).unwrap_or(BLOCK_PLAIN);
        let window_max = (FLIGHT_MAX / bytes).clamp(1, WINDOW_MAX);
        let window = self.window.map(|size| size.min(window_max as u64));
        let answer = [
            (OptionType::BlockSize, block),
            (OptionType::WindowSize, window),
            (OptionType::Timeout, self.timeout),
            (
                OptionType::TransferSize,
                self.size.map(|told| size.unwrap_or(told)),
            ),
        ];
        let answer = answer.into_iter().filter_map(|(option, value)| {
            Some(TransferOption {
                option,
                value: value?,
            })
        });
        Agreed {
            block: bytes,
            window: to_usize(window).unwrap_or(1),
            answer: answer.collect(),
        }
    }
}

fn to_usize(number: Option<u64>) -> Option<usize> {
    number.and_then(|number| usize::try_from(number).ok())
}

impl Agreed {
    /// The OACK packet, when one is due.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        if self.answer.is_empty() {
            return None;
        }
        Packet::Oack(self.answer.clone()).serialize().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(fields: &str) -> Request {
        let packet = [b"\x00\x01", fields.as_bytes()].concat();
        parse(&packet).unwrap().unwrap()
    }

    #[test]
    fn options_without_a_meaning_are_passed_over() {
        let asked = request("task\0OCTET\0blksize\x007\0tsize\0x\0colour\0red\0windowsize\x004\0");
        assert_eq!(asked.name, "task");
        let agreed = asked.wanted.agree(Some(10));
        assert_eq!((agreed.block, agreed.window), (512, 4));
        assert_eq!(agreed.answer.len(), 1);
    }

    #[test]
    fn what_is_under_way_at_once_is_capped() {
        for (block, window, agreed) in [
            (1468, 65535, (1468, 89)),
            (65464, 65535, (65464, 2)),
            (99999, 1, (65464, 1)),
            (8, 65535, (8, 128)),
        ] {
            let text = format!("x\0octet\0blksize\0{block}\0windowsize\0{window}\0");
            let got = request(&text).wanted.agree(None);
            assert_eq!((got.block, got.window), agreed, "{text:?}");
        }
    }

    #[test]
    fn a_request_without_options_has_no_answer() {
        let agreed = request("x\0octet\0").wanted.agree(Some(3));
        assert_eq!(agreed.packet(), None);
        assert_eq!((agreed.block, agreed.window), (512, 1));
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_a_reason() {
        for (packet, reason) in [
            (&b"\x00\x01x\0netascii\0"[..], "only mode octet is served"),
            (b"\x00\x02x", "the request cannot be read"),
            (b"\x00\x01\xff\xfe\0octet\0", "the request cannot be read"),
            (
                &[&b"\x00\x01"[..], &[b'x'; 2000]].concat(),
                "the request is too long",
            ),
        ] {
            assert_eq!(parse(packet).unwrap().unwrap_err().reason, reason);
        }
        assert_eq!(parse(b"\x00\x03\x00\x01data"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_stumble(packet in proptest::collection::vec(any::<u8>(), 0..80), request in 1..=2u8) {
            let _ = parse(&packet);
            let _ = parse(&[&[0, request][..], &packet].concat());
        }

        #[test]
        fn an_agreement_keeps_its_bounds(block: Option<u64>, window: Option<u64>) {
            let options: Vec<_> = [(OptionType::BlockSize, block), (OptionType::WindowSize, window)]
                .into_iter()
                .filter_map(|(option, value)| Some(TransferOption { option, value: value? }))
                .collect();
            let agreed = Wanted::read(&options).agree(None);
            prop_assert!((8..=65464).contains(&agreed.block));
            prop_assert!(agreed.window >= 1 && agreed.window * agreed.block <= FLIGHT_MAX);
        }
    }
}
