//! DHCP for a guest (RFC 2131): the answers to its requests. Pure.
//!
//! Every build's guest has the same address, and an auxiliary guest the one of its port, which its
//! hardware address tells, so that the server keeps no state. The packets are parsed here: the crates that do it bring dozens of others with
//! them, for one request and one constant answer.

use std::net::Ipv4Addr;

use config::task::GATEWAY;

use crate::network::Port;

/// The port of the server.
pub const SERVER_PORT: u16 = 67;
/// The port of the clients.
pub const CLIENT_PORT: u16 = 68;
/// The size of the longest request that is answered.
pub const REQUEST_MAX: usize = 1500;

/// The lease that a guest gets.
#[derive(Debug, Clone, Copy)]
struct Lease {
    guest: Ipv4Addr,
    host: Ipv4Addr,
}

impl Lease {
    /// Returns the lease of the guest that has sent a packet with this header. One with another
    /// hardware address is the only guest.
    fn of_client(header: &[u8]) -> Option<Self> {
        let port = Port::of_hardware_address(header.get(28..34)?);
        Some(Self {
            guest: port.unwrap_or(Port::BUILD).address(),
            host: GATEWAY.parse().ok()?,
        })
    }
}

const HEADER: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// Longer than any build.
const LEASE_SECONDS: u32 = 7 * 24 * 3600;
/// The size of the shortest answer that old clients accept.
const ANSWER_MIN: usize = 300;

/// The numbers of the options in use.
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RESOLVER: u8 = 6;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const END: u8 = 255;
}

/// The types of messages.
mod kind {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;
    pub(super) const INFORM: u8 = 8;
}

/// Returns the answer to a request, or `None` if it needs none or is malformed.
pub fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let header = packet.get(..HEADER)?;
    let lease = Lease::of_client(header)?;
    let options = packet.get(HEADER..)?.strip_prefix(&MAGIC)?;
    // Ethernet only: six bytes of hardware address.
    if header[..3] != [REQUEST, 1, 6] {
        return None;
    }
    let requested = find(options, option::KIND)?.first().copied()?;
    let is_other = |own: Ipv4Addr| move |value: &[u8]| value != own.octets();
    if requested == kind::REQUEST && find(options, option::SERVER).is_some_and(is_other(lease.host))
    {
        return None;
    }
    let reply = match requested {
        kind::DISCOVER => kind::OFFER,
        // An address of another network: the client starts over.
        kind::REQUEST if find(options, option::ADDRESS).is_some_and(is_other(lease.guest)) => {
            kind::NAK
        }
        kind::REQUEST | kind::INFORM => kind::ACK,
        _ => return None,
    };
    Some(write(header, reply, lease))
}

/// Returns the value of the first option with this number.
fn find(mut options: &[u8], option: u8) -> Option<&[u8]> {
    loop {
        match options {
            [option::PAD, rest @ ..] => options = rest,
            [option::END, ..] | [] | [_] => return None,
            [number, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if *number == option {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

fn write(request: &[u8], reply: u8, lease: Lease) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[0] = REPLY;
    // Clears the client's and the relay's addresses and the boot file.
    answer[12..28].fill(0);
    answer[44..].fill(0);
    let is_refusal = reply == kind::NAK;
    if !is_refusal {
        answer[16..20].copy_from_slice(&lease.guest.octets());
        answer[20..24].copy_from_slice(&lease.host.octets());
    }
    answer.extend(MAGIC);
    let mut add = |option: u8, value: &[u8]| {
        answer.push(option);
        answer.push(u8::try_from(value.len()).unwrap_or_default());
        answer.extend(value);
    };
    add(option::KIND, &[reply]);
    add(option::SERVER, &lease.host.octets());
    if !is_refusal {
        add(option::LEASE_TIME, &LEASE_SECONDS.to_be_bytes());
        add(option::MASK, &[255, 255, 255, 0]);
        add(option::ROUTER, &lease.host.octets());
        add(option::RESOLVER, &lease.host.octets());
    }
    answer.push(option::END);
    answer.resize(answer.len().max(ANSWER_MIN), 0);
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Lease = Lease {
        guest: Ipv4Addr::new(169, 254, 111, 1),
        host: Ipv4Addr::new(169, 254, 111, 222),
    };

    fn request(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
        packet.extend(MAGIC);
        packet.extend(options);
        packet.push(option::END);
        packet
    }

    fn kind_of(options: &[u8]) -> Option<u8> {
        let answer = answer(&request(options))?;
        assert_eq!(answer[4..8], [1, 2, 3, 4]);
        find(&answer[HEADER + 4..], option::KIND).map(|value| value[0])
    }

    #[test]
    fn every_guest_gets_the_same_address() {
        assert_eq!(kind_of(&[53, 1, 1]), Some(kind::OFFER));
        assert_eq!(
            kind_of(&[0, 0, 53, 1, 3, 50, 4, 169, 254, 111, 1]),
            Some(kind::ACK)
        );
        let answer = answer(&request(&[53, 1, 1])).unwrap();
        assert_eq!(answer[16..20], LEASE.guest.octets());
        let options = &answer[HEADER + 4..];
        assert_eq!(
            find(options, option::ROUTER),
            Some(&LEASE.host.octets()[..])
        );
    }

    #[test]
    fn an_auxiliary_guest_gets_the_address_of_its_port() {
        let mut packet = request(&[53, 1, 1]);
        packet[28..34].copy_from_slice(&[2, 0x62, 0x68, 0, 1, 3]);
        let answer = answer(&packet).unwrap();
        assert_eq!(answer[16..20], [169, 254, 111, 4]);
    }

    #[test]
    fn foreign_requests_are_ignored_and_old_addresses_refused() {
        let old = [53, 1, 3, 50, 4, 10, 0, 0, 1];
        assert_eq!(kind_of(&old), Some(kind::NAK));
        let other_server = [53, 1, 3, 54, 4, 10, 0, 0, 1];
        assert_eq!(kind_of(&other_server), None);
        for release in [&[53, 1, 7][..], &[53, 1, 4], &[53, 9, 1], &[]] {
            assert_eq!(kind_of(release), None);
        }
    }

    proptest! {
        #[test]
        fn no_packet_causes_a_panic(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answer(&noise);
            let _ = answer(&request(&noise));
        }
    }
}
