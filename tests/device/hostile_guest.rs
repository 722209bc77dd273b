//! Attacks by a hostile guest on the services of the host: they reach nothing, the agent stays
//! small, and other guests are served.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::task::{GATEWAY, PR_PORT};
use guest::Exit;
use tempfile::TempDir;
use tests::attacks::refused;
use tests::net::Net;
use tftp::server::{Event, Namespace, Server};
use tokio::sync::mpsc;

use crate::guests::{GuestFixture, LIMIT, output, read};

/// The time limit for a reply of the server.
const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// A server in a network of its own, which is attacked from inside the network.
struct Target {
    _server: Server,
    net: Net,
    put: TempDir,
    events: mpsc::Receiver<Event>,
}

impl Target {
    fn new() -> Self {
        let put = tempfile::tempdir().unwrap();
        let mut map = Namespace::new(1 << 20, 4);
        map.offer("task.manifest", "x".repeat(100_000));
        map.accept_below("artifacts/", put.path().to_owned(), 1 << 19);
        Self::of(map, put)
    }

    /// With another map, whose puts go to `put`.
    fn of(map: Namespace, put: TempDir) -> Self {
        let net = Net::new();
        let (sender, events) = mpsc::channel(16);
        let address = address();
        let server = net
            .enter(|| Server::start(&[address], map, sender))
            .unwrap();
        Self {
            _server: server,
            net,
            put,
            events,
        }
    }

    /// Returns a socket of an attacker.
    fn socket(&self) -> UdpSocket {
        let socket = self.net.enter(|| UdpSocket::bind((GATEWAY, 0))).unwrap();
        socket.set_read_timeout(Some(REPLY_LIMIT)).unwrap();
        socket
    }

    /// Sends a packet to the server's port and returns the first reply, if one arrives in time.
    fn send(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let socket = self.socket();
        socket.send_to(packet, address()).unwrap();
        receive(&socket).ok().map(|(reply, _)| reply)
    }

    /// Checks that a well-behaved client is served.
    fn assert_serves(&self) {
        let line = format!("busybox tftp -b 1428 -g -r task.manifest -l /dev/null {GATEWAY}");
        self.net.shell(&line);
    }
}

fn address() -> SocketAddr {
    format!("{GATEWAY}:69").parse().unwrap()
}

fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 70_000];
    let (length, from) = socket.recv_from(&mut buffer)?;
    buffer.truncate(length);
    Ok((buffer, from))
}

/// Returns a request. A semicolon ends each field of the options.
fn request(kind: u8, name: &str, options: &str) -> Vec<u8> {
    let text = format!("{name};octet;{options}").replace(';', "\0");
    [&[0, kind][..], text.as_bytes()].concat()
}

fn is_error(reply: Option<&Vec<u8>>) -> bool {
    reply.is_some_and(|reply| reply.starts_with(&[0, 5]))
}

/// Returns the memory in KiB and the number of threads of this process, which runs the server.
fn memory_and_threads() -> (u64, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (memory, fs::read_dir("/proc/self/task").unwrap().count())
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn malicious_packets_reach_nothing() {
    let mut target = Target::new();
    let table = [
        ("names outside the namespace", try_names(&target)),
        ("malformed packets", try_noise(&target)),
        ("extreme options", try_options(&target)),
        ("puts without end", try_puts(&target)),
    ];
    target.assert_serves();
    while let Ok(event) = target.events.try_recv() {
        assert!(!matches!(event, Event::Put { .. }), "{event:?}");
    }
    for (kind, count) in table {
        println!("{count:>6}  {kind}");
    }
}

fn try_names(target: &Target) -> usize {
    let long = "x".repeat(400);
    let names = [
        "../../../../etc/passwd",
        "/etc/passwd",
        "artifacts/../../etc/passwd",
        "artifacts/%2e%2e/x",
        "artifacts/.hidden",
        "artifacts/a/b",
        "artifacts\\..\\x",
        "task.manifest/",
        "TASK.MANIFEST",
        "",
        &long,
    ];
    for name in names {
        for kind in [1, 2] {
            let reply = target.send(&request(kind, name, ""));
            assert!(is_error(reply.as_ref()), "{name} {kind}: {reply:?}");
            let text = String::from_utf8_lossy(&reply.unwrap()).into_owned();
            assert!(!text.contains("/tmp"), "a path of the host in {text}");
            if kind == 2 && name.len() < 40 {
                let refusal: String = text.chars().filter(|c| !c.is_control()).collect();
                refused("guest -> TFTP", &format!("put {name:?}"), &refusal);
            }
        }
    }
    names.len() * 2
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn symbolic_links_out_of_a_directory_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    tests::write_file(&secret, "secret");
    let (sources, put) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = |name: &str| sources.path().join(name);
    tests::write_file(&source("archive"), "mine");
    symlink(&secret, source("link")).unwrap();
    symlink(outside.path(), source("tree")).unwrap();
    symlink("/proc/self/root", source("root")).unwrap();
    symlink("../../../../../etc", source("up")).unwrap();
    symlink(&secret, put.path().join("link")).unwrap();
    let mut namespace = Namespace::new(1 << 20, 4);
    let mut refused = Vec::new();
    let directory = File::open(sources.path()).unwrap();
    for name in ["archive", "link", "root", "tree", "up"] {
        match ::sys::untrusted::open_beneath(&directory, name) {
            Ok(file) => namespace.offer(&format!("sources/{name}"), Arc::new(file)),
            Err(_) => refused.push(name),
        }
    }
    assert_eq!(refused, ["link", "root", "tree", "up"]);
    namespace.accept_below("artifacts/", put.path().to_owned(), 1 << 19);
    let target = Target::of(namespace, put);
    // The offer holds the open file, which a link cannot replace.
    fs::remove_file(source("archive")).unwrap();
    symlink(&secret, source("archive")).unwrap();

    let fetches = [
        "sources/link",
        "sources/tree",
        "sources/tree/secret",
        "sources/root/etc/passwd",
        "sources/up/passwd",
        "sources/archive/../link",
        "artifacts/link",
    ];
    for name in fetches {
        let reply = target.send(&request(1, name, ""));
        assert!(is_error(reply.as_ref()), "{name}: {reply:?}");
    }
    let work = outside.path().display();
    let transfers = "busybox tftp -g -r sources/archive -l got HOST && \
                     busybox tftp -p -l got -r artifacts/link HOST";
    let transfers = transfers.replace("HOST", GATEWAY);
    target.net.shell(&format!("cd {work} && {transfers}"));
    assert_eq!(
        fs::read_to_string(outside.path().join("got")).unwrap(),
        "mine"
    );
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    let link = target.put.path().join("link");
    assert!(fs::symlink_metadata(&link).unwrap().is_file(), "replaced");
    println!("{:>6}  symbolic links", fetches.len() + 2);
}

fn try_noise(target: &Target) -> usize {
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let socket = target.socket();
    for number in 0..3000_usize {
        let mut packet = vec![0; number % 90];
        for byte in &mut packet {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *byte = noise.to_le_bytes()[0];
        }
        if packet.len() > 2 {
            packet[0] = 0;
            packet[1] %= 7;
        }
        socket.send_to(&packet, address()).unwrap();
    }
    3000
}

fn try_options(target: &Target) -> usize {
    let all = [
        "blksize;0;",
        "blksize;99999999999999999999;",
        "blksize;65464;windowsize;65535;",
        "blksize;8;windowsize;65535;",
        "tsize;18446744073709551615;timeout;255;",
        "blksize;-1;windowsize;;",
        "blksize",
    ];
    for options in all {
        tests::wait_until("the server replies", || {
            target.send(&request(1, "task.manifest", options)).is_some()
        });
    }
    all.len()
}

fn try_puts(target: &Target) -> usize {
    let mut huge = None;
    // The server may still be busy with what was sent before.
    tests::wait_until("the server replies", || {
        huge = target.send(&request(2, "artifacts/x", "tsize;1073741824;"));
        huge.is_some()
    });
    assert!(is_error(huge.as_ref()), "a put of 1 GiB: {huge:?}");
    assert!(!put_until_refused(target), "a put without end");
    tests::wait_until("no files are left", || {
        fs::read_dir(target.put.path()).unwrap().count() == 0
    });
    2
}

/// Puts block after block until the server refuses. Returns true if it never does.
fn put_until_refused(target: &Target) -> bool {
    let socket = target.socket();
    socket
        .send_to(&request(2, "artifacts/x", ""), address())
        .unwrap();
    for block in 1..=5000_u16 {
        let (reply, from) = receive(&socket).unwrap();
        if reply.starts_with(&[0, 5]) {
            return false;
        }
        let head = block.to_be_bytes();
        let packet = [&[0, 3, head[0], head[1]][..], &[7; 512]].concat();
        socket.send_to(&packet, from).unwrap();
    }
    true
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn ten_thousand_half_open_transfers_do_not_delay_another_guest() {
    let (target, other) = (Target::new(), Target::new());
    target.assert_serves();
    other.assert_serves();
    let before = memory_and_threads();
    let mut most = before;
    let began = Instant::now();
    let mut sockets = Vec::new();
    for number in 0..10_000_u32 {
        let socket = target.socket();
        let kind = if number % 2 == 0 { 1 } else { 2 };
        let name = ["task.manifest", "artifacts/x"][usize::from(kind) - 1];
        socket.send_to(&request(kind, name, ""), address()).unwrap();
        // The transfer stays half-open: the client does not react to the reply.
        sockets.push(socket);
        if sockets.len() == 200 {
            let now = memory_and_threads();
            most = (most.0.max(now.0), most.1.max(now.1));
            sockets.clear();
        }
        if number % 1000 == 0 {
            other.assert_serves();
        }
    }
    println!(
        "{:>6}  half-open transfers in {:.1?}: {} additional KiB and {} threads",
        10_000,
        began.elapsed(),
        most.0.saturating_sub(before.0),
        most.1 - before.1
    );
    let growth = most.0.saturating_sub(before.0);
    assert!(growth < 32 * 1024, "the server has grown by {growth} KiB");
    assert!(most.1 - before.1 <= 40, "too many threads");
    other.assert_serves();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_can_reach_nothing_but_its_gateway_and_the_services_there() {
    let fixture = GuestFixture::new(
        "try() { target=$1; shift; if timeout 10 \"$@\" >/dev/null 2>&1; \
                 then echo \"reached $target\"; else echo \"refused $target\"; fi; }
         try gateway ping -c 1 -W 8 $host
         try pr nc $host 8585 -e true
         try hashserv nc $host 8686 -e true
         try secret nc $host 9000 -e true
         try ssh nc $host 22 -e true
         ip route add default via $host
         try outside ping -c 1 -W 2 192.0.2.1
         ip address add 169.254.111.77/24 dev eth0
         try source ping -c 1 -W 2 -I 169.254.111.77 $host
         ip link set eth0 down; ip link set eth0 address 02:62:68:00:00:77; ip link set eth0 up
         ip route add default via $host
         try hardware ping -c 1 -W 2 $host
         echo finished",
    );
    let secret: SocketAddr = format!("{GATEWAY}:9000").parse().unwrap();
    let pr: SocketAddr = format!("{GATEWAY}:{PR_PORT}").parse().unwrap();
    let _secret = fixture.net.tcp_listener(secret).unwrap();
    let _pr = fixture.net.tcp_listener(pr).unwrap();
    let hashserv: SocketAddr = format!("{GATEWAY}:{}", config::hashserv::PORT)
        .parse()
        .unwrap();
    let _hashserv = fixture.net.tcp_listener(hashserv).unwrap();
    let guest = fixture.start();
    let console = read(output(guest.console()));
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
    let console = console.join().unwrap();
    let printed: Vec<_> = console.lines().map(str::trim).collect();
    for line in [
        "reached gateway",
        "reached pr",
        "reached hashserv",
        "refused secret",
        "refused ssh",
        "refused outside",
        "refused source",
        "refused hardware",
        "finished",
    ] {
        assert!(printed.contains(&line), "{line}: {console}");
        if let Some(target) = line.strip_prefix("refused ") {
            refused("virtual machine -> network", target, "packet filter");
        }
    }
}
