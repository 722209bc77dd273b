//! The TFTP server, compared with foreign servers: throughput, and transfers over a link that loses
//! packets. Each server is a process.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::task::GATEWAY;
use guest::network::LinkType;
use tempfile::TempDir;
use tftp::server::{Event, Namespace, Server};
use tokio::sync::mpsc;

use bench::guest_fixture::GuestNetwork;
use bench::statistics::Timings;
use bench::table::{print_at_least, print_at_most, print_title};

mod client;
mod peers;

use client::{Link, fetch};
use peers::{BUILDHOST, Peer, RunningServer};

const BIG: &str = "big";
const BIG_SIZE: u64 = 200 << 20;
const ROUNDS: usize = 3;
const WINDOWS: [u64; 3] = [1, 16, 64];
/// The time limit for a file.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The losses in each direction in percent, and the size of the file, so that about as many packets
/// are lost each time.
const LOSSES: [(u64, usize); 3] = [(1, 512 << 10), (5, 128 << 10), (20, 32 << 10)];
const LOSSY_WINDOWS: [u64; 2] = [1, 16];
/// The number of transfers, each with different losses. They are the same for all servers.
const FETCHES: u64 = 5;

/// Compares the server with the foreign servers in a directory.
pub(crate) fn compare(servers: &Path) {
    let directory = files();
    let peers = peers::all(servers, directory.path());
    throughput(&peers);
    loss(&peers, directory.path());
}

/// Creates the served files. All users can read them, because some servers drop their privileges.
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

/// Serves a directory until the process is killed.
pub(crate) fn serve(directory: &Path) {
    let mut map = Namespace::new(0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = File::open(directory.join(&name)).unwrap();
        map.offer(&name, Arc::new(file));
    }
    let (sender, mut events) = mpsc::channel::<Event>(64);
    let address = format!("{GATEWAY}:69").parse().unwrap();
    let _server = Server::start(&[address], map, sender).unwrap();
    while events.blocking_recv().is_some() {}
}

fn throughput(peers: &[Peer]) {
    let mut timings = Timings::default();
    for _ in 0..ROUNDS {
        for peer in peers {
            let server = RunningServer::start(peer, "throughput");
            for window in server.supported(&WINDOWS) {
                timings.add(&row(window, peer.name), fetch_duration(&server, window));
            }
        }
    }
    print_title("TFTP, 200 MiB in blocks of 1468 bytes, one client");
    let foreign = &peers[1..];
    if foreign.is_empty() {
        println!("      no foreign server is installed");
    }
    let best_foreign = |window| {
        let times = foreign
            .iter()
            .filter_map(|it| timings.median(&row(window, it.name)));
        times.reduce(f64::min).unwrap_or(f64::INFINITY)
    };
    for window in WINDOWS {
        for peer in peers {
            print_throughput(&timings, window, peer);
        }
    }
    for window in WINDOWS {
        let own = timings.median(&row(window, BUILDHOST));
        let own = own.unwrap_or(f64::INFINITY);
        let name = format!("window {window}: buildhost / the fastest foreign server");
        let best = best_foreign(1).min(best_foreign(window));
        print_at_least(&name, best / own, 1.0, "");
        if window > 1 {
            let name = format!("window {window}: buildhost / the fastest one without windows");
            print_at_least(&name, best_foreign(1) / own, 5.0, "");
        }
    }
}

fn row(window: u64, name: &str) -> String {
    format!("window {window}: {name}")
}

/// Returns the time that a server needs for the big file, at most the time limit.
fn fetch_duration(server: &RunningServer, window: u64) -> Duration {
    let began = Instant::now();
    let mut link = Link::lossless();
    let mut ignore = |_: &[u8]| {};
    let fetch = || fetch(BIG, window, &mut link, TIME_LIMIT, &mut ignore);
    match server.network().get().enter(fetch) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => TIME_LIMIT,
        fetched => {
            let duration = began.elapsed();
            assert_eq!(fetched.unwrap().size, BIG_SIZE);
            duration
        }
    }
}

/// Prints the throughput of a server with a window.
#[expect(clippy::cast_precision_loss, reason = "a rounded figure is printed")]
fn print_throughput(timings: &Timings, window: u64, peer: &Peer) {
    let (name, limit) = (peer.name, TIME_LIMIT.as_secs_f64());
    match timings.median(&row(window, name)) {
        None => println!("        –       window {window}: {name} does not support windows"),
        Some(seconds) if seconds >= limit => {
            println!("timed out after {limit} s  window {window}: {name}");
        }
        Some(seconds) => {
            let throughput = BIG_SIZE as f64 / seconds / 1e6;
            println!("{throughput:>9.0} MB/s  window {window}: {name}");
        }
    }
}

/// The servers that are compared over a lossy link.
const LOSSY_PEERS: [&str; 3] = [BUILDHOST, "tftpd-hpa", "atftpd"];

fn loss(peers: &[Peer], directory: &Path) {
    let mut peers: Vec<_> = peers.iter().collect();
    peers.retain(|peer| LOSSY_PEERS.contains(&peer.name));
    // This server waits least, so it is measured alone. The others mostly wait, so they run in
    // parallel.
    let own = lossy_fetches(peers[0], directory);
    let all: Vec<_> = std::thread::scope(|scope| {
        let start = |peer| scope.spawn(move || lossy_fetches(peer, directory));
        let threads: Vec<_> = peers[1..].iter().map(|peer| start(*peer)).collect();
        let foreign = threads.into_iter().map(|thread| thread.join().unwrap());
        std::iter::once(own).chain(foreign).collect()
    });
    print_title("TFTP over a link that loses packets in both directions, one client");
    for (percent, size) in LOSSES {
        for window in LOSSY_WINDOWS {
            let case = format!("{percent} % lost, {} KiB, window {window}", size >> 10);
            let mut medians = Vec::new();
            for (peer, fetches) in peers.iter().zip(&all) {
                let mut fetches: Vec<_> = fetches.iter().collect();
                fetches.retain(|it| (it.percent, it.window) == (percent, window));
                if !fetches.is_empty() {
                    let seconds = fetches.iter().map(|it| it.seconds).collect();
                    medians.push(print_lossy_fetches(&case, peer.name, seconds));
                }
            }
            if let Some(best) = medians[1..].iter().copied().reduce(f64::min) {
                let name = format!("{case}: time / that of the fastest foreign server");
                print_at_most(&name, medians[0] / best, 1.0, "");
            }
        }
    }
}

/// Prints the median of some fetches and returns it in seconds.
fn print_lossy_fetches(case: &str, name: &str, mut seconds: Vec<f64>) -> f64 {
    let limit = TIME_LIMIT.as_secs_f64();
    seconds.sort_by(f64::total_cmp);
    let failed = seconds.iter().filter(|it| it.is_infinite()).count();
    let median = seconds[seconds.len() / 2];
    if median.is_infinite() {
        println!("timed out after {limit} s  {case}: {name}, {failed} of {FETCHES}");
        return limit;
    }
    let failures = match failed {
        0 => String::new(),
        _ => format!(", but {failed} of {FETCHES} timed out after {limit} s"),
    };
    println!("{:>9.1} ms  {case}: {name}{failures}", median * 1e3);
    median
}

/// A fetch over a lossy link.
struct LossyFetch {
    percent: u64,
    window: u64,
    /// The duration, which is infinite if the fetch timed out.
    seconds: f64,
}

/// Fetches the files of all losses from a server.
fn lossy_fetches(peer: &Peer, directory: &Path) -> Vec<LossyFetch> {
    let server = RunningServer::start(peer, "loss");
    let mut all = Vec::new();
    for (percent, _) in LOSSES {
        for window in server.supported(&LOSSY_WINDOWS) {
            std::thread::scope(|scope| {
                let fetch = |seed| lossy_fetch(&server, directory, percent, window, seed);
                let start = |seed| scope.spawn(move || fetch(seed));
                let threads: Vec<_> = (1..=FETCHES).map(start).collect();
                all.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
            });
        }
    }
    all
}

/// Fetches a file over a lossy link and checks its content.
fn lossy_fetch(
    server: &RunningServer,
    directory: &Path,
    percent: u64,
    window: u64,
    seed: u64,
) -> LossyFetch {
    let name = percent.to_string();
    let mut link = Link::lossy(percent, seed);
    let mut content = Vec::new();
    let mut keep = |data: &[u8]| content.extend_from_slice(data);
    let began = Instant::now();
    let fetch = || fetch(&name, window, &mut link, TIME_LIMIT, &mut keep);
    let fetched = server.network().get().enter(fetch);
    let mut seconds = began.elapsed().as_secs_f64();
    if fetched.is_ok() {
        let expected = fs::read(directory.join(&name)).unwrap();
        assert!(content == expected, "{name}");
    } else {
        seconds = f64::INFINITY;
    }
    LossyFetch {
        percent,
        window,
        seconds,
    }
}

/// Creates a network for a server and its client, who use the loopback interface.
fn network(name: &str) -> GuestNetwork {
    GuestNetwork::new(name, LinkType::Tap)
}
