//! Files come and go whole, or the client says why not.

use std::io::Cursor;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tftp::client::{Client, ClientError, Timeouts};
use worker::chain;

use crate::host::{Host, Manners};
use crate::line::{self, Faults};

const GOOD: Faults = Faults {
    lost: 0,
    doubled: 0,
};
const BAD: Faults = Faults {
    lost: 10,
    doubled: 5,
};

/// Around one block, around one window, and many windows.
const SIZES: [usize; 8] = [0, 1, 1427, 1428, 1429, 22_847, 22_848, 300_000];
/// The same for blocks of 512 bytes that go one by one.
const SIZES_PLAIN: [usize; 5] = [0, 511, 512, 513, 20_000];

/// Bytes that are not all alike.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((n * 31 + n / 251) % 256).unwrap();
    (0..size).map(byte).collect()
}

pub(crate) fn client(server: SocketAddr) -> Client {
    Client::new(server, Timeouts::default())
}

/// Gets and puts files of these sizes.
fn go_both_ways(host: &Host, faults: Faults, sizes: &[usize]) {
    let client = client(line::lay(host.address, faults));
    for &size in sizes {
        let content = content(size);
        host.give("there", content.clone());
        let mut got = Vec::new();
        let told = client.get("there", &mut got).unwrap();
        assert_eq!(told, size as u64);
        assert!(got == content, "{size} bytes came otherwise");

        let name = format!("back-{size}");
        client
            .put(&name, &mut Cursor::new(&content), size as u64)
            .unwrap();
        assert!(
            host.has(&name).unwrap() == content,
            "{size} bytes went otherwise"
        );
    }
}

#[test]
fn files_go_both_ways() {
    go_both_ways(&Host::start(Manners::default()), GOOD, &SIZES);
}

#[test]
fn files_go_both_ways_through_loss() {
    go_both_ways(&Host::start(Manners::default()), BAD, &SIZES);
}

#[test]
fn a_server_that_knows_no_options_is_understood() {
    let manners = Manners {
        plain: true,
        ..Manners::default()
    };
    go_both_ways(&Host::start(manners), BAD, &SIZES_PLAIN);
}

#[test]
fn more_blocks_than_the_wire_has_numbers() {
    let host = Host::start(Manners {
        block_size_max: Some(8),
        ..Manners::default()
    });
    let content = content(70_000 * 8 + 3);
    host.give("long", content.clone());
    let client = client(host.address);
    let mut got = Vec::new();
    client.get("long", &mut got).unwrap();
    assert!(got == content);
    let size = content.len() as u64;
    client
        .put("back", &mut Cursor::new(&content), size)
        .unwrap();
    assert!(host.has("back").unwrap() == content);
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    let host = Host::start(Manners {
        refuses: vec!["large"],
        ..Manners::default()
    });
    let client = client(host.address);
    let refused = client.get("none", &mut Vec::new()).unwrap_err();
    assert_eq!(
        chain(&refused),
        "the server refused: there is no such file (code 1)"
    );
    let refused = client.put("large", &mut Cursor::new([1]), 1).unwrap_err();
    assert_eq!(
        chain(&refused),
        "the server refused: it is too large (code 3)"
    );
}

/// Gets and puts while the host is killed in the midst of it and comes back.
fn go_on_after_death(deaths: &[u32], timeouts: Timeouts, lay: impl Fn(SocketAddr) -> SocketAddr) {
    let content = content(300_000);
    for &dies_after in deaths {
        let host = Host::start(Manners {
            dies_after: Some(dies_after),
            ..Manners::default()
        });
        host.give("there", content.clone());
        let mut got = Vec::new();
        let client = Client::new(lay(host.address), timeouts);
        client.get("there", &mut got).unwrap();
        assert!(got == content, "after {dies_after} packets");
        assert!(host.has_died());

        let host = Host::start(Manners {
            dies_after: Some(dies_after),
            ..Manners::default()
        });
        let client = Client::new(lay(host.address), timeouts);
        let size = content.len() as u64;
        client
            .put("back", &mut Cursor::new(&content), size)
            .unwrap();
        assert!(host.has("back").unwrap() == content);
        assert!(host.has_died());
    }
}

#[test]
fn a_host_that_was_killed_and_is_back_is_asked_anew() {
    // Shorter than its silence may be: its closed port tells.
    let timeouts = Timeouts {
        idle: Duration::from_mins(10),
        total: Duration::from_mins(1),
    };
    go_on_after_death(&[1, 3, 12], timeouts, |host| host);
}

#[test]
fn a_host_of_which_nothing_is_heard_is_asked_anew() {
    let timeouts = Timeouts {
        idle: Duration::from_secs(6),
        ..Timeouts::default()
    };
    // The line goes on taking what nobody fetches.
    go_on_after_death(&[12], timeouts, |host| line::lay(host, GOOD));
}

#[test]
fn a_file_that_comes_anew_is_not_longer_than_it_is() {
    let content = content(300_000);
    let host = Host::start(Manners {
        dies_after: Some(7),
        ..Manners::default()
    });
    host.give("there", content.clone());
    let mut file = tempfile::tempfile().unwrap();
    client(host.address).get("there", &mut file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
}

#[test]
fn a_server_that_says_nothing_is_left() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let timeouts = Timeouts {
        idle: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let client = Client::new(silent.local_addr().unwrap(), timeouts);
    let left = client.get("anything", &mut Vec::new()).unwrap_err();
    assert!(matches!(left, ClientError::IdleTimeout { .. }), "{left}");
}

#[test]
fn a_transfer_that_never_ends_is_ended() {
    let host = Host::start(Manners::default());
    host.give("large", content(100_000));
    let timeouts = Timeouts {
        total: Duration::ZERO,
        ..Timeouts::default()
    };
    let client = Client::new(host.address, timeouts);
    let ended = client.get("large", &mut Vec::new()).unwrap_err();
    assert!(matches!(ended, ClientError::TotalTimeout(_)), "{ended}");
}

#[test]
fn a_network_that_is_not_there_is_told() {
    let timeouts = Timeouts {
        idle: Duration::from_millis(100),
        ..Timeouts::default()
    };
    // Reserved for no use: the kernel has no route to it, or refuses it.
    let client = Client::new("240.0.0.1:69".parse().unwrap(), timeouts);
    let left = client.get("anything", &mut Vec::new()).unwrap_err();
    assert!(matches!(left, ClientError::IdleTimeout { .. }), "{left}");
}

#[test]
fn a_file_that_shrinks_while_it_goes_is_told() {
    let host = Host::start(Manners::default());
    let shrunk = client(host.address).put("shrunk", &mut Cursor::new([0; 10]), 3000);
    let words = chain(&shrunk.unwrap_err());
    assert_eq!(words, "3000 bytes were announced, 10 came");
    assert_eq!(host.has("shrunk"), None);
}
