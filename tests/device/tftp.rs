//! The TFTP server of a guest with foreign clients.

use std::fs::{self, File};
use std::io::Write;

use std::sync::Arc;
use std::time::Instant;

use config::task::GATEWAY;
use sys::command;
use tempfile::TempDir;
use tests::net::Net;
use tests::random::Xorshift;
use tftp::server::{Event, Namespace, Offer, Server};
use tokio::sync::mpsc;

mod lossy_cable;
mod lossy_link;

/// The size of the large file: more than 65535 blocks of 512 bytes, and the last one incomplete.
const SIZE: usize = 40 * 1024 * 1024 + 77;

/// A server in a network of its own, with a directory of files.
struct TransferFixture {
    server: Server,
    net: Net,
    directory: TempDir,
    events: mpsc::Receiver<Event>,
}

/// Returns content in which no two blocks are equal.
fn noise(size: usize) -> Vec<u8> {
    Xorshift::new(0x9e37_79b9_7f4a_7c15).bytes(size)
}

impl TransferFixture {
    fn new(size: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        File::create(&source)
            .unwrap()
            .write_all(&noise(size))
            .unwrap();
        let mut map = Namespace::new(1 << 30, 100);
        map.offer("big", Arc::new(File::open(&source).unwrap()));
        map.offer("sources/empty", String::new());
        map.offer("block", Offer::Bytes(Arc::from(noise(512))));
        map.accept_below("artifacts/", directory.path().to_owned(), 100 << 20);
        let net = Net::new();
        let (sender, events) = mpsc::channel(64);
        let address = format!("{GATEWAY}:69").parse().unwrap();
        let server = net
            .enter(|| Server::start(&[address], map, sender))
            .unwrap();
        Self {
            server,
            net,
            directory,
            events,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a shell command in the guest's network, in the directory of the files.
    fn shell(&self, line: &str) {
        let directory = self.directory.path().display();
        self.net.shell(&format!("cd {directory} && {line}"));
    }

    /// Checks that a file equals `source`, and deletes it.
    fn check_and_delete(&self, name: &str) {
        let source = fs::read(self.path("source")).unwrap();
        let other = fs::read(self.path(name)).unwrap();
        assert_eq!(source.len(), other.len(), "{name}");
        assert!(source == other, "{name} differs");
        fs::remove_file(self.path(name)).unwrap();
    }

    fn next_event(&mut self) -> Event {
        self.events.blocking_recv().unwrap()
    }
}

/// Clients, and their command lines to fetch `big` as `got` and to put `source`.
const CLIENTS: [(&str, &str, &str); 9] = [
    (
        "curl",
        "curl -sS -o got tftp://HOST/big",
        "curl -sS -T source tftp://HOST/artifacts/NAME",
    ),
    (
        "curl, 1468",
        "curl -sS --tftp-blksize 1468 -o got tftp://HOST/big",
        "curl -sS --tftp-blksize 1468 -T source tftp://HOST/artifacts/NAME",
    ),
    (
        "curl without options",
        "curl -sS --tftp-no-options -o got tftp://HOST/big",
        "curl -sS --tftp-no-options -T source tftp://HOST/artifacts/NAME",
    ),
    (
        "busybox",
        "busybox tftp -g -r big -l got HOST",
        "busybox tftp -p -l source -r artifacts/NAME HOST",
    ),
    (
        "busybox, 1428",
        "busybox tftp -b 1428 -g -r big -l got HOST",
        "busybox tftp -b 1428 -p -l source -r artifacts/NAME HOST",
    ),
    (
        "busybox, 65464",
        "busybox tftp -b 65464 -g -r big -l got HOST",
        "busybox tftp -b 65464 -p -l source -r artifacts/NAME HOST",
    ),
    (
        "tftp-hpa",
        "tftp -m octet HOST -c get big got",
        "tftp -m octet HOST -c put source artifacts/NAME",
    ),
    (
        "atftp, 1428",
        "atftp --option 'blksize 1428' --option 'tsize 0' --get -r big -l got HOST",
        "atftp --option 'blksize 1428' --put -l source -r artifacts/NAME HOST",
    ),
    (
        "atftp, 1428, window 32",
        "atftp --option 'blksize 1428' --option 'windowsize 32' --get -r big -l got HOST",
        "atftp --option 'blksize 1428' --option 'windowsize 32' --put -l source -r artifacts/NAME HOST",
    ),
];

/// The clients of the short run, one of each kind.
const SAMPLE: [&str; 3] = ["curl, 1468", "busybox, 1428", "tftp-hpa"];

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn foreign_clients_fetch_and_put_forty_megabytes() {
    let mut fixture = TransferFixture::new(SIZE);
    let wanted = |client: &str| tests::is_long_run() || SAMPLE.contains(&client);
    let clients = CLIENTS.into_iter().filter(|it| wanted(it.0));
    for (number, (client, fetch, put)) in clients.enumerate() {
        let name = format!("put{number}");
        let line = |text: &str| text.replace("HOST", GATEWAY).replace("NAME", &name);
        let began = Instant::now();
        fixture.shell(&line(fetch));
        let fetched = began.elapsed();
        fixture.check_and_delete("got");
        let began = Instant::now();
        fixture.shell(&line(put));
        println!("{client}: fetch {fetched:.2?}, put {:.2?}", began.elapsed());
        if number == 0 {
            assert_eq!(fixture.next_event(), Event::FirstContact);
        }
        let fetched = Event::Fetched {
            name: "big".into(),
            bytes: SIZE as u64,
        };
        assert_eq!(fixture.next_event(), fetched, "{client}");
        let put = Event::Put {
            name: format!("artifacts/{name}"),
            path: fixture.path(&name),
            bytes: SIZE as u64,
        };
        assert_eq!(fixture.next_event(), put, "{client}");
        fixture.check_and_delete(&name);
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn empty_files_and_files_of_one_block_are_transferred() {
    let fixture = TransferFixture::new(0);
    let host = format!("tftp://{GATEWAY}");
    fixture.shell(&format!(
        "busybox tftp -g -r sources/empty -l none {GATEWAY}"
    ));
    assert_eq!(fs::read(fixture.path("none")).unwrap(), b"");
    fixture.shell(&format!("curl -sS -T source {host}/artifacts/empty"));
    assert_eq!(fs::read(fixture.path("empty")).unwrap(), b"");
    fixture.shell(&format!("curl -sS -o one {host}/block"));
    assert_eq!(fs::read(fixture.path("one")).unwrap(), noise(512));
    fixture.shell(&format!("curl -sS -T one {host}/artifacts/one"));
    assert_eq!(fs::read(fixture.path("one")).unwrap(), noise(512));
}

/// Drops UDP packets in both directions inside a network.
fn drop_packets(net: &Net, percent: u32) {
    let rules = "table inet loss { chain input { type filter hook input priority 0; \
                 meta l4proto udp numgen random mod 100 < PERCENT drop; }; }";
    let rules = rules.replace("PERCENT", &percent.to_string());
    net.shell(&format!("nft '{rules}'"));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn dropping_the_server_ends_its_transfers_and_leaves_no_files() {
    let TransferFixture {
        server,
        net,
        directory,
        mut events,
    } = TransferFixture::new(SIZE);
    drop_packets(&net, 30);
    let source = directory.path().join("source");
    let mut curl = command::prepare("curl");
    curl.args(["-sS", "-T"]).arg(&source);
    curl.arg(format!("tftp://{GATEWAY}/artifacts/half"));
    let mut child = net.enter(|| curl.spawn()).unwrap();
    assert_eq!(events.blocking_recv(), Some(Event::FirstContact));
    let files = || fs::read_dir(directory.path()).unwrap().count();
    tests::wait_until("a file is being put", || files() == 2);
    drop(server);
    tests::wait_until("the incomplete file is deleted", || files() == 1);
    assert_eq!(events.blocking_recv(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}
