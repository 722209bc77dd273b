//! Requests, and the options that a server may accept (RFC 2347). Pure.

use tftpd::Packet;

use super::ClientError;
use crate::codec::{self, BLOCK_SIZE_DEFAULT, Options};

/// The requested block size: a packet fits an Ethernet frame.
const BLOCK_SIZE: u16 = 1428;
/// The requested window, in blocks.
const WINDOW: u16 = 16;
/// The requested timeout of the server, in seconds: the shortest one.
const TIMEOUT: u64 = 1;

/// Returns the options of a request. `size` is 0 for a file that is fetched.
pub(super) fn requested(size: u64) -> Options {
    Options {
        block_size: Some(BLOCK_SIZE.into()),
        window: Some(WINDOW.into()),
        timeout: Some(TIMEOUT),
        transfer_size: Some(size),
    }
}

pub(super) fn read_request(name: &str, options: Options) -> Vec<u8> {
    codec::serialize(&Packet::Rrq {
        filename: name.to_owned(),
        mode: "octet".to_owned(),
        options: options.to_list(),
    })
}

pub(super) fn write_request(name: &str, options: Options) -> Vec<u8> {
    codec::serialize(&Packet::Wrq {
        filename: name.to_owned(),
        mode: "octet".to_owned(),
        options: options.to_list(),
    })
}

/// The result of option negotiation. The default is that of a server without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) block_size: u16,
    pub(super) window: u16,
    /// The size of the file, if the server has announced it.
    pub(super) size: Option<u64>,
}

impl Default for Negotiated {
    fn default() -> Self {
        Self {
            block_size: BLOCK_SIZE_DEFAULT,
            window: 1,
            size: None,
        }
    }
}

impl Negotiated {
    /// Checks the options that the server has accepted. It may lower them, not raise them.
    pub(super) fn accept(options: Options) -> Result<Self, ClientError> {
        let within = |value: Option<u64>, max: u16, default: u16| match value {
            None => Ok(default),
            Some(value) => u16::try_from(value)
                .ok()
                .filter(|value| (1..=max).contains(value))
                .ok_or(ClientError::Protocol("options that were not requested")),
        };
        Ok(Self {
            block_size: within(options.block_size, BLOCK_SIZE, BLOCK_SIZE_DEFAULT)?,
            window: within(options.window, WINDOW, 1)?,
            size: options.transfer_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_the_options() {
        assert_eq!(
            write_request("artifacts/a.ipk", requested(70_000)),
            b"\0\x02artifacts/a.ipk\0octet\0blksize\x001428\0windowsize\x0016\0timeout\x001\0tsize\x0070000\0"
        );
    }

    #[test]
    fn a_request_without_options_is_that_of_rfc_1350() {
        let packet = read_request("x", Options::default());
        assert_eq!(packet, b"\0\x01x\0octet\0");
    }

    #[test]
    fn a_server_may_lower_options_but_not_raise_them() {
        let accepted = Options {
            block_size: Some(512),
            window: Some(4),
            timeout: None,
            transfer_size: Some(9),
        };
        let expected = Negotiated {
            block_size: 512,
            window: 4,
            size: Some(9),
        };
        assert_eq!(Negotiated::accept(accepted).unwrap(), expected);
        let block_size = |size| Options {
            block_size: Some(size),
            ..Options::default()
        };
        let window = |size| Options {
            window: Some(size),
            ..Options::default()
        };
        for raised in [block_size(65464), block_size(0), window(0), window(17)] {
            assert!(Negotiated::accept(raised).is_err(), "{raised:?}");
        }
    }
}
