//! The resolver of a guest, at its gateway: what it may not reach has no name, so
//! that it learns at once that it cannot reach it.
//!
//! With a list of places, their names are looked up once, when the guest starts, and
//! it is told these addresses and no others: they are the ones that it may reach.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use config::task::GATEWAY;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::network::Network;

/// The longest question or answer that we pass on.
const PACKET_MAX: usize = 4096;
/// How long the host's resolver may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How many questions wait for the host's resolver at once.
const WAITING_MAX: usize = 64;
/// How long an answer may be kept. A build asks anew after it.
const TTL_SECONDS: u32 = 60;

/// What a guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// These, and no other.
    Table(BTreeMap<String, Vec<Ipv4Addr>>),
    /// What the host's resolver says.
    Ask(SocketAddr),
}

/// The host's own resolver, as `/etc/resolv.conf` names it.
pub fn resolver() -> Option<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let mut words = text.lines().map(str::split_whitespace);
    let address = words.find_map(|mut words| {
        let named = words.next() == Some("nameserver");
        words.next().filter(|_| named)?.parse::<IpAddr>().ok()
    })?;
    Some(SocketAddr::new(address, 53))
}

/// A resolver inside a guest's network: it runs while the future is polled, for ever.
/// Must be called in a tokio runtime.
///
/// # Errors
/// When its port cannot be bound.
pub fn serve(
    network: &Network,
    names: Names,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let address = format!("{GATEWAY}:53").parse().map_err(io::Error::other)?;
    let socket = network.udp(address)?;
    Ok(answer_all(socket, names))
}

async fn answer_all(socket: UdpSocket, names: Names) {
    let socket = std::sync::Arc::new(socket);
    let waiting = std::sync::Arc::new(tokio::sync::Semaphore::new(WAITING_MAX));
    let mut asked = tokio::task::JoinSet::new();
    let mut buffer = [0; PACKET_MAX];
    loop {
        while asked.try_join_next().is_some() {}
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // The error of an earlier answer; the next question may fare better.
            tokio::task::yield_now().await;
            continue;
        };
        let question = &buffer[..length];
        match &names {
            Names::Table(table) => {
                if let Some(answer) = answer(question, table) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
            Names::Ask(resolver) => {
                // Beyond the limit it is lost, and asked again.
                let Ok(permit) = std::sync::Arc::clone(&waiting).try_acquire_owned() else {
                    continue;
                };
                let (socket, question) = (std::sync::Arc::clone(&socket), question.to_vec());
                let resolver = *resolver;
                asked.spawn(async move {
                    if let Ok(Ok(answer)) = timeout(LIMIT, ask(resolver, &question)).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn ask(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; PACKET_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
const CLASS_IN: [u8; 2] = [0, 1];
const REFUSED: u8 = 5;

/// The answer to a question from a table; `None` when it is no question.
fn answer(packet: &[u8], table: &BTreeMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let header = packet.get(..HEADER)?;
    // A query with one question.
    if header[2] & 0xf8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = name(packet)?;
    let kind = packet.get(end..end + 4)?;
    let known = table.get(&name);
    let asked = kind == [TYPE_A, CLASS_IN].concat();
    let addresses = known.filter(|_| asked).map(Vec::as_slice);
    let addresses = addresses.unwrap_or_default();
    let status = if known.is_some() { 0 } else { REFUSED };
    let count = u16::try_from(addresses.len()).ok()?;
    let mut answer = header[..2].to_vec();
    // An answer, with the recursion that was wanted.
    answer.extend([0x80 | (header[2] & 1), 0x80 | status, 0, 1]);
    answer.extend(count.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&packet[HEADER..end + 4]);
    for address in addresses {
        // The name is the one in the question.
        answer.extend([0xc0, 12]);
        answer.extend([TYPE_A, CLASS_IN].concat());
        answer.extend(TTL_SECONDS.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// The name in a question, in lower case, and where it ends.
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

    fn question(name: &str, kind: u8) -> Vec<u8> {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, kind, 0, 1]);
        packet
    }

    fn table() -> BTreeMap<String, Vec<Ipv4Addr>> {
        let addresses = vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        [("deb.example.org".to_owned(), addresses)].into()
    }

    #[test]
    fn a_name_of_the_table_is_told_and_no_other() {
        let told = answer(&question("DEB.example.org", 1), &table()).unwrap();
        assert_eq!(told[..8], [7, 9, 0x81, 0x80, 0, 1, 0, 2]);
        assert!(told.ends_with(&[0, 4, 192, 0, 2, 2]));
        let without = answer(&question("deb.example.org", 28), &table()).unwrap();
        assert_eq!(without[2..8], [0x81, 0x80, 0, 1, 0, 0]);
        let refused = answer(&question("example.org", 1), &table()).unwrap();
        assert_eq!(refused[2..8], [0x81, 0x85, 0, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = answer(&packet, &table());
        }
    }
}
