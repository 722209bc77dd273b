//! Containers: real systemd-nspawn in a real network with a shell script as the worker, and builds
//! by the agent.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ::sys::command;
use config::builds::State;
use config::machine::Kind;
use config::task::Outcome;
use guest::{BootMode, Console, Exit, Guest, GuestError};
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::{AgentHost, ENDLESS_PROGRAM, GATED_PROGRAM};
use tests::attacks::refused;
use tests::mount::enter_own_namespace;
use tests::wait_until;
use tftp::server::Event;

use crate::guests::{GuestFixture, LIMIT, events_until_result, output, read, wait_for};

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_shell_script_in_a_container_can_be_the_worker() {
    let fixture = GuestFixture::container(
        "tftp -g -r task.manifest $host && cat task.manifest
         echo ': 1' >result.manifest
         tftp -p -l result.manifest $host
         touch /made-inside",
    );
    let (_server, mut events) = fixture.serve();
    let guest = fixture.start();
    assert_eq!(guest.kind(), Kind::Nspawn);
    assert!(guest.log().unwrap().is_none());
    let console = read(output(guest.console()));
    // Children of the container's first process may run as well.
    assert!(fixture.net.processes().unwrap().contains(&guest.pid()));
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
    assert_eq!(guest.take_stderr(), "");
    let console = console.join().unwrap();
    assert!(console.contains("build: 42"), "{console}");
    let received = events_until_result(&mut events);
    assert!(
        matches!(
            &received[..],
            [
                Event::FirstContact,
                Event::Fetched { .. },
                Event::Put { .. }
            ]
        ),
        "{received:?}"
    );
    let directory = fs::metadata(fixture.machine.0.path()).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o777), (0, 0o700));
    let file = fixture.machine.0.path().join("root/made-inside");
    let owner = fs::metadata(file).unwrap().uid();
    assert_eq!(owner, 0, "root of the container is mapped to the owner");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn set_uid_programs_work_in_a_container_on_a_volume_without_them() {
    let fixture = GuestFixture::container("grep ' / ' /proc/mounts; echo umask $(umask) end");
    enter_own_namespace();
    let directory = fixture.machine.0.path();
    for options in ["bind", "remount,bind,nosuid,nodev"] {
        let mut mount = command::prepare("mount");
        mount.args(["-o", options]).args([directory, directory]);
        command::run(mount, LIMIT).unwrap();
    }
    // As the agent sets it.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let guest = fixture.start();
    let console = read(output(guest.console()));
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
    let console = console.join().unwrap();
    assert!(!console.contains("nosuid"), "{console}");
    assert!(console.contains("nodev"), "{console}");
    assert!(console.contains("umask 0022 end"), "{console}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_can_be_adopted_and_ends_with_all_its_processes() {
    let fixture = GuestFixture::container("setsid sleep 4711 & echo up; while :; do sleep 1; done");
    let guest = fixture.start();
    wait_for(&mut output(guest.console()), "up");
    assert!(matches!(
        Guest::start(fixture.spec()),
        Err(GuestError::Running(_))
    ));
    assert!(guest.suspend().is_err());
    drop(guest);
    let found = Guest::find(fixture.run.path()).unwrap().unwrap();
    found.resume().unwrap();
    wait_until("the child runs", || sleepers() == 1);
    let exit = found.stop(Duration::from_millis(50)).unwrap();
    assert!(!exit.is_clean() && sleepers() == 0);
    assert!(Guest::find(fixture.run.path()).unwrap().is_none());
}

/// Counts the processes that only the container of the test above starts.
fn sleepers() -> usize {
    let lines = fs::read_dir("/proc").unwrap().flatten();
    let lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line == b"sleep\x004711\0").count()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_console_of_a_container_accepts_input_also_after_adoption() {
    let fixture = GuestFixture::container(
        r#"echo "the word?"; read -r word; echo "heard $word"
           echo "the other?"; read -r word; echo "heard $word""#,
    );
    let guest = fixture.start();
    let (mut console, mut input) = terminal(&guest);
    wait_for(&mut console, "the word?");
    input.write_all(b"sesame\r").unwrap();
    wait_for(&mut console, "heard sesame");
    drop((guest, console));
    let guest = Guest::find(fixture.run.path()).unwrap().unwrap();
    let (mut console, mut input) = terminal(&guest);
    input.write_all(b"mellon\r").unwrap();
    wait_for(&mut console, "heard mellon");
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
}

/// Returns the output and the input of a container's console.
fn terminal(guest: &Guest) -> (File, File) {
    match guest.console().unwrap() {
        Console::Pipes { output, input } => (output, input.unwrap()),
        Console::Socket(_) => panic!("the guest is no container"),
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_that_cannot_start_gives_the_reason() {
    let fixture = GuestFixture::container("");
    let root = fixture.machine.0.path().join("root");
    fs::remove_dir(root.join("usr")).unwrap();
    let guest = fixture.start();
    assert_eq!(guest.wait(LIMIT), Some(Exit::Code(1)));
    let stderr = guest.take_stderr();
    assert!(stderr.contains("OS tree"), "{stderr}");
    fs::rename(&root, fixture.machine.0.path().join("backup")).unwrap();
    std::os::unix::fs::symlink("/", &root).unwrap();
    // The end of the cable in the first guest has gone with that guest.
    let mut fixture = fixture;
    fixture.net = tests::net::Net::with(Kind::Nspawn.into());
    let error = Guest::start(fixture.spec()).unwrap_err();
    assert!(matches!(error, GuestError::Open { .. }), "{error}");
    let mut spec = fixture.spec();
    spec.boot = BootMode::CheckpointSource;
    let error = Guest::start(spec).unwrap_err();
    assert!(matches!(error, GuestError::Container), "{error}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_cannot_reach_the_host() {
    let fixture = GuestFixture::container(
        "try() { target=$1; shift; if timeout 10 \"$@\" >/dev/null 2>&1; \
                 then echo \"reached $target\"; else echo \"refused $target\"; fi; }
         try gateway nc $host 8585 -e true
         try log nc $host 8586 -e true
         try hashserv nc $host 8686 -e true
         try secret nc $host 9000 -e true
         try outside nc 192.0.2.1 80 -e true
         try ping ping -c 1 -W 2 $host
         try address ip address add 169.254.111.77/24 dev eth0
         try hardware ip link set eth0 address 02:62:68:00:00:77
         try mount mount -t tmpfs none /tmp
         try disk mount -t btrfs /dev/loop0 /tmp
         try device mknod /disk b 7 0
         try tap cat /dev/net/tun
         try clock sh -c 'date -s 2020-01-01; [ \"$(date +%Y)\" = 2020 ]'
         try kernel dmesg
         try sysctl sh -c 'echo 1 >/proc/sys/kernel/panic'
         try sysrq sh -c 'echo b >/proc/sysrq-trigger'
         try module insmod /nothing.ko
         try chmod_suid chown 0:0 /bin/busybox
         [ \"$(ps | wc -l)\" -lt 20 ] && echo \"first is $(cat /proc/1/comm)\"
         read -r _ outside _ </proc/self/uid_map
         [ \"$outside\" -ge 65536 ] && echo \"root is nobody outside\"
         echo \"devices: $(find /dev -type c -o -type b | sort | tr '\\n' ' ')\"
         echo \"hardware: $(ls -A /sys/block; ls -A /sys/class; ls -A /sys/devices)\"
         echo \"group: $(grep -o '::.*' /proc/self/cgroup)\"
         mkfifo /wait
         (while :; do (: </wait) & done) 2>/dev/null
         set -- /proc/[0-9]*; [ $# -lt 4200 ] && echo \"bomb over\"
         read -r never",
    );
    let address = |port| format!("{}:{port}", config::task::GATEWAY).parse().unwrap();
    let _open: Vec<_> = [8585, 8586, 8686, 9000]
        .map(|port| fixture.net.tcp_listener(address(port)).unwrap())
        .into();
    let guest = fixture.start();
    let console = wait_for(&mut output(guest.console()), "bomb over");
    guest.kill_and_wait().unwrap();
    let lines: Vec<_> = console.lines().map(str::trim).collect();
    let expected =
        ["gateway", "log", "hashserv", "chmod_suid"].map(|target| format!("reached {target}"));
    let mut reached = lines.clone();
    reached.retain(|line| line.starts_with("reached "));
    assert_eq!(reached, expected);
    let kept_out = lines
        .iter()
        .filter_map(|line| line.strip_prefix("refused "));
    let count = kept_out.inspect(|it| refused("container -> host", it, "its namespaces"));
    assert_eq!(count.count(), 14);
    for fact in [
        "root is nobody outside",
        "first is init",
        "hardware:",
        "group: ::/",
    ] {
        assert!(lines.contains(&fact), "{fact}");
    }
    let devices = lines.iter().find(|line| line.starts_with("devices:"));
    let harmless = ["full", "null", "random", "tty", "urandom", "zero"];
    let harmless = harmless.map(|name| format!("/dev/{name}"));
    for device in devices.unwrap().split(' ').skip(1) {
        let is_harmless = harmless.iter().any(|path| path == device);
        assert!(device.starts_with("/dev/pts/") || is_harmless, "{device}");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_builds_a_package() {
    let host = AgentHost::ready_with_container("");
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.packages[0].revision, "r0.0");
    assert!(host.log_of(1).contains("hello"), "{}", host.log_of(1));
    let live = fs::read_to_string(host.state_directory().join("builds/1/log")).unwrap();
    assert!(live.contains("build: made hello"), "{live}");
    let console = fs::read_to_string(host.state_directory().join("builds/1/console")).unwrap();
    assert!(console.contains("machine: ready after"), "{console}");

    let id = host.submit_code("demo", "int main(void) { return nonsense; }\n");
    let build = host.wait_for(id, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    assert!(host.log_of(id).contains("nonsense"), "{}", host.log_of(id));
    host.machinectl(&["attach", &id.to_string()])
        .refused(3, &format!("build {id} ran in a container"));
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_login_at_a_breakpoint_gives_a_shell_in_the_container() {
    let host = AgentHost::ready_with_container("");
    let source = host.source("int main(void) { return 0; }\n");
    let mut terminal = host.terminal(&["login", "demo", &source]);
    terminal.wait_for("connected");
    terminal.type_in("\recho it is $((41 + 1)); ls ../sources | wc -l\r");
    terminal.wait_for("it is 42");
    // An interrupt ends the shell's child and no other process of the container.
    let sleep = format!("sleep 10{}", std::process::id());
    terminal.type_in(&format!("{sleep}\r"));
    wait_until("the shell's child runs", || is_running(&sleep));
    terminal.type_in("\x03");
    wait_until("the shell's child has ended", || !is_running(&sleep));
    terminal.type_in("echo and $((42 + 1)); exit\r");
    terminal.wait_for("and 43");
    assert_eq!(terminal.wait(), Some(0));
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    host.machinectl(&["build", "demo", &source, "--hold"])
        .refused(3, "is a container, which cannot be suspended");
    host.wait_until_torn_down();
}

/// Returns true if a process with this command line runs.
fn is_running(line: &str) -> bool {
    let processes = sys::file::entries(Path::new("/proc")).unwrap();
    let mut lines = processes
        .iter()
        .map(|it| fs::read_to_string(it.join("cmdline")));
    lines.any(|found| found.is_ok_and(|found| found.replace('\0', " ").trim() == line))
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_with_additional_options_runs_only_if_the_settings_allow_them() {
    for (settings, outcome) in [
        ("guests.options = \"allow\"\n", Some(Outcome::Success)),
        ("bootstrap.retries_max = 0\n", None),
    ] {
        let mut host = AgentHost::new(settings);
        host.add_container("demo", |files| {
            let path = files.join("manifest");
            let text = fs::read_to_string(&path).unwrap() + "options: --setenv=COLOR=blue\n";
            sys::file::replace(&path, text.as_bytes()).unwrap();
        });
        host.add_toolchain("0.1.0");
        host.start();
        if outcome.is_some() {
            let id = host.submit("demo", "hello");
            assert_eq!(host.wait_for(id, State::Finished).outcome, outcome);
        } else {
            wait_until("the machine is refused", || {
                host.log().contains("set guests.options to")
            });
        }
        host.wait_until_torn_down();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_killed_container_is_retried() {
    let host = AgentHost::ready_with_container("builds.retries_max = 1\n");
    let id = host.submit_code("demo", ENDLESS_PROGRAM);
    for attempt in 1..=2 {
        wait_until("the guest runs", || {
            let build = host.build(id);
            build.attempts == attempt && build.state == State::Running && !host.guests().is_empty()
        });
        for guest in host.guests() {
            kill_process(guest, Signal::KILL).unwrap();
        }
    }
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abnormal), "{build:?}");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_running_container_is_adopted() {
    let mut host = AgentHost::ready_with_container("");
    let id = host.submit_code("demo", GATED_PROGRAM);
    host.wait_for_gate(id);
    let guests: Vec<Pid> = host.guests();
    assert_eq!(guests.len(), 1);
    host.stop(Signal::KILL);
    assert_eq!(host.guests(), guests, "the guest survives the agent");
    host.start();
    host.open_gate("demo", id);
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Success), 1),
        "{build:?}"
    );
    let live = host.state_directory().join(format!("builds/{id}/log"));
    let live = fs::read_to_string(live).unwrap();
    assert!(live.contains("build: made hello"), "{live}");
    host.wait_until_torn_down();
}

/// A worker that reports as build2's does: its result is compressed and contains the log, and its
/// files are in one archive. An LZ4 frame may contain an uncompressed block.
const BUILD2_WORKER: &str = r#"#!/bin/sh
host=196.254.111.222
cd /tmp
put() { tftp -p -l "$1" -r "$1" $host; }
byte() { printf "\\$(printf %03o "$1")"; }
if [ "$1" = bootstrap ]; then
    printf ': 1\nstatus: success\n' >bootstrap.manifest
    put bootstrap.manifest
    exit
fi
tftp -g -r task.manifest $host
mkdir -p upload/bindist
grep '^build: ' task.manifest >upload/bindist/hello.txt
tar -cf upload.tar upload
put upload.tar
cat >result <<'END'
: 1
name: hello
version: 1.0
status: warning
update-status: success
test-status: warning
update-log:\
compiled hello
\
test-log:\
hello is slow
\
worker-checksum: 1
END
size=$(wc -c <result)
{
    printf '\004\042\115\030\140\100\202'
    byte $((size % 256)); byte $((size / 256)); printf '\000\200'
    cat result
    printf '\000\000\000\000'
} >result.manifest.lz4
put result.manifest.lz4
"#;

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_worker_of_build2_is_supported() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    host.add_worker("default", BUILD2_WORKER);
    host.start();
    let id = host.submit("demo", "hello");
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Warning), "{build:?}");
    assert_eq!(
        host.log_of(id),
        "update: success\ncompiled hello\ntest: warning\nhello is slow\n"
    );
    let names: Vec<_> = build
        .artifacts
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(names, ["hello.txt"]);
    let file = host
        .state_directory()
        .join(format!("builds/{id}/artifacts/hello.txt"));
    assert_eq!(fs::read_to_string(file).unwrap(), format!("build: {id}\n"));
    host.wait_until_torn_down();
}
