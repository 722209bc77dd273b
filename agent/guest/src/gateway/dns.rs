//! DNS for a guest: the answers to its queries. Pure but for [`host_resolver`].
//!
//! Only UDP and IPv4 addresses are implemented, which is enough for builds. A guest with an
//! egress allow list resolves the listed names only, to their addresses at the guest's start.
//! Other names are refused, so that the guest notices at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The addresses of the names that a guest may resolve.
pub type Table = BTreeMap<String, Vec<Ipv4Addr>>;

/// The port of a resolver.
pub const PORT: u16 = 53;
/// The size of the longest query or answer.
pub const PACKET_MAX: usize = 4096;

/// The time for which a guest may cache an answer.
const TTL_SECONDS: u32 = 60;

/// Returns the address of the host's resolver, from `/etc/resolv.conf`.
pub fn host_resolver() -> Option<SocketAddr> {
    let text = sys::trusted::read_text("/etc/resolv.conf").ok()?;
    let address = text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let is_resolver = fields.next() == Some("nameserver");
        fields
            .next()
            .filter(|_| is_resolver)?
            .parse::<IpAddr>()
            .ok()
    })?;
    Some(SocketAddr::new(address, PORT))
}

const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
const CLASS_IN: [u8; 2] = [0, 1];
const REFUSED: u8 = 5;

/// Returns the answer to a query from a table, or `None` if the packet is no query.
pub fn answer(packet: &[u8], table: &Table) -> Option<Vec<u8>> {
    let header = packet.get(..HEADER)?;
    // A query with one question.
    if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = name(packet)?;
    let is_for_address = *packet.get(end..end + 4)? == [TYPE_A, CLASS_IN].concat();
    let (status, addresses) = match table.get(&name) {
        Some(addresses) if is_for_address => (0, addresses.as_slice()),
        Some(_) => (0, &[][..]),
        None => (REFUSED, &[][..]),
    };
    let count = u16::try_from(addresses.len()).ok()?;
    let mut answer = header[..2].to_vec();
    // An answer, with recursion as requested.
    answer.extend([0x80 | (header[2] & 1), 0x80 | status, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&packet[HEADER..end + 4]);
    for address in addresses {
        // A pointer to the name in the query.
        answer.extend([0xc0, 12]);
        answer.extend([TYPE_A, CLASS_IN].concat());
        answer.extend(TTL_SECONDS.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// Returns the name in a query, in lower case, and the offset of its end.
fn name(packet: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*packet.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        if length > 63 {
            return None;
        }
        let label = packet.get(at + 1..at + 1 + length)?;
        labels.push(std::str::from_utf8(label).ok()?.to_ascii_lowercase());
        at += 1 + length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, record_type: u8) -> Vec<u8> {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, record_type, 0, 1]);
        packet
    }

    fn table() -> Table {
        let addresses = vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        [("deb.example.org".to_owned(), addresses)].into()
    }

    #[test]
    fn only_names_of_the_table_are_resolved() {
        let resolved = answer(&query("DEB.example.org", 1), &table()).unwrap();
        assert_eq!(resolved[..8], [7, 9, 0x81, 0x80, 0, 1, 0, 2]);
        assert!(resolved.ends_with(&[0, 4, 192, 0, 2, 2]));
        let without = answer(&query("deb.example.org", 28), &table()).unwrap();
        assert_eq!(without[2..8], [0x81, 0x80, 0, 1, 0, 0]);
        let refused = answer(&query("example.org", 1), &table()).unwrap();
        assert_eq!(refused[2..8], [0x81, 0x85, 0, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_packet_causes_a_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = answer(&packet, &table());
        }
    }
}
