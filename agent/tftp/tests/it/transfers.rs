//! Files come and go whole, or the client reports the reason.

use std::io::Cursor;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tftp::client::{Client, ClientError, Timeouts};

use crate::fake_server::{Behavior, FakeServer};
use crate::lossy_link::{self, Faults};

const NO_FAULTS: Faults = Faults {
    lost: 0,
    duplicated: 0,
};
const LOSSY: Faults = Faults {
    lost: 10,
    duplicated: 5,
};

/// Sizes around one block, around one window, and of many windows.
const SIZES: [usize; 8] = [0, 1, 1427, 1428, 1429, 22_847, 22_848, 300_000];
/// The same for single blocks of 512 bytes.
const SIZES_WITHOUT_OPTIONS: [usize; 5] = [0, 511, 512, 513, 20_000];

/// Returns bytes that are not all alike.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((n * 31 + n / 251) % 256).unwrap();
    (0..size).map(byte).collect()
}

pub(crate) fn client(server: SocketAddr) -> Client {
    Client::new(server, Timeouts::default())
}

/// Gets and puts files of these sizes.
fn get_and_put(server: &FakeServer, faults: Faults, sizes: &[usize]) {
    let client = client(lossy_link::open(server.address, faults));
    for &size in sizes {
        let content = content(size);
        server.offer("offered", content.clone());
        let mut got = Vec::new();
        let got_size = client.get("offered", &mut got).unwrap();
        assert_eq!(got_size, size as u64);
        assert!(got == content, "the file of {size} bytes differs");

        let name = format!("put-{size}");
        client
            .put(&name, &mut Cursor::new(&content), size as u64)
            .unwrap();
        assert!(server.file(&name).unwrap() == content, "{name} differs");
    }
}

#[test]
fn files_are_got_and_put() {
    let server = FakeServer::start(Behavior::default());
    get_and_put(&server, NO_FAULTS, &SIZES);
}

#[test]
fn files_are_got_and_put_over_a_lossy_link() {
    let server = FakeServer::start(Behavior::default());
    get_and_put(&server, LOSSY, &SIZES);
}

#[test]
fn a_server_may_know_no_options() {
    let server = FakeServer::start(Behavior {
        without_options: true,
        ..Behavior::default()
    });
    get_and_put(&server, LOSSY, &SIZES_WITHOUT_OPTIONS);
}

#[test]
fn a_file_may_have_more_blocks_than_the_wire_has_numbers() {
    let server = FakeServer::start(Behavior {
        block_size_max: Some(8),
        ..Behavior::default()
    });
    let content = content(70_000 * 8 + 3);
    server.offer("long", content.clone());
    let client = client(server.address);
    let mut got = Vec::new();
    client.get("long", &mut got).unwrap();
    assert!(got == content);
    let size = content.len() as u64;
    client.put("put", &mut Cursor::new(&content), size).unwrap();
    assert!(server.file("put").unwrap() == content);
}

#[test]
fn a_refusal_carries_the_message_of_the_server() {
    let server = FakeServer::start(Behavior {
        refused: vec!["large"],
        ..Behavior::default()
    });
    let client = client(server.address);
    let refused = client.get("none", &mut Vec::new()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the server refused: there is no such file (code 1)"
    );
    let refused = client.put("large", &mut Cursor::new([1]), 1).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the server refused: it is too large (code 3)"
    );
}

/// Gets and puts while the server is killed after so many packets, and restarted.
fn survive_kills(kills: &[u32], timeouts: Timeouts, link: impl Fn(SocketAddr) -> SocketAddr) {
    let content = content(300_000);
    for &killed_after in kills {
        let start = || {
            FakeServer::start(Behavior {
                killed_after: Some(killed_after),
                ..Behavior::default()
            })
        };
        let server = start();
        server.offer("offered", content.clone());
        let mut got = Vec::new();
        let client = Client::new(link(server.address), timeouts);
        client.get("offered", &mut got).unwrap();
        assert!(got == content, "killed after {killed_after} packets");
        assert!(server.was_killed());

        let server = start();
        let client = Client::new(link(server.address), timeouts);
        let size = content.len() as u64;
        client.put("put", &mut Cursor::new(&content), size).unwrap();
        assert!(server.file("put").unwrap() == content);
        assert!(server.was_killed());
    }
}

#[test]
fn a_closed_port_restarts_the_transfer() {
    // The idle timeout cannot expire: only the closed port tells.
    let timeouts = Timeouts {
        idle: Duration::from_mins(10),
        total: Duration::from_mins(1),
    };
    survive_kills(&[1, 3, 12], timeouts, |server| server);
}

#[test]
fn silence_after_an_answer_restarts_the_transfer() {
    let timeouts = Timeouts {
        idle: Duration::from_secs(6),
        ..Timeouts::default()
    };
    // The link keeps the port open.
    survive_kills(&[12], timeouts, |server| {
        lossy_link::open(server, NO_FAULTS)
    });
}

#[test]
fn a_restarted_transfer_truncates_the_file() {
    let content = content(300_000);
    let server = FakeServer::start(Behavior {
        killed_after: Some(7),
        ..Behavior::default()
    });
    server.offer("offered", content.clone());
    let mut file = tempfile::tempfile().unwrap();
    client(server.address).get("offered", &mut file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
}

#[test]
fn a_silent_server_is_an_idle_timeout() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let timeouts = Timeouts {
        idle: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let client = Client::new(silent.local_addr().unwrap(), timeouts);
    let error = client.get("anything", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ClientError::IdleTimeout { .. }), "{error}");
}

#[test]
fn a_transfer_ends_after_its_total_time() {
    let server = FakeServer::start(Behavior::default());
    server.offer("large", content(100_000));
    let timeouts = Timeouts {
        total: Duration::ZERO,
        ..Timeouts::default()
    };
    let client = Client::new(server.address, timeouts);
    let error = client.get("large", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ClientError::TotalTimeout(_)), "{error}");
}

#[test]
fn an_unreachable_network_is_an_idle_timeout() {
    let timeouts = Timeouts {
        idle: Duration::from_millis(100),
        ..Timeouts::default()
    };
    // A reserved address: the kernel has no route to it, or refuses it.
    let client = Client::new("240.0.0.1:69".parse().unwrap(), timeouts);
    let error = client.get("anything", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ClientError::IdleTimeout { .. }), "{error}");
}

#[test]
fn a_file_that_is_shorter_than_announced_is_not_put() {
    let server = FakeServer::start(Behavior::default());
    let short = client(server.address).put("short", &mut Cursor::new([0; 10]), 3000);
    let message = short.unwrap_err().to_string();
    assert_eq!(message, "3000 bytes were announced, 10 arrived");
    assert_eq!(server.file("short"), None);
}
