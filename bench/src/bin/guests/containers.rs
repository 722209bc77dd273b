//! From a task to the worker's first packet in a container: the agent's builds beside
//! nspawn with a plain network, and without users or walls of its own.

use std::process::Stdio;
use std::time::Instant;

use guest::network::Cable;
use guest::{BootMode, Guest};
use sys::command;

use crate::ground::{Ground, Net, first_packet};
use crate::host::Agent;
use crate::starts::start;
use crate::table::{Table, title};

const ROUNDS: usize = 7;
const MACHINE: &str = "container";

const BY_HAND: &str = "bare systemd-nspawn, to the worker's first packet";
const BUILD: &str = "start of a build, from its task to the worker's first packet";
const PARTS: [&str; 4] = [
    "part: snapshot",
    "part: network",
    "part: nspawn, to its record",
    "part: nspawn and the guest, to the worker's first packet",
];

pub(crate) async fn compare(agent: &Agent, ground: &Ground) {
    let mut all = Table::default();
    for _ in 0..ROUNDS {
        by_hand(ground, &mut all).await;
        all.add(BUILD, start(&agent.build(MACHINE), false));
        by_parts(ground, &mut all).await;
    }
    title("containers");
    let hand = all.print(BY_HAND);
    let build = all.print(BUILD);
    for part in PARTS {
        all.print(part);
    }
    println!("      build / bare: {:.2}", build / hand);
}

async fn by_hand(ground: &Ground, all: &mut Table) {
    let taken = ground.snapshot(MACHINE);
    let net = Net::new("bare", Cable::Tap);
    let ear = net.ear();
    let mut nspawn = command::prepare("systemd-nspawn");
    nspawn.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
    // Where the host itself is a guest, the worker would wait for the host's ports.
    nspawn.arg("--tmpfs=/sys/class");
    nspawn.arg(format!(
        "--network-namespace-path=/run/netns/{}",
        net.get().name()
    ));
    nspawn.arg("-D").arg(taken.path().join("root"));
    nspawn.arg("/sbin/init").stdout(Stdio::null());
    let began = Instant::now();
    let mut child = nspawn.spawn().unwrap();
    first_packet(&ear).await;
    all.add(BY_HAND, began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn by_parts(ground: &Ground, all: &mut Table) {
    let run = tempfile::tempdir().unwrap();
    let mut began = Instant::now();
    let mut lap = |part: &str| {
        all.add(part, began.elapsed());
        began = Instant::now();
    };
    let taken = ground.snapshot(MACHINE);
    lap(PARTS[0]);
    let net = Net::new("container", Cable::Pair);
    lap(PARTS[1]);
    let ear = net.ear();
    let spec = taken.spec(run.path(), &net, BootMode::Cold);
    let guest = Guest::start(spec).await.unwrap();
    lap(PARTS[2]);
    first_packet(&ear).await;
    lap(PARTS[3]);
    guest.end().await.unwrap();
}
