//! TFTP beside the servers of others: how much in a second, and how soon a file is
//! there over a line that loses packets. Every server is a process of its own.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use config::task::GATEWAY;
use guest::network::Cable;
use tempfile::TempDir;
use tftp::server::{Event, Namespace, Offer, Server};
use tokio::sync::mpsc;

use crate::ground::Net;
use crate::table::{Table, at_least, at_most, title};

mod client;
mod peers;

use client::{Line, fetch};
use peers::{OURS, Peer, Running};

const BIG: &str = "big";
const BIG_SIZE: u64 = 200 << 20;
const ROUNDS: usize = 3;
const WINDOWS: [u64; 3] = [1, 16, 64];
/// Who needs longer for the big file has given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much is lost in each direction, in percent, and how much is fetched then: about
/// as many packets are lost each time.
const LOSSES: [(u64, usize); 3] = [(1, 512 << 10), (5, 128 << 10), (20, 32 << 10)];
const LOSSY_WINDOWS: [u64; 2] = [1, 16];
/// How often, each time with other losses; the same ones for every server.
const FETCHES: u64 = 5;

pub(crate) fn compare(servers: &Path) {
    let directory = files();
    let peers = peers::all(servers, directory.path());
    throughput(&peers);
    loss(&peers, directory.path());
}

/// What is served: for everybody, as some servers give up their privileges.
fn files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let big = File::create(directory.path().join(BIG)).unwrap();
    big.set_len(BIG_SIZE).unwrap();
    for (percent, size) in LOSSES {
        let noise = client::noise(size);
        sys::file::replace(&directory.path().join(percent.to_string()), &noise).unwrap();
    }
    for entry in fs::read_dir(directory.path()).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
    }
    directory
}

/// Our server as a process of its own, until it is killed.
pub(crate) fn serve(directory: &Path) {
    let mut map = Namespace::new(0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        map.offer(&name, Offer::open(directory, &name).unwrap());
    }
    let (sender, mut events) = mpsc::channel::<Event>(64);
    let address = format!("{GATEWAY}:69").parse().unwrap();
    let _server = Server::start(&[address], map, sender).unwrap();
    while events.blocking_recv().is_some() {}
}

fn throughput(peers: &[Peer]) {
    let mut all = Table::default();
    for _ in 0..ROUNDS {
        for peer in peers {
            let server = Running::start(peer, "speed");
            for window in server.windows(&WINDOWS) {
                all.add(&row(window, peer.name), speed(&server, window));
            }
        }
    }
    title("TFTP, 200 MiB in blocks of 1468 bytes, one client");
    let others = &peers[1..];
    if others.is_empty() {
        println!("      there is no other server to hold ours against");
    }
    let best = |window| {
        let times = others
            .iter()
            .filter_map(|it| all.median(&row(window, it.name)));
        times.reduce(f64::min).unwrap_or(f64::INFINITY)
    };
    for window in WINDOWS {
        for peer in peers {
            print(&all, window, peer);
        }
    }
    for window in WINDOWS {
        let ours = all.median(&row(window, OURS)).unwrap_or(f64::INFINITY);
        let what = format!("window {window}: ours / the best of the others");
        at_least(&what, best(1).min(best(window)) / ours, 1.0, "");
        if window > 1 {
            let what = format!("window {window}: ours / the best of the others without one");
            at_least(&what, best(1) / ours, 5.0, "");
        }
    }
}

fn row(window: u64, name: &str) -> String {
    format!("window {window}: {name}")
}

/// How long a server takes for the big file.
fn speed(server: &Running, window: u64) -> Duration {
    let began = Instant::now();
    let mut line = Line::whole();
    let mut ignore = |_: &[u8]| {};
    let fetch = || fetch(BIG, window, &mut line, PATIENCE, &mut ignore);
    match server.net().get().enter(fetch) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => PATIENCE,
        got => {
            let time = began.elapsed();
            assert_eq!(got.unwrap().size, BIG_SIZE);
            time
        }
    }
}

/// Prints how fast a server is, if it knows such a window.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn print(all: &Table, window: u64, peer: &Peer) {
    let (name, patience) = (peer.name, PATIENCE.as_secs_f64());
    match all.median(&row(window, name)) {
        None => println!("        –       window {window}: {name} knows no windows"),
        Some(time) if time >= patience => {
            println!("gave up after {patience} s  window {window}: {name}");
        }
        Some(time) => {
            let speed = BIG_SIZE as f64 / time / 1e6;
            println!("{speed:>9.0} MB/s  window {window}: {name}");
        }
    }
}

/// The servers of others that are held against ours over a line that loses.
const LOSSY: [&str; 3] = [OURS, "tftpd-hpa", "atftpd"];

fn loss(peers: &[Peer], directory: &Path) {
    let peers: Vec<_> = peers.iter().filter(|it| LOSSY.contains(&it.name)).collect();
    // Ours alone, as it waits least; the others, which mostly wait, side by side.
    let ours = lossy(peers[0], directory);
    let all: Vec<_> = std::thread::scope(|scope| {
        let lossy = |peer| scope.spawn(move || lossy(peer, directory));
        let threads: Vec<_> = peers[1..].iter().map(|peer| lossy(*peer)).collect();
        let others = threads.into_iter().map(|thread| thread.join().unwrap());
        std::iter::once(ours).chain(others).collect()
    });
    title("TFTP over a line that loses packets in both directions, one client");
    for (percent, size) in LOSSES {
        for window in LOSSY_WINDOWS {
            let what = format!("{percent} % lost, {} KiB, window {window}", size >> 10);
            let mut medians = Vec::new();
            for (peer, waited) in peers.iter().zip(&all) {
                let is_meant = |it: &&Waited| (it.percent, it.window) == (percent, window);
                let times: Vec<_> = waited
                    .iter()
                    .filter(is_meant)
                    .map(|it| it.seconds)
                    .collect();
                if !times.is_empty() {
                    medians.push(print_waited(&what, peer.name, times));
                }
            }
            if let Some(best) = medians[1..].iter().copied().reduce(f64::min) {
                let what = format!("{what}: time / the best of the others'");
                at_most(&what, medians[0] / best, 1.0, "");
            }
        }
    }
}

/// Prints the median of some fetches and returns it, in seconds.
fn print_waited(what: &str, name: &str, mut times: Vec<f64>) -> f64 {
    let patience = PATIENCE.as_secs_f64();
    times.sort_by(f64::total_cmp);
    let late = times.iter().filter(|time| time.is_infinite()).count();
    let median = times[times.len() / 2];
    if median.is_infinite() {
        println!("gave up after {patience} s  {what}: {name}, {late} of {FETCHES}");
        return patience;
    }
    let late = match late {
        0 => String::new(),
        _ => format!(", but {late} of {FETCHES} gave up after {patience} s"),
    };
    println!("{:>9.1} ms  {what}: {name}{late}", median * 1e3);
    median
}

/// How long a file took over a line that loses.
struct Waited {
    percent: u64,
    window: u64,
    /// Infinite when it was given up.
    seconds: f64,
}

/// All fetches from one server, those that are compared side by side.
fn lossy(peer: &Peer, directory: &Path) -> Vec<Waited> {
    let server = Running::start(peer, "loss");
    let mut all = Vec::new();
    for (percent, _) in LOSSES {
        for window in server.windows(&LOSSY_WINDOWS) {
            std::thread::scope(|scope| {
                let one = |seed| one(&server, directory, percent, window, seed);
                let fetch = |seed| scope.spawn(move || one(seed));
                let threads: Vec<_> = (1..=FETCHES).map(fetch).collect();
                all.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
            });
        }
    }
    all
}

/// Fetches a file over a line that loses. What comes must be right.
fn one(server: &Running, directory: &Path, percent: u64, window: u64, seed: u64) -> Waited {
    let name = percent.to_string();
    let mut line = Line::lossy(percent, seed);
    let mut got = Vec::new();
    let mut keep = |data: &[u8]| got.extend_from_slice(data);
    let began = Instant::now();
    let fetch = || fetch(&name, window, &mut line, PATIENCE, &mut keep);
    let fetched = server.net().get().enter(fetch);
    let mut seconds = began.elapsed().as_secs_f64();
    if fetched.is_ok() {
        assert!(got == fs::read(directory.join(&name)).unwrap(), "{name}");
    } else {
        seconds = f64::INFINITY;
    }
    Waited {
        percent,
        window,
        seconds,
    }
}

/// A network for a server and its client, who meet on its loopback.
fn network(name: &str) -> Net {
    Net::new(name, Cable::Tap)
}
