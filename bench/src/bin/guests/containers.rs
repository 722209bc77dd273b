//! The startup of containers, from the submission of a build to the worker's first packet, compared
//! with systemd-nspawn in a plain network without user namespaces.

use std::process::Stdio;
use std::time::Instant;

use bench::agent_process::AgentProcess;
use bench::guest_fixture::{GuestNetwork, Machines, first_packet};
use bench::statistics::Timings;
use bench::table::print_title;
use config::builds::StartKind;
use guest::network::LinkType;
use guest::{BootMode, Guest};
use sys::command;

use crate::startup::startup_duration;

const ROUNDS: usize = 7;
const MACHINE: &str = "container";

const REFERENCE: &str = "plain systemd-nspawn, to the worker's first packet";
const BUILD: &str = "a build, from its submission to the worker's first packet";
const PARTS: [&str; 4] = [
    "part: snapshot",
    "part: network",
    "part: systemd-nspawn, to its record",
    "part: systemd-nspawn and the guest, to the worker's first packet",
];

/// Measures the startup of builds, of the reference, and of the parts of a build.
pub(crate) async fn compare(agent: &AgentProcess, machines: &Machines) {
    let mut timings = Timings::default();
    for _ in 0..ROUNDS {
        start_reference(machines, &mut timings).await;
        let build = agent.build(MACHINE);
        timings.add(BUILD, startup_duration(&build, StartKind::Cold));
        start_by_parts(machines, &mut timings).await;
    }
    print_title("containers");
    let reference = timings.print_median(REFERENCE);
    let build = timings.print_median(BUILD);
    for part in PARTS {
        timings.print_median(part);
    }
    println!("      build / reference: {:.2}", build / reference);
}

async fn start_reference(machines: &Machines, timings: &mut Timings) {
    let snapshot = machines.snapshot(MACHINE);
    let network = GuestNetwork::new("reference", LinkType::Tap);
    let socket = network.bind_tftp();
    let mut nspawn = command::prepare("systemd-nspawn");
    nspawn.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
    // If the host is a guest itself, the worker would wait for the host's virtio ports.
    nspawn.arg("--tmpfs=/sys/class");
    nspawn.arg(format!(
        "--network-namespace-path=/run/netns/{}",
        network.get().name()
    ));
    nspawn.arg("-D").arg(snapshot.path().join("root"));
    nspawn.arg("/sbin/init").stdout(Stdio::null());
    let began = Instant::now();
    let mut child = nspawn.spawn().unwrap();
    first_packet(&socket).await;
    timings.add(REFERENCE, began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn start_by_parts(machines: &Machines, timings: &mut Timings) {
    let run = tempfile::tempdir().unwrap();
    let mut began = Instant::now();
    let mut end_part = |part: &str| {
        timings.add(part, began.elapsed());
        began = Instant::now();
    };
    let snapshot = machines.snapshot(MACHINE);
    end_part(PARTS[0]);
    let network = GuestNetwork::new("container", LinkType::Veth);
    end_part(PARTS[1]);
    let socket = network.bind_tftp();
    let spec = snapshot.spec(run.path(), &network, BootMode::Cold);
    let guest = Guest::start(spec).unwrap();
    end_part(PARTS[2]);
    first_packet(&socket).await;
    end_part(PARTS[3]);
    guest.kill_and_wait().unwrap();
}
