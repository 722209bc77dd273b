//! Guests: real QEMU in a real network with a shell script as the worker.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::sys::observer::Observer;
use config::machine::{Kind, Machine};
use config::settings::{Acceleration, Settings};
use config::task::GATEWAY;
use guest::gateway::Offers;
use guest::{BootMode, Console, Exit, Guest, GuestError, QmpError, Spec, User, checkpoint};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use session::GuestSecrets;
use session::gateway::dhcp;
use session::handshake::{self, HandshakeMode};
use tempfile::TempDir;
use tests::net::Net;
use tests::wait_until;
use tftp::server::{Event, Namespace, Server};
use tokio::sync::mpsc;

/// The time limit for each step of a guest.
pub(crate) const LIMIT: Duration = Duration::from_mins(4);
const USER: User = User {
    uid: 1_900_000_000,
    gid: 1_900_000_000,
};

/// The files, the network and the run directory of a guest, and what it puts.
pub(crate) struct GuestFixture {
    pub(crate) net: Net,
    pub(crate) run: TempDir,
    pub(crate) machine: (TempDir, Machine),
    put: TempDir,
}

impl GuestFixture {
    pub(crate) fn new(script: &str) -> Self {
        Self::of(tests::scripted_machines::machine(script))
    }

    pub(crate) fn container(script: &str) -> Self {
        Self::of(tests::scripted_machines::container(script))
    }

    pub(crate) fn of(machine: (TempDir, Machine)) -> Self {
        Self {
            net: Net::with(machine.1.kind.into()),
            run: tempfile::tempdir().unwrap(),
            machine,
            put: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn spec(&self) -> Spec {
        let (directory, machine) = &self.machine;
        spec(
            directory.path(),
            machine.clone(),
            self.run.path(),
            self.net.name(),
        )
    }

    pub(crate) fn start(&self) -> Guest {
        Guest::start(self.spec()).unwrap()
    }

    pub(crate) fn serve(&self) -> (Server, mpsc::Receiver<Event>) {
        let mut map = Namespace::new(10 << 20, 10);
        map.offer("task.manifest", ": 1\nbuild: 42\n".to_owned());
        let result = self.put.path().join("result.manifest");
        map.accept("result.manifest", result, 1 << 20);
        map.accept_below("artifacts/", self.put.path().to_owned(), 8 << 20);
        let (sender, events) = mpsc::channel(64);
        let address = format!("{GATEWAY}:69").parse().unwrap();
        let server = self
            .net
            .enter(|| Server::start(&[address], map, sender))
            .unwrap();
        (server, events)
    }
}

fn spec(directory: &Path, machine: Machine, run_dir: &Path, network: &str) -> Spec {
    Spec {
        name: "test".to_owned(),
        directory: directory.to_owned(),
        machine,
        user: USER,
        run_dir: run_dir.to_owned(),
        network: network.to_owned(),
        port: None,
        acceleration: Acceleration::Auto,
        uefi: Settings::parse("").unwrap().guests.uefi,
        durable: false,
        boot: BootMode::Cold,
        shared_memory: None,
        paused: false,
        keep_open: Vec::new(),
    }
}

/// Returns the output of a console.
pub(crate) fn output(console: io::Result<Console>) -> File {
    match console.unwrap() {
        Console::Socket(socket) => OwnedFd::from(socket).into(),
        Console::Pipes { output, .. } => output,
    }
}

/// Reads the output of a guest to its end, on a thread of its own.
pub(crate) fn read(mut output: File) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // The read fails when QEMU ends. What it has printed before counts.
        let _ = output.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// Reads the output of a guest until it contains a text, and returns everything read.
pub(crate) fn wait_for(output: &mut File, expected: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    let mut all = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap();
        let ready = poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&left));
        assert_ne!(ready.unwrap(), 0, "the output lacks {expected}");
        let mut buffer = [0; 1024];
        let count = output.read(&mut buffer).unwrap();
        assert!(count > 0, "the output ended without {expected}");
        all.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&all);
        if text.contains(expected) {
            return text.into_owned();
        }
    }
}

/// Waits for the guest's next event.
pub(crate) fn next_event(events: &mut mpsc::Receiver<Event>) -> Event {
    let mut event = None;
    wait_until("an event", || {
        event = events.try_recv().ok();
        event.is_some()
    });
    event.unwrap()
}

/// Runs an async server of the agent on a thread of its own, for as long as the test runs.
pub(crate) fn run_in_background<F: Future>(server: impl FnOnce() -> F + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            server().await;
        });
    });
}

/// Serves the control port of a guest as the agent does.
pub(crate) fn serve_control_port(guest: &Guest, mode: HandshakeMode) {
    let control = guest.control().unwrap().unwrap();
    control.set_nonblocking(true).unwrap();
    run_in_background(|| {
        let control = tokio::net::UnixStream::from_std(control).unwrap();
        handshake::serve(control, mode, Observer::default(), GuestSecrets::default())
    });
}

/// Returns the events up to the put of `result.manifest`, which every script does last.
pub(crate) fn events_until_result(events: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    let mut received = Vec::new();
    loop {
        let event = events.blocking_recv().unwrap();
        let is_result = matches!(&event, Event::Put { name, .. } if name == "result.manifest");
        received.push(event);
        if is_result {
            return received;
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_shell_script_can_be_the_worker() {
    let fixture = GuestFixture::new(
        "tftp -g -r task.manifest $host && cat task.manifest
         for port in /sys/class/virtio-ports/*; do
             [ \"$(cat \"$port/name\")\" = buildhost.log ] && echo working >/dev/${port##*/}
         done
         echo ': 1' >result.manifest
         dd if=/dev/urandom of=big bs=1M count=4
         tftp -b 1428 -p -l big -r artifacts/big $host
         tftp -p -l result.manifest $host",
    );
    let (_server, mut events) = fixture.serve();
    let guest = fixture.start();
    let (console, log) = (
        read(output(guest.console())),
        read(OwnedFd::from(guest.log().unwrap().unwrap()).into()),
    );
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap();
    let uid = USER.uid;
    assert_eq!(line("Uid:"), format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
    assert_eq!(line("Groups:").trim_end(), "Groups:");
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert!(line(capabilities).ends_with("\t0000000000000000"));
    }
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1");
    assert!(line("Seccomp:").ends_with('2'));
    assert_eq!(fixture.net.processes().unwrap(), [guest.pid()]);
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
    let console = console.join().unwrap();
    assert!(console.contains("build: 42"), "{console}");
    assert_eq!(log.join().unwrap().trim_end(), "working");
    let received = events_until_result(&mut events);
    let put = |name: &str, file: &str, bytes| Event::Put {
        name: name.to_owned(),
        path: fixture.put.path().join(file),
        bytes,
    };
    let expected = [
        Event::FirstContact,
        Event::Fetched {
            name: "task.manifest".into(),
            bytes: 14,
        },
        put("artifacts/big", "big", 4 << 20),
        put("result.manifest", "result.manifest", 4),
    ];
    assert_eq!(received, expected);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_can_be_adopted_and_stopped_or_killed() {
    let fixture = GuestFixture::new("echo up; while :; do sleep 1; done");
    assert!(Guest::find(fixture.run.path()).unwrap().is_none());
    for kill in [false, true] {
        let guest = fixture.start();
        let mut console = output(guest.console());
        wait_for(&mut console, "up");
        let found = Guest::find(fixture.run.path()).unwrap().unwrap();
        assert_eq!(found.pid(), guest.pid());
        drop(guest);
        found.suspend().unwrap();
        found.resume().unwrap();
        if kill {
            found.kill();
            assert_eq!(found.wait(LIMIT), Some(Exit::Signal(9)));
        } else {
            // The guest ignores its power button, so QEMU is told to quit.
            let exit = found.stop(Duration::from_millis(50)).unwrap();
            assert_eq!(exit, Exit::Code(0));
        }
        assert!(Guest::find(fixture.run.path()).unwrap().is_none());
        assert!(fixture.net.processes().unwrap().is_empty());
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_that_cannot_start_gives_the_reason_and_leaves_no_process() {
    let fixture = GuestFixture::new("");
    let path = |name: &str| fixture.machine.0.path().join(name);
    let start = || Guest::start(fixture.spec()).unwrap_err();
    fs::rename(path("vmlinuz"), path("backup")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path("vmlinuz")).unwrap();
    assert!(matches!(start(), GuestError::Open { path, .. } if path.ends_with("vmlinuz")));
    fs::remove_file(path("vmlinuz")).unwrap();
    fs::File::create(path("vmlinuz")).unwrap();
    let error = start();
    assert!(matches!(error, GuestError::Program { .. }), "{error}");
    assert!(error.to_string().contains("kernel"), "{error}");
    assert!(fixture.net.processes().unwrap().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_gets_its_address_by_dhcp_and_reaches_both_addresses_of_the_host() {
    let fixture = GuestFixture::new(
        "ip address flush dev eth0
         cat >/lease <<'SCRIPT'
#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip address add \"$ip/24\" dev \"$interface\"
ip route add default via \"$router\"
SCRIPT
         chmod +x /lease
         udhcpc -i eth0 -s /lease -n -q
         tftp -g -r task.manifest 196.254.111.222 && cat task.manifest",
    );
    let sockets = fixture
        .net
        .enter(|| guest::gateway::bind(Kind::Kvm, Offers::default()))
        .unwrap();
    run_in_background(|| dhcp::serve(sockets.dhcp).unwrap());
    let mut map = Namespace::new(0, 0);
    map.offer("task.manifest", ": 1\nbuild: 42\n".to_owned());
    let address = format!("{}:69", config::task::GATEWAY_BUILD2)
        .parse()
        .unwrap();
    let (sender, _events) = mpsc::channel(64);
    let _server = fixture
        .net
        .enter(|| Server::start(&[address], map, sender))
        .unwrap();
    let guest = fixture.start();
    let console = read(output(guest.console()));
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
    let console = console.join().unwrap();
    assert!(console.contains("build: 42"), "{console}");
}

/// A script that waits for the start message, as a worker must for a checkpoint. Each restored
/// guest receives a message of its own.
pub(crate) const WAIT_FOR_START: &str = "
for port in /sys/class/virtio-ports/*; do
    [ \"$(cat \"$port/name\")\" = buildhost.control ] && exec 3<>/dev/${port##*/}
done
echo waiting
echo ready >&3
until read -r go time random <&3; do sleep 0.1; done
date -u -s \"@${time%.*}\" >/dev/null
echo \"random $random time $(date +%s)\"
tftp -g -r task.manifest $host && cat task.manifest
";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn guests_restored_from_one_checkpoint_have_different_random_bytes_and_know_the_time() {
    let image = GuestFixture::new(WAIT_FOR_START);
    let directory = image.machine.0.path();
    let began = Instant::now();
    let mut spec = image.spec();
    spec.boot = BootMode::CheckpointSource;
    let guest = Guest::start(spec).unwrap();
    wait_for(&mut output(guest.console()), "waiting");
    println!("cold: {:.2?} to the waiting worker", began.elapsed());
    assert!(!checkpoint::exists(directory));
    let began = Instant::now();
    guest.checkpoint(directory).unwrap();
    println!("checkpoint: {:.2?}", began.elapsed());
    assert!(checkpoint::exists(directory));
    let memory = fs::read(directory.join("frozen.memory")).unwrap();
    let shared = checkpoint::seal_memory(directory).unwrap();
    let mut consoles = Vec::new();
    for shared_memory in [None, Some(shared.clone()), Some(shared)] {
        let fixture = GuestFixture::of((copy(directory), image.machine.1.clone()));
        let (_server, mut events) = fixture.serve();
        let mut spec = fixture.spec();
        spec.boot = BootMode::Restore;
        spec.shared_memory = shared_memory;
        let is_shared = spec.shared_memory.is_some();
        let began = Instant::now();
        let guest = Guest::start(spec).unwrap();
        assert_eq!(shows_only_its_user(&guest), is_shared);
        println!("restore: {:.2?} to a running guest", began.elapsed());
        serve_control_port(&guest, HandshakeMode::Restore);
        let console = read(output(guest.console()));
        assert_eq!(next_event(&mut events), Event::FirstContact);
        println!("restore: {:.2?} to the first packet", began.elapsed());
        assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
        consoles.push(console.join().unwrap());
        let after = fs::read(fixture.machine.0.path().join("frozen.memory")).unwrap();
        assert!(after == memory, "the memory file of the checkpoint changed");
    }
    let field = |text: &str, name: &str| -> String {
        let mut words = text.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap().to_owned()
    };
    let random: Vec<_> = consoles.iter().map(|text| field(text, "random")).collect();
    assert_ne!(
        random[0], random[1],
        "both guests drew the same random bytes"
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for text in &consoles {
        assert!(text.contains("build: 42"), "{text}");
        let time: u64 = field(text, "time").parse().unwrap();
        assert!(now.abs_diff(time) < 30, "{text}");
    }
}

/// Returns true if a guest's QEMU sees processes: only those of its own user.
fn shows_only_its_user(guest: &Guest) -> bool {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", guest.pid())).unwrap();
    let Some(processes) = mounts.lines().find(|line| line.contains(" /proc ")) else {
        return false;
    };
    for option in ["subset=pid", "hidepid=invisible", "nosuid", "noexec"] {
        assert!(processes.contains(option), "{processes}");
    }
    true
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_checkpoint_that_is_missing_or_does_not_fit_is_not_restored() {
    if let Some(paths) = std::env::var_os(RESTORED) {
        return restore_in_this_process(paths.to_str().unwrap());
    }
    let fixture = GuestFixture::new(WAIT_FOR_START);
    let directory = fixture.machine.0.path();
    let spec = |boot| Spec {
        boot,
        ..fixture.spec()
    };
    let restore = || Guest::start(spec(BootMode::Restore)).unwrap_err();
    assert!(matches!(restore(), GuestError::Open { .. }));
    let guest = Guest::start(spec(BootMode::CheckpointSource)).unwrap();
    wait_for(&mut output(guest.console()), "waiting");
    assert!(matches!(restore(), GuestError::Running(_)));
    guest.checkpoint(directory).unwrap();
    let found = restore_and_be_killed(&fixture);
    let error = found.resume().unwrap_err();
    assert!(matches!(error, QmpError::State("load")), "{error}");
    found.kill_and_wait().unwrap();
    let key = fs::read(directory.join("frozen.key")).unwrap();
    sys::file::replace(&directory.join("frozen.key"), b"another QEMU").unwrap();
    assert!(matches!(restore(), GuestError::StaleCheckpoint));
    sys::file::replace(&directory.join("frozen.key"), &key).unwrap();
    sys::file::replace(&directory.join("frozen.state"), &vec![7; 100_000]).unwrap();
    let error = restore();
    assert!(matches!(error, GuestError::Program { .. }), "{error}");
    checkpoint::discard(directory).unwrap();
    assert!(!checkpoint::exists(directory));
    assert!(fixture.net.processes().unwrap().is_empty());
}

/// The variable with the paths and the network of a guest to restore, for a copy of this
/// test's process.
const RESTORED: &str = "BUILDHOST_TEST_RESTORED";

/// Restores a guest in a process that is killed before QEMU has loaded the state.
fn restore_and_be_killed(fixture: &GuestFixture) -> Guest {
    let (directory, run_dir) = (fixture.machine.0.path(), fixture.run.path());
    tests::write_file(
        &directory.join("manifest"),
        tests::scripted_machines::MANIFEST,
    );
    let network = fixture.net.name();
    let paths = format!("{}:{}:{network}", directory.display(), run_dir.display());
    let test = "guests::a_checkpoint_that_is_missing_or_does_not_fit_is_not_restored";
    let mut copy = sys::command::prepare(std::env::current_exe().unwrap());
    copy.args(["--exact", test, "--ignored", "--nocapture"])
        .env(RESTORED, paths);
    let mut copy = copy.spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let found = loop {
        if let Some(found) = Guest::find(run_dir).unwrap() {
            break found;
        }
        assert!(Instant::now() < deadline, "no guest was started");
        thread::yield_now();
    };
    copy.kill().unwrap();
    copy.wait().unwrap();
    found
}

fn restore_in_this_process(paths: &str) {
    let [directory, run_dir, network] = paths.split(':').collect::<Vec<_>>()[..] else {
        panic!("{paths}");
    };
    let manifest = fs::read_to_string(Path::new(directory).join("manifest")).unwrap();
    let machine = Machine::parse(&manifest).unwrap();
    let mut spec = spec(directory.as_ref(), machine, run_dir.as_ref(), network);
    spec.boot = BootMode::Restore;
    let _ = Guest::start(spec);
    panic!("the guest was restored before this process was killed");
}

/// Copies a directory, as a snapshot does.
pub(crate) fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_powers_off_when_its_power_button_is_pressed() {
    let fixture = GuestFixture::new(
        "mkdir -p /etc/acpi/PWRF
         printf '#!/bin/sh\npoweroff -f\n' >/etc/acpi/PWRF/00000080
         chmod +x /etc/acpi/PWRF/00000080
         acpid -l /dev/console
         echo up; while :; do sleep 1; done",
    );
    let guest = fixture.start();
    wait_for(&mut output(guest.console()), "up");
    // The button has no effect until acpid listens.
    let exit = loop {
        guest.power_down().unwrap();
        let second = Duration::from_secs(1);
        if let Some(exit) = guest.wait(second) {
            break exit;
        }
    };
    assert_eq!(exit, Exit::Code(0));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_that_hangs_can_be_stopped() {
    let fixture = GuestFixture::new("echo up; while :; do sleep 1; done");
    sys::file::replace(
        &fixture.machine.0.path().join("disk.img"),
        &vec![7; 1 << 20],
    )
    .unwrap();
    let guest = fixture.start();
    wait_for(&mut output(guest.console()), "up");
    let mut kill = sys::command::prepare("kill");
    kill.args(["-STOP", &guest.pid().to_string()]);
    sys::command::run(kill, LIMIT).unwrap();
    let exit = guest.stop(Duration::from_millis(50)).unwrap();
    assert_eq!(exit, Exit::Signal(9));
    assert!(fixture.net.processes().unwrap().is_empty());
}
