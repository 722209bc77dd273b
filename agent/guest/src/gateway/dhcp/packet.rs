//! DHCP's packets: a request in, an answer out. Pure.

use std::net::Ipv4Addr;

/// What every guest is told.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) guest: Ipv4Addr,
    pub(super) host: Ipv4Addr,
}

const HEADER: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// No build lasts longer.
const LEASE_SECONDS: u32 = 7 * 24 * 3600;
/// Old clients expect at least so much.
const ANSWER_MIN: usize = 300;

/// The options that we read or write.
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

/// The kinds of messages.
mod kind {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;
    pub(super) const INFORM: u8 = 8;
}

/// The answer to a request; `None` when it needs none or cannot be read.
pub(super) fn answer(packet: &[u8], lease: &Lease) -> Option<Vec<u8>> {
    let header = packet.get(..HEADER)?;
    let options = packet.get(HEADER..)?.strip_prefix(&MAGIC)?;
    // Ethernet only: six bytes of hardware address.
    if header[..3] != [REQUEST, 1, 6] {
        return None;
    }
    let asked = find(options, option::KIND)?.first().copied()?;
    let other = |wanted: Ipv4Addr| move |value: &[u8]| value != wanted.octets();
    if asked == kind::REQUEST && find(options, option::SERVER).is_some_and(other(lease.host)) {
        return None;
    }
    let told = match asked {
        kind::DISCOVER => kind::OFFER,
        // An address from an earlier network: the client begins anew.
        kind::REQUEST if find(options, option::ADDRESS).is_some_and(other(lease.guest)) => {
            kind::NAK
        }
        kind::REQUEST | kind::INFORM => kind::ACK,
        _ => return None,
    };
    Some(write(header, told, lease))
}

/// The value of the first option of a kind.
fn find(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [option::PAD, rest @ ..] => options = rest,
            [option::END, ..] | [] | [_] => return None,
            [kind, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if *kind == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

fn write(request: &[u8], told: u8, lease: &Lease) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[0] = REPLY;
    // The client's and the relay's addresses are left out, and no file is named.
    answer[12..28].fill(0);
    answer[44..].fill(0);
    let refused = told == kind::NAK;
    if !refused {
        answer[16..20].copy_from_slice(&lease.guest.octets());
        answer[20..24].copy_from_slice(&lease.host.octets());
    }
    answer.extend(MAGIC);
    let mut add = |option: u8, value: &[u8]| {
        answer.push(option);
        answer.push(u8::try_from(value.len()).unwrap_or_default());
        answer.extend(value);
    };
    add(option::KIND, &[told]);
    add(option::SERVER, &lease.host.octets());
    if !refused {
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
        let answer = answer(&request(options), &LEASE)?;
        assert_eq!(answer[4..8], [1, 2, 3, 4]);
        find(&answer[HEADER + 4..], option::KIND).map(|value| value[0])
    }

    #[test]
    fn everyone_is_told_the_one_address() {
        assert_eq!(kind_of(&[53, 1, 1]), Some(kind::OFFER));
        assert_eq!(
            kind_of(&[0, 0, 53, 1, 3, 50, 4, 169, 254, 111, 1]),
            Some(kind::ACK)
        );
        let answer = answer(&request(&[53, 1, 1]), &LEASE).unwrap();
        assert_eq!(answer[16..20], LEASE.guest.octets());
        let options = &answer[HEADER + 4..];
        assert_eq!(
            find(options, option::ROUTER),
            Some(&LEASE.host.octets()[..])
        );
    }

    #[test]
    fn what_is_not_for_us_has_no_answer_and_an_old_address_is_refused() {
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
        fn no_packet_makes_it_stumble(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answer(&noise, &LEASE);
            let _ = answer(&request(&noise), &LEASE);
        }
    }
}
