//! From a task to the worker's first packet: the agent's builds, cold and frozen,
//! beside the same QEMU started by hand; and the parts that such a start is made of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::session::handshake::{self, HandshakeMode};
use config::builds::Build;
use config::settings::Acceleration;
use guest::network::Cable;
use guest::{Accelerator, BootMode, Guest, accelerator, arguments};
use sys::command;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::ground::{Ground, LIMIT, Net, Taken, first_packet};
use crate::host::Agent;
use crate::table::{Table, at_most, title};

const ROUNDS: usize = 5;

const BY_HAND: &str = "the same QEMU by hand, to the worker's first packet";
const COLD: &str = "cold start of a build, from its task to the worker's first packet";
const FROZEN: &str = "frozen start of a build, from its task to the worker's first packet";
const FREEZING: &str = "freezing a guest that is ready";

/// The socket of the port at which the worker says that it is ready.
const CONTROL: &str = "control";

/// What the agent's log says of a frozen guest that is woken.
const ANSWERS: &str = "QEMU answers";
const READ: &str = "QEMU has read the state of the frozen guest";
const RESUME: &str = "resume";

/// The parts of a start, in their order.
const PARTS: [&str; 4] = [
    "snapshot",
    "network",
    "QEMU, to running processors",
    "the guest, to the worker's first packet",
];

pub(crate) async fn compare(agent: &Agent, ground: &Ground) {
    let mut all = Table::default();
    for _ in 0..ROUNDS {
        by_hand(ground, &mut all).await;
        all.add(COLD, start(&agent.build("cold"), false));
        let seen = agent.log().len();
        all.add(FROZEN, start(&agent.build("frozen"), true));
        let resumed = agent.logged(seen, READ);
        let resumed = resumed.duration_since(agent.logged(seen, ANSWERS));
        all.add(RESUME, resumed.try_into().unwrap());
        by_parts(ground, "cold", BootMode::Cold, &mut all).await;
        by_parts(ground, "frozen", BootMode::Restore, &mut all).await;
    }
    freezing(ground, &mut all).await;
    let accelerator = accelerator(Acceleration::Auto).unwrap();
    title(&format!("virtual machines, {accelerator:?}"));
    let hand = all.print(BY_HAND);
    let cold = all.print(COLD);
    let frozen = all.print(FROZEN);
    all.print(FREEZING);
    println!("     cold     frozen   part, done by itself");
    for part in PARTS {
        let [cold, frozen] = ["cold", "frozen"].map(|start| all.median(&key(start, part)).unwrap());
        println!("{:>9.1} {:>10.1} ms  {part}", cold * 1e3, frozen * 1e3);
    }
    let resume = all.median(RESUME).unwrap() * 1e3;
    println!("        – {resume:>10.1} ms  in QEMU's part: resume, reading the state");
    at_most("cold start / by hand", cold / hand, 1.05, "");
    if accelerator == Accelerator::Tcg {
        at_most("frozen start / cold start", frozen / cold, 0.15, "");
    } else {
        println!("      frozen start / cold start: {:.2}", frozen / cold);
    }
}

fn key(start: &str, part: &str) -> String {
    format!("{start}: {part}")
}

/// From the submission of a build to its guest's first packet.
pub(crate) fn start(build: &Build, frozen: bool) -> std::time::Duration {
    assert_eq!(
        build.restored, frozen,
        "{} started otherwise",
        build.machine
    );
    let contacted = build.first_contact().unwrap();
    contacted
        .duration_since(build.submitted)
        .try_into()
        .unwrap()
}

/// QEMU as a person would start it: the same hardware, as root, by paths. Its ports
/// have other names, so that its worker does not wait to be let begin.
async fn by_hand(ground: &Ground, all: &mut Table) {
    let (taken, run) = (ground.snapshot("cold"), tempfile::tempdir().unwrap());
    let net = Net::new("hand", Cable::Tap);
    let ear = net.ear();
    let mut qemu = line(&taken, run.path(), &net);
    qemu.stdout(Stdio::null());
    let began = Instant::now();
    let mut child = net.get().enter(|| qemu.spawn()).unwrap();
    let answering = tokio::spawn(answer(run.path().join(CONTROL)));
    first_packet(&ear).await;
    all.add(BY_HAND, began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    answering.await.unwrap();
}

/// Lets the worker begin when it is ready, as the agent does.
async fn answer(control: PathBuf) {
    let stream = loop {
        match UnixStream::connect(&control).await {
            Ok(stream) => break stream,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    handshake::serve(stream, HandshakeMode::Cold).await;
}

fn line(taken: &Taken<'_>, run: &Path, net: &Net) -> Command {
    let spec = taken.spec(run, net, BootMode::Cold);
    let path = |name: &str| taken.path().join(name).display().to_string();
    let disk = path(spec.machine.disk.as_str());
    let boot = spec.machine.boot.as_ref().unwrap();
    let initrd = boot.initrd.as_ref().unwrap();
    let (kernel, initrd) = (path(boot.kernel.as_str()), path(initrd.as_str()));
    let accelerator = accelerator(spec.acceleration).unwrap();
    let mut qemu = command::prepare("qemu-system-x86_64");
    let mut words = arguments(&spec, accelerator).into_iter();
    while let Some(word) = words.next() {
        let word = word.into_string().unwrap();
        match word.as_str() {
            "-S" => {}
            "-sandbox" | "-add-fd" => drop(words.next()),
            "-chardev" => {
                let socket = words.next().unwrap().into_string().unwrap();
                let id = socket.split(',').nth(1).unwrap();
                let device = match id {
                    "id=control" => {
                        let path = run.join(CONTROL);
                        format!("socket,{id},path={},server=on,wait=off", path.display())
                    }
                    _ => format!("null,{id}"),
                };
                qemu.args(["-chardev", &device]);
            }
            "-netdev" => {
                words.next();
                let tap = "tap,id=net,ifname=guest0,script=no,downscript=no";
                qemu.args(["-netdev", tap]);
            }
            _ => {
                let word = word.replace("/dev/fdset/1", &disk);
                let word = word.replace("/proc/self/fd/8", &kernel);
                let word = word.replace("/proc/self/fd/9", &initrd);
                qemu.arg(word);
            }
        }
    }
    qemu
}

/// Starts a guest as the agent does, one part after the other.
async fn by_parts(ground: &Ground, start: &str, boot: BootMode, all: &mut Table) {
    let run = tempfile::tempdir().unwrap();
    let mut began = Instant::now();
    let mut lap = |part: &str| {
        all.add(&key(start, part), began.elapsed());
        began = Instant::now();
    };
    let taken = ground.snapshot(start);
    lap(PARTS[0]);
    let net = Net::new("parts", Cable::Tap);
    lap(PARTS[1]);
    let ear = net.ear();
    let spec = taken.spec(run.path(), &net, boot);
    let guest = Guest::start(spec).await.unwrap();
    lap(PARTS[2]);
    let manner = match boot {
        BootMode::Restore => HandshakeMode::Restore,
        BootMode::Cold | BootMode::CheckpointSource => HandshakeMode::Cold,
    };
    let control = guest.control().unwrap().unwrap();
    let attending = tokio::spawn(handshake::serve(control, manner));
    first_packet(&ear).await;
    lap(PARTS[3]);
    guest.end().await.unwrap();
    attending.await.unwrap();
}

/// Freezes a guest as the agent does when it has made an image.
async fn freezing(ground: &Ground, all: &mut Table) {
    let (taken, run) = (ground.snapshot("cold"), tempfile::tempdir().unwrap());
    let net = Net::new("freezing", Cable::Tap);
    let spec = taken.spec(run.path(), &net, BootMode::CheckpointSource);
    let guest = Guest::start(spec).await.unwrap();
    let (sender, ready) = oneshot::channel();
    let control = guest.control().unwrap().unwrap();
    tokio::spawn(handshake::serve(
        control,
        HandshakeMode::CheckpointSource(sender),
    ));
    let ready = tokio::time::timeout(LIMIT, ready).await;
    ready.unwrap().unwrap();
    let began = Instant::now();
    guest.freeze(taken.path()).await.unwrap();
    all.add(FREEZING, began.elapsed());
}
