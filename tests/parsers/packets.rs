//! Packets and lines of a guest at its gateway.

use std::net::Ipv4Addr;
use std::time::Duration;

use guest::gateway::{dhcp, dns};
use session::GuestSecrets;
use session::handshake::{self, HandshakeMode};
use sys::observer::Observer;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use crate::harness::Parser;

/// Returns a parser of packets, which need little more memory than an answer.
fn packets(valid: Vec<Vec<u8>>, mut parse: impl FnMut(&[u8]) + 'static) -> Parser {
    Parser {
        valid,
        memory_constant: 16 * 1024,
        memory_factor: 32,
        parse: Box::new(move |bytes| parse(bytes)),
    }
}

pub(crate) fn tftp_packets() -> Parser {
    let valid = [
        "\0\x01task.manifest;octet;blksize;1428;windowsize;16;tsize;0;timeout;5;",
        "\0\x02artifacts/hello.ipk;OCTET;tsize;4096;",
        "\0\x03\0\x01content of a block",
        "\0\x04\x7f\x7f",
        "\0\x05\0\x03disk full;",
        "\0\x06blksize;1428;windowsize;4;",
    ];
    // A semicolon ends each field.
    let valid = valid.map(|packet| packet.replace(';', "\0").into_bytes());
    packets(valid.to_vec(), |packet| {
        tftp::server::accepts(packet);
    })
}

pub(crate) fn dhcp_packets() -> Parser {
    let request = |options: &[u8]| {
        let mut packet = vec![0; 236];
        packet[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
        packet.extend([99, 130, 83, 99]);
        packet.extend(options);
        packet.push(255);
        packet
    };
    let valid = vec![
        request(&[53, 1, 1]),
        request(&[
            0, 53, 1, 3, 50, 4, 169, 254, 111, 1, 12, 5, b'g', b'u', b'e', b's', b't',
        ]),
        request(&[53, 1, 3, 54, 4, 169, 254, 111, 222]),
    ];
    packets(valid, move |packet| {
        if let Some(answer) = dhcp::answer(packet) {
            // An answer is never longer than the shortest one that clients accept.
            assert_eq!(answer.len(), 300);
        }
    })
}

pub(crate) fn dns_packets() -> Parser {
    let query = |name: &str, record_type: u8| {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, record_type, 0, 1]);
        packet
    };
    let valid = vec![
        query("deb.example.org", 1),
        query("deb.example.org", 28),
        query("other", 1),
    ];
    let addresses = vec![Ipv4Addr::new(192, 0, 2, 1); 8];
    let table = [("deb.example.org".to_owned(), addresses)].into();
    packets(valid, move |packet| {
        let packet = &packet[..packet.len().min(dns::PACKET_MAX)];
        if let Some(answer) = dns::answer(packet, &table) {
            assert!(answer.len() <= packet.len() + 8 * 16, "an amplification");
        }
    })
}

/// The lines that a worker sends before it gets its task.
pub(crate) fn control_port() -> Parser {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let valid = [&b"ready\n"[..], b"hello\nready\nready\n", b"ready\r\n\n\n"];
    packets(valid.map(<[u8]>::to_vec).to_vec(), move |bytes| {
        runtime.block_on(async {
            let (agent_end, mut guest_end) = UnixStream::pair().unwrap();
            let served = handshake::serve(
                agent_end,
                HandshakeMode::Cold,
                Observer::default(),
                GuestSecrets::default(),
            );
            let sent = async {
                // The agent may end the connection before everything is sent.
                let _ = guest_end.write_all(&bytes[..bytes.len().min(4096)]).await;
                drop(guest_end);
            };
            let both = async { tokio::join!(served, sent) };
            tokio::time::timeout(Duration::from_mins(1), both)
                .await
                .unwrap();
        });
    })
}
