//! Requests and option negotiation (RFC 2347). Pure: packets in, values out.

use tftpd::{ErrorCode, Packet};

use crate::codec::{self, BLOCK_SIZE_DEFAULT, Options};

/// The maximum payload in flight. More would overrun the buffer of a socket.
const FLIGHT_MAX: usize = 128 * 1024;
/// The maximum number of blocks in flight, because a small block takes more of a kernel buffer than
/// its payload.
const WINDOW_MAX: usize = 128;
const BLOCK_SIZE_MIN: u64 = 8;
const BLOCK_SIZE_MAX: u64 = 65464;
/// The longest request that is read. Real names and options are far shorter.
pub(super) const REQUEST_MAX: usize = 1024;

/// The direction of a transfer as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Fetch,
    Put,
}

/// A valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) direction: Direction,
    pub(super) name: String,
    /// The options that have a valid value.
    pub(super) options: Options,
}

/// The result of option negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) block_size: usize,
    pub(super) window: usize,
    /// The accepted options. Without any, there is no option acknowledgement.
    accepted: Options,
}

/// The limit that refused a file of the guest, or the failure of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCause {
    /// The file is larger than a file of its name may be.
    TooLarge {
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// All artifacts together are too large.
    QuotaExhausted {
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// There are too many artifacts.
    TooManyFiles {
        /// The limit.
        files_max: usize,
    },
    /// The name cannot be the name of a file.
    InvalidName,
    /// The name is reserved for a file of the host.
    ReservedName,
    /// Nothing may be put under the name.
    UnknownName,
    /// The host could not store the file.
    Host,
}

/// A refusal of a request or a transfer, as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) reason: String,
    /// The limit that refused a file, or the failure of the host. `None` for other refusals.
    pub(super) cause: Option<RefusalCause>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            code,
            reason,
            cause: None,
        }
    }

    /// Refuses a file that the client wants to put.
    pub(super) fn of_put(code: ErrorCode, reason: &str, cause: RefusalCause) -> Self {
        Self {
            cause: Some(cause),
            ..Self::new(code, reason)
        }
    }

    /// Returns the ERROR packet.
    pub(super) fn packet(&self) -> Vec<u8> {
        codec::error(self.code, &self.reason)
    }
}

/// Parses a packet that arrived at the server's port. Returns `None` if it is not a request.
pub(super) fn parse(packet: &[u8]) -> Option<Result<Request, Refusal>> {
    if !matches!(packet, [0, 1 | 2, ..]) {
        return None;
    }
    let illegal = |reason: &str| Some(Err(Refusal::new(ErrorCode::IllegalOperation, reason)));
    if packet.len() > REQUEST_MAX {
        return illegal("the request is too long");
    }
    let well_formed = without_malformed_options(packet);
    let (direction, name, mode, options) = match Packet::deserialize(&well_formed) {
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
        _ => return illegal("the request is malformed"),
    };
    if !mode.eq_ignore_ascii_case("octet") {
        return illegal("only mode octet is served");
    }
    Some(Ok(Request {
        direction,
        name,
        options: valid(Options::from_list(&options)),
    }))
}

/// Returns the request without options whose values are not numbers. RFC 2347 says
/// that they are ignored, but `tftpd` would reject the whole request.
fn without_malformed_options(packet: &[u8]) -> Vec<u8> {
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

/// Drops options whose values are out of their range.
fn valid(options: Options) -> Options {
    Options {
        block_size: options.block_size.filter(|size| *size >= BLOCK_SIZE_MIN),
        window: options.window.filter(|size| (1..=65535).contains(size)),
        timeout: options.timeout.filter(|secs| (1..=255).contains(secs)),
        transfer_size: options.transfer_size,
    }
}

impl Request {
    /// Negotiates the options. `size` is the size of a file to fetch.
    pub(super) fn negotiate(&self, size: Option<u64>) -> Negotiated {
        let requested = self.options;
        let accepted_size = requested.block_size.map(|size| size.min(BLOCK_SIZE_MAX));
        let block_size = to_usize(accepted_size).unwrap_or(BLOCK_SIZE_DEFAULT.into());
        let window_max = (FLIGHT_MAX / block_size).clamp(1, WINDOW_MAX);
        let window = requested.window.map(|size| size.min(window_max as u64));
        Negotiated {
            block_size,
            window: to_usize(window).unwrap_or(1),
            accepted: Options {
                block_size: accepted_size,
                window,
                // Accepted without effect: the retransmission timer adapts by itself.
                timeout: requested.timeout,
                transfer_size: requested
                    .transfer_size
                    .map(|announced| size.unwrap_or(announced)),
            },
        }
    }
}

fn to_usize(number: Option<u64>) -> Option<usize> {
    number.and_then(|number| usize::try_from(number).ok())
}

impl Negotiated {
    /// Returns the option acknowledgement, if there is one.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        let any = self.accepted != Options::default();
        any.then(|| codec::serialize(&Packet::Oack(self.accepted.to_list())))
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
    fn invalid_options_are_ignored() {
        let asked = request("task\0OCTET\0blksize\x007\0tsize\0x\0colour\0red\0windowsize\x004\0");
        assert_eq!(asked.name, "task");
        let negotiated = asked.negotiate(Some(10));
        assert_eq!((negotiated.block_size, negotiated.window), (512, 4));
        assert_eq!(negotiated.accepted.to_list().len(), 1);
    }

    #[test]
    fn the_payload_in_flight_is_limited() {
        for (block, window, negotiated) in [
            (1468, 65535, (1468, 89)),
            (65464, 65535, (65464, 2)),
            (99999, 1, (65464, 1)),
            (8, 65535, (8, 128)),
        ] {
            let text = format!("x\0octet\0blksize\0{block}\0windowsize\0{window}\0");
            let got = request(&text).negotiate(None);
            assert_eq!((got.block_size, got.window), negotiated, "{text:?}");
        }
    }

    #[test]
    fn a_request_without_options_gets_no_option_acknowledgement() {
        let negotiated = request("x\0octet\0").negotiate(Some(3));
        assert_eq!(negotiated.packet(), None);
        assert_eq!((negotiated.block_size, negotiated.window), (512, 1));
    }

    #[test]
    fn invalid_requests_are_refused_with_a_reason() {
        for (packet, reason) in [
            (&b"\x00\x01x\0netascii\0"[..], "only mode octet is served"),
            (b"\x00\x02x", "the request is malformed"),
            (b"\x00\x01\xff\xfe\0octet\0", "the request is malformed"),
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
        fn every_name_arrives_as_it_was_sent(name in "[^\0]{1,60}") {
            let mode = "octet".into();
            let packet = codec::serialize(&Packet::Wrq { filename: name.clone(), mode, options: vec![] });
            prop_assert_eq!(parse(&packet).unwrap().unwrap().name, name);
        }

        #[test]
        fn arbitrary_packets_do_not_panic(packet in proptest::collection::vec(any::<u8>(), 0..80), opcode in 1..=2u8) {
            let _ = parse(&packet);
            let _ = parse(&[&[0, opcode][..], &packet].concat());
        }

        #[test]
        fn negotiation_keeps_its_bounds(block_size: Option<u64>, window: Option<u64>) {
            let options = Options { block_size, window, ..Options::default() };
            let request = Request {
                direction: Direction::Put,
                name: String::new(),
                options: valid(options),
            };
            let negotiated = request.negotiate(None);
            prop_assert!((8..=65464).contains(&negotiated.block_size));
            let in_flight = negotiated.window * negotiated.block_size;
            prop_assert!(negotiated.window >= 1 && in_flight <= FLIGHT_MAX);
        }
    }
}
