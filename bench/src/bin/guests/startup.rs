//! The startup of virtual machines, from the submission of a build to the worker's first packet:
//! cold and restored, compared with the same QEMU without an agent, and divided into parts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::agent_process::AgentProcess;
use bench::guest_fixture::{GuestNetwork, GuestSnapshot, LIMIT, Machines, first_packet};
use bench::statistics::Timings;
use bench::table::{print_at_most, print_title};
use config::builds::{Build, StartKind};
use config::settings::Acceleration;
use config::task::Preload;
use guest::network::LinkType;
use guest::{Accelerator, BootMode, Guest, accelerator, command_line};
use session::GuestSecrets;
use session::handshake::{self, HandshakeMode};
use sys::command;
use sys::observer::Observer;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

const ROUNDS: usize = 5;

const REFERENCE: &str = "the same QEMU without an agent, to the worker's first packet";
const COLD: &str = "a build, cold start, from its submission to the worker's first packet";
const RESTORED: &str = "a build, warm start, from its submission to the worker's first packet";
const CHECKPOINT: &str = "a checkpoint of a guest that is ready";

/// The name of the socket of the control port.
const CONTROL: &str = "control";

/// The messages in the agent's log about the restore of a checkpoint.
const ANSWERS: &str = "connected to QEMU's monitor";
const READ: &str = "QEMU loaded the state of the checkpoint";
const LOAD: &str = "load";

/// The parts of a startup in their order.
const PARTS: [&str; 4] = [
    "snapshot",
    "network",
    "QEMU, to running processors",
    "the guest, to the worker's first packet",
];

/// Measures the startup of builds, of the reference, and of the parts of a build.
pub(crate) async fn compare(agent: &AgentProcess, machines: &Machines) {
    let mut timings = Timings::default();
    for _ in 0..ROUNDS {
        start_reference(machines, &mut timings).await;
        let cold = agent.build("cold");
        timings.add(COLD, startup_duration(&cold, StartKind::Cold));
        let log_length = agent.log().len();
        let restored = agent.build("frozen");
        timings.add(RESTORED, startup_duration(&restored, StartKind::Restored));
        let answered = agent.logged_at(log_length, ANSWERS);
        let loaded = agent.logged_at(log_length, READ).duration_since(answered);
        timings.add(LOAD, loaded.try_into().unwrap());
        start_by_parts(machines, "cold", BootMode::Cold, &mut timings).await;
        start_by_parts(machines, "frozen", BootMode::Restore, &mut timings).await;
    }
    take_checkpoint(machines, &mut timings).await;
    let accelerator = accelerator(Acceleration::Auto).unwrap();
    print_title(&format!("virtual machines, {accelerator:?}"));
    let reference = timings.print_median(REFERENCE);
    let cold = timings.print_median(COLD);
    let restored = timings.print_median(RESTORED);
    timings.print_median(CHECKPOINT);
    println!("     cold       warm   part of the startup, measured separately");
    for part in PARTS {
        let [cold, restored] =
            ["cold", "frozen"].map(|machine| timings.median(&key(machine, part)).unwrap());
        println!("{:>9.1} {:>10.1} ms  {part}", cold * 1e3, restored * 1e3);
    }
    let load = timings.median(LOAD).unwrap() * 1e3;
    println!("        – {load:>10.1} ms  within QEMU's part: loading the checkpoint");
    print_at_most("cold start / reference", cold / reference, 1.05, "");
    if accelerator == Accelerator::Tcg {
        print_at_most("warm start / cold start", restored / cold, 0.15, "");
    } else {
        println!("      warm start / cold start: {:.2}", restored / cold);
    }
}

fn key(machine: &str, part: &str) -> String {
    format!("{machine}: {part}")
}

/// Returns the time from the submission of a build to its guest's first packet, and checks the kind
/// of the start.
pub(crate) fn startup_duration(build: &Build, expected: StartKind) -> Duration {
    let is_restored = expected == StartKind::Restored;
    let machine = &build.machine;
    assert_eq!(
        build.restored, is_restored,
        "{machine} did not start {expected}"
    );
    let contact = build.first_contact().unwrap();
    contact.duration_since(build.submitted).try_into().unwrap()
}

/// Starts QEMU without an agent: with the same hardware, as root, with paths instead of
/// descriptors.
async fn start_reference(machines: &Machines, timings: &mut Timings) {
    let (snapshot, run) = (machines.snapshot("cold"), tempfile::tempdir().unwrap());
    let network = GuestNetwork::new("reference", LinkType::Tap);
    let socket = network.bind_tftp();
    let mut qemu = reference_command(&snapshot, run.path(), &network);
    qemu.stdout(Stdio::null());
    let began = Instant::now();
    let mut child = network.get().enter(|| qemu.spawn()).unwrap();
    let handshake = tokio::spawn(serve_handshake(run.path().join(CONTROL)));
    first_packet(&socket).await;
    timings.add(REFERENCE, began.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    handshake.await.unwrap();
}

/// Sends the start message when the worker is ready, as the agent does.
async fn serve_handshake(control: PathBuf) {
    let stream = loop {
        match UnixStream::connect(&control).await {
            Ok(stream) => break stream,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    handshake::serve(
        stream,
        HandshakeMode::Cold,
        Observer::default(),
        GuestSecrets::default(),
    )
    .await;
}

/// Returns the agent's command line of QEMU, with paths instead of descriptors and without the
/// sandbox.
fn reference_command(snapshot: &GuestSnapshot<'_>, run: &Path, network: &GuestNetwork) -> Command {
    let spec = snapshot.spec(run, network, BootMode::Cold);
    let path = |name: &str| snapshot.path().join(name).display().to_string();
    let disk = path(spec.machine.disk.as_str());
    let boot = spec.machine.boot.as_ref().unwrap();
    let initrd = boot.initrd.as_ref().unwrap();
    let (kernel, initrd) = (path(boot.kernel.as_str()), path(initrd.as_str()));
    let accelerator = accelerator(spec.acceleration).unwrap();
    let mut qemu = command::prepare("qemu-system-x86_64");
    let mut arguments = command_line(&spec, accelerator).into_iter();
    while let Some(argument) = arguments.next() {
        let argument = argument.into_string().unwrap();
        match argument.as_str() {
            "-S" => {}
            "-sandbox" | "-add-fd" => drop(arguments.next()),
            "-chardev" => {
                let socket = arguments.next().unwrap().into_string().unwrap();
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
                arguments.next();
                let tap = "tap,id=net,ifname=guest0,script=no,downscript=no";
                qemu.args(["-netdev", tap]);
            }
            _ => {
                let argument = match argument.as_str() {
                    "/kernel" => kernel.clone(),
                    "/initrd" => initrd.clone(),
                    _ => argument.replace("/dev/fdset/1", &disk),
                };
                qemu.arg(argument);
            }
        }
    }
    qemu
}

/// Starts a guest as the agent does, one part after the other.
async fn start_by_parts(machines: &Machines, machine: &str, boot: BootMode, timings: &mut Timings) {
    let run = tempfile::tempdir().unwrap();
    let mut began = Instant::now();
    let mut end_part = |part: &str| {
        timings.add(&key(machine, part), began.elapsed());
        began = Instant::now();
    };
    let snapshot = machines.snapshot(machine);
    end_part(PARTS[0]);
    let network = GuestNetwork::new("parts", LinkType::Tap);
    end_part(PARTS[1]);
    let socket = network.bind_tftp();
    let spec = snapshot.spec(run.path(), &network, boot);
    let guest = Guest::start(spec).unwrap();
    end_part(PARTS[2]);
    let mode = match boot {
        BootMode::Restore => HandshakeMode::Restore,
        BootMode::Cold | BootMode::CheckpointSource => HandshakeMode::Cold,
    };
    let control = connect_control(&guest);
    let handshake = tokio::spawn(handshake::serve(
        control,
        mode,
        Observer::default(),
        GuestSecrets::default(),
    ));
    first_packet(&socket).await;
    end_part(PARTS[3]);
    guest.kill_and_wait().unwrap();
    handshake.await.unwrap();
}

/// Takes a checkpoint of a guest, as the agent does after a bootstrap.
async fn take_checkpoint(machines: &Machines, timings: &mut Timings) {
    let (snapshot, run) = (machines.snapshot("cold"), tempfile::tempdir().unwrap());
    let network = GuestNetwork::new("checkpoint", LinkType::Tap);
    let spec = snapshot.spec(run.path(), &network, BootMode::CheckpointSource);
    let guest = Guest::start(spec).unwrap();
    let (sender, ready) = oneshot::channel();
    let control = connect_control(&guest);
    tokio::spawn(handshake::serve(
        control,
        HandshakeMode::CheckpointSource(Preload::default(), sender),
        Observer::default(),
        GuestSecrets::default(),
    ));
    let ready = tokio::time::timeout(LIMIT, ready).await;
    ready.unwrap().unwrap();
    let began = Instant::now();
    guest.checkpoint(snapshot.path()).unwrap();
    timings.add(CHECKPOINT, began.elapsed());
}

/// Connects to the control port of a guest.
fn connect_control(guest: &Guest) -> UnixStream {
    let control = guest.control().unwrap().unwrap();
    control.set_nonblocking(true).unwrap();
    UnixStream::from_std(control).unwrap()
}
