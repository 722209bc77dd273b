//! What guests cost, beside the bare means: called by `scripts/bench guests` with
//! the directory of a machine and the TFTP servers of others that are installed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails ends, and its table is its output"
)]

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use agent::guest::{Accelerator, Guest, Memory, Spec, arguments};
use agent::network::{Cable, Network};
use agent::tftp::{Event, Map, Offer, Server};
use config::machine::Machine;
use config::settings::{Acceleration, Settings};
use config::task::GATEWAY;
use store::command;
use tempfile::TempDir;
use tokio::sync::mpsc;

const ROUNDS: usize = 3;
const FILE: u64 = 50 << 20;
const LIMIT: Duration = Duration::from_mins(2);

fn main() {
    let machine = std::env::args().nth(1).unwrap();
    let container = std::env::args().nth(2).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        starts(Path::new(&machine)).await;
        containers(Path::new(&container)).await;
    });
    memory();
    throughput();
}

/// A network that goes when it is dropped.
struct Net(Option<Network>);

impl Net {
    fn new(name: &str) -> Self {
        Self::with(name, Cable::Tap)
    }

    fn with(name: &str, cable: Cable) -> Self {
        let name = format!("bhbench-{}-{name}", std::process::id());
        Self(Some(Network::create(&name, cable).unwrap()))
    }

    fn get(&self) -> &Network {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.0.take().unwrap().delete().unwrap();
    }
}

fn spec(directory: &Path, run: &Path, net: &Net, memory: Memory) -> Spec {
    let manifest = fs::read_to_string(directory.join("manifest")).unwrap();
    Spec {
        name: "bench".to_owned(),
        directory: directory.to_owned(),
        machine: Machine::parse(&manifest).unwrap(),
        user: (65_534, 65_534).into(),
        run: run.to_owned(),
        network: net.get().name().to_owned(),
        acceleration: Acceleration::Auto,
        uefi: Settings::parse("").unwrap().guests.uefi,
        durable: false,
        memory,
        keep: Vec::new(),
    }
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let mut copy = command::prepare("cp");
        copy.args(["--recursive", "--sparse=always", "--reflink=auto"])
            .arg(path)
            .arg(to.path());
        command::run(copy, LIMIT).unwrap();
    }
    to
}

/// The port that the worker's first packet comes to.
fn ear(net: &Net) -> UdpSocket {
    let address: SocketAddr = format!("{GATEWAY}:69").parse().unwrap();
    let ear = net.get().enter(|| UdpSocket::bind(address)).unwrap();
    ear.set_read_timeout(Some(LIMIT)).unwrap();
    ear
}

fn first_packet(ear: &UdpSocket) {
    ear.recv(&mut [0; 600]).unwrap();
}

async fn starts(machine: &Path) {
    let mut all = Table::default();
    for round in 0..ROUNDS {
        by_hand(machine, &mut all);
        cold_and_frozen(machine, round, &mut all).await;
    }
    let hand = all.print("the same QEMU by hand, to the first packet", None);
    all.print("network made", None);
    let cold = all.print("cold start, to the first packet", None);
    all.print("freezing", None);
    all.print("frozen start, to a running guest", None);
    let frozen = all.print("frozen start, to the first packet", None);
    verdict("cold start / by hand", cold / hand, 1.05);
    verdict("frozen start / cold start", frozen / cold, 0.15);
}

/// Containers, beside nspawn without a network, users or walls of its own.
async fn containers(machine: &Path) {
    let mut all = Table::default();
    for _ in 0..ROUNDS {
        let (files, run) = (copy(machine), tempfile::tempdir().unwrap());
        let mut bare = command::prepare("systemd-nspawn");
        bare.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
        bare.arg("-D")
            .arg(files.path().join("root"))
            .arg("/bin/true");
        let began = Instant::now();
        command::run(bare, LIMIT).unwrap();
        all.add("bare systemd-nspawn, from start to end", began.elapsed());
        let began = Instant::now();
        let net = Net::with("container", Cable::Pair);
        all.add("network of a container made", began.elapsed());
        let heard = ear(&net);
        let began = Instant::now();
        let guest = Guest::start(spec(files.path(), run.path(), &net, Memory::Own));
        let guest = guest.await.unwrap();
        all.add("container, to a running nspawn", began.elapsed());
        first_packet(&heard);
        all.add("container, to the first packet", began.elapsed());
        guest.end().await.unwrap();
    }
    let names: Vec<_> = all.0.iter().take(4).map(|(name, _)| name.clone()).collect();
    for name in names {
        all.print(&name, None);
    }
}

fn verdict(what: &str, ratio: f64, goal: f64) {
    let word = if ratio <= goal { "pass" } else { "FAIL" };
    println!("{word}  {what}: {ratio:.2} (goal: at most {goal:.2})");
}

/// QEMU as a person would start it: the same hardware, as root, by paths.
fn by_hand(machine: &Path, all: &mut Table) {
    let (files, run) = (copy(machine), tempfile::tempdir().unwrap());
    let net = Net::new("hand");
    let ear = ear(&net);
    let spec = spec(files.path(), run.path(), &net, Memory::Own);
    let boot = spec.machine.boot.clone().unwrap();
    let path = |name: &str| files.path().join(name).display().to_string();
    let line = arguments(&spec, Accelerator::Tcg);
    let mut words: Vec<_> = line
        .iter()
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    words.retain(|word| word != "-S");
    let skip = [
        "-sandbox",
        "-add-fd",
        "-blockdev",
        "-netdev",
        "-chardev",
        "-mon",
        "-serial",
    ];
    let mut qemu = command::prepare("qemu-system-x86_64");
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if skip.contains(&word.as_str()) {
            words.next();
        } else if word.starts_with("virtserialport,chardev=log") {
            qemu.arg("virtio-balloon-pci");
        } else if word.starts_with("virtserialport") {
            qemu.arg("pvpanic-pci");
        } else if word.starts_with("/proc/self/fd/8") {
            qemu.arg(path(boot.kernel.as_str()));
        } else if word.starts_with("/proc/self/fd/9") {
            qemu.arg(path(boot.initrd.as_ref().unwrap().as_str()));
        } else {
            qemu.arg(word);
        }
    }
    let disk = path(spec.machine.disk.as_str());
    qemu.args([
        "-drive",
        &format!("id=disk,if=none,format=raw,cache=unsafe,file={disk}"),
    ]);
    qemu.args([
        "-netdev",
        "tap,id=net,ifname=guest0,script=no,downscript=no",
    ]);
    qemu.args(["-serial", "null", "-monitor", "none"]);
    let began = Instant::now();
    let mut child = net
        .get()
        .enter(|| qemu.stdout(Stdio::null()).spawn())
        .unwrap();
    first_packet(&ear);
    all.add(
        "the same QEMU by hand, to the first packet",
        began.elapsed(),
    );
    end(&mut child);
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn cold_and_frozen(machine: &Path, round: usize, all: &mut Table) {
    let (files, run) = (copy(machine), tempfile::tempdir().unwrap());
    let began = Instant::now();
    let net = Net::new("cold");
    all.add("network made", began.elapsed());
    let heard = ear(&net);
    let spec_of = |memory| spec(files.path(), run.path(), &net, memory);
    let began = Instant::now();
    let guest = Guest::start(spec_of(Memory::Own)).await.unwrap();
    first_packet(&heard);
    all.add("cold start, to the first packet", began.elapsed());
    guest.end().await.unwrap();
    let guest = Guest::start(spec_of(Memory::Freezable)).await.unwrap();
    first_packet(&heard);
    let began = Instant::now();
    guest.freeze(files.path()).await.unwrap();
    all.add("freezing", began.elapsed());
    drop(heard);
    let clone = copy(files.path());
    let net = Net::new(&format!("frozen{round}"));
    let heard = ear(&net);
    let run = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let spec = spec(clone.path(), run.path(), &net, Memory::Frozen);
    let guest = Guest::start(spec).await.unwrap();
    all.add("frozen start, to a running guest", began.elapsed());
    first_packet(&heard);
    all.add("frozen start, to the first packet", began.elapsed());
    guest.end().await.unwrap();
}

/// What a guest's network and server cost the agent while nothing happens.
fn memory() {
    const GUESTS: u64 = 20;
    let used = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = used();
    let (sender, _events) = mpsc::channel::<Event>(64);
    let address = format!("{GATEWAY}:69").parse().unwrap();
    let server = |number| {
        let net = Net::new(&format!("memory{number}"));
        let map = Map::new(0, 0);
        let server = Server::start(Some(net.get()), &[address], map, sender.clone()).unwrap();
        (server, net)
    };
    let all: Vec<_> = (0..GUESTS).map(server).collect();
    let each = used().saturating_sub(before) / GUESTS;
    println!("{each:>8} KiB  memory of the agent for each guest's network and server");
    drop(all);
}

/// Times by name.
#[derive(Default)]
struct Table(Vec<(String, Duration)>);

impl Table {
    fn add(&mut self, name: &str, time: Duration) {
        self.0.push((name.to_owned(), time));
    }

    /// Prints the median of a name's times and returns it in seconds; with a size,
    /// as megabytes in a second.
    fn print(&self, name: &str, size: Option<u64>) -> f64 {
        let named = self.0.iter().filter(|(other, _)| other == name);
        let mut times: Vec<_> = named.map(|(_, time)| time.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        match size {
            None => println!("{:>9.1} ms  {name}", median * 1e3),
            Some(size) => println!("{:>7.0} MB/s  {name}", size as f64 / median / 1e6),
        }
        median
    }
}

/// A server of others: its name, and its command line in a directory.
type Other = (&'static str, fn(&str) -> Vec<String>);

fn others() -> Vec<Other> {
    let all: [Other; 3] = [
        ("in.tftpd", |directory| {
            words("in.tftpd -L -s -a 169.254.111.222:69 --", directory)
        }),
        ("dnsmasq", |directory| {
            words(
                &format!("dnsmasq -d --port=0 --enable-tftp --tftp-root={directory}"),
                "",
            )
        }),
        ("atftpd", |directory| {
            words(
                "atftpd --daemon --no-fork --user root --bind-address 169.254.111.222",
                directory,
            )
        }),
    ];
    let paths = std::env::var("PATH").unwrap_or_default();
    let installed = |name: &str| std::env::split_paths(&paths).any(|dir| dir.join(name).is_file());
    all.into_iter()
        .filter(|(name, _)| installed(name))
        .collect()
}

fn words(line: &str, last: &str) -> Vec<String> {
    let words = line
        .split(' ')
        .filter(|word| *word != "--")
        .map(str::to_owned);
    words
        .chain((!last.is_empty()).then(|| last.to_owned()))
        .collect()
}

fn throughput() {
    let directory = tempfile::tempdir().unwrap();
    File::create(directory.path().join("big"))
        .unwrap()
        .set_len(FILE)
        .unwrap();
    let others = others();
    let mut all = Table::default();
    for _ in 0..ROUNDS {
        let net = Net::new("ours");
        let mut map = Map::new(0, 0);
        map.offer("big", Offer::open(directory.path(), "big").unwrap());
        let (sender, _events) = mpsc::channel::<Event>(1000);
        let address = format!("{GATEWAY}:69").parse().unwrap();
        let server = Server::start(Some(net.get()), &[address], map, sender).unwrap();
        measure(&net, "ours", &mut all);
        drop(server);
        for (name, line) in &others {
            let net = Net::new(name.trim_start_matches("in."));
            let line = line(directory.path().to_str().unwrap());
            let mut server = command::prepare(&line[0]);
            server
                .args(&line[1..])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = net.get().enter(|| server.spawn()).unwrap();
            measure(&net, name, &mut all);
            end(&mut child);
        }
    }
    for window in [1, 16, 64] {
        let mut names = vec!["ours"];
        names.extend(others.iter().map(|(name, _)| *name));
        let print = |name: &&str| all.print(&format!("window {window}: {name}"), Some(FILE));
        let times: Vec<_> = names.iter().map(print).collect();
        if let Some(best) = times[1..].iter().copied().reduce(f64::min) {
            verdict(
                &format!("window {window}: time / the best of the others'"),
                times[0] / best,
                1.0,
            );
        }
    }
}

fn measure(net: &Net, name: &str, all: &mut Table) {
    for window in [1, 16, 64] {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(10);
        // A server that was just started may not listen yet.
        let time = loop {
            let began = Instant::now();
            match net.get().enter(|| fetch(window)) {
                Ok(size) if size == FILE => break began.elapsed(),
                other => assert!(Instant::now() < deadline, "{name}: {other:?}"),
            }
        };
        all.add(&format!("window {window}: {name}"), time);
    }
}

/// Fetches `big` and returns its size. Loses nothing and expects no loss.
fn fetch(window: u64) -> io::Result<u64> {
    let socket = UdpSocket::bind((GATEWAY, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let options = format!("big;octet;blksize;1468;windowsize;{window};").replace(';', "\0");
    socket.send_to(&[&[0, 1][..], options.as_bytes()].concat(), (GATEWAY, 69))?;
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if buffer[1] != 6 {
        return Err(io::Error::other("no options"));
    }
    socket.connect(from)?;
    // Servers that do not know windows leave the option out.
    let window = if String::from_utf8_lossy(&buffer[..length]).contains("windowsize") {
        window
    } else {
        1
    };
    socket.send(&[0, 4, 0, 0])?;
    let (mut block, mut size) = (0_u64, 0_u64);
    loop {
        let length = socket.recv(&mut buffer)?;
        let number = u64::from(u16::from_be_bytes([buffer[2], buffer[3]]));
        if buffer[1] != 3 || number != (block + 1) & 0xffff {
            continue;
        }
        block += 1;
        size += length as u64 - 4;
        let last = length < 1472;
        if last || block % window == 0 {
            socket.send(&[0, 4, buffer[2], buffer[3]])?;
        }
        if last {
            return Ok(size);
        }
    }
}
