//! Containers: real systemd-nspawn in a real network, with a script for a worker, and
//! whole builds through the agent.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use config::builds::State;
use config::machine::Kind;
use config::task::Outcome;
use guest::{BootMode, Exit, Guest, GuestError};
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::AgentHost;
use tests::wait_until;
use tftp::server::Event;

use crate::guests::{Ground, read, wait_for, within};

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_shell_script_in_a_container_is_a_worker() {
    let ground = Ground::container(
        "tftp -g -r task.manifest $host && cat task.manifest
         echo ': 1' >result.manifest
         tftp -p -l result.manifest $host
         touch /made-inside",
    );
    let (_server, mut events) = ground.serve();
    let console = within(async {
        let guest = Guest::start(ground.spec()).await.unwrap();
        assert_eq!(guest.kind(), Kind::Nspawn);
        assert!(guest.log().unwrap().is_none());
        let console = read(guest.console());
        // What it starts may be there by now, too.
        assert!(ground.net.processes().unwrap().contains(&guest.pid()));
        assert_eq!(guest.exited().await, Exit::Code(0));
        assert_eq!(guest.complaints(), "");
        console.await.unwrap()
    });
    assert!(console.contains("build: 42"), "{console}");
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert!(
        matches!(&seen[..], [Event::FirstContact, Event::Fetched { .. }, Event::Put { name, .. }] if name == "result.manifest"),
        "{seen:?}"
    );
    let directory = fs::metadata(ground.machine.0.path()).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o777), (0, 0o700));
    let made = ground.machine.0.path().join("root/made-inside");
    assert_eq!(fs::metadata(made).unwrap().uid(), 0, "mapped, not moved");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_is_found_again_and_ends_with_all_that_is_in_it() {
    let ground = Ground::container("setsid sleep 4711 & echo up; while :; do sleep 1; done");
    within(async {
        let guest = Guest::start(ground.spec()).await.unwrap();
        wait_for(&mut guest.console().unwrap(), "up").await;
        assert!(matches!(
            Guest::start(ground.spec()).await,
            Err(GuestError::Running(_))
        ));
        assert!(guest.suspend().await.is_err());
        drop(guest);
        let found = Guest::find(ground.run.path()).unwrap().unwrap();
        found.go_on().await.unwrap();
        wait_until("a process of its own runs", || sleepers() == 1);
        let exit = found.stop(Duration::from_millis(50)).await.unwrap();
        assert!(!exit.is_clean() && sleepers() == 0);
        assert!(Guest::find(ground.run.path()).unwrap().is_none());
    });
}

/// A process that runs in the container of the test above only.
fn sleepers() -> usize {
    let lines = fs::read_dir("/proc").unwrap().flatten();
    let lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line == b"sleep\x004711\0").count()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_person_types_on_the_console_of_a_container_also_after_a_restart() {
    let ground = Ground::container(
        r#"echo "the word?"; read -r word; echo "heard $word"
           echo "the other?"; read -r word; echo "heard $word""#,
    );
    within(async {
        let guest = Guest::start(ground.spec()).await.unwrap();
        let (mut console, keyboard) = guest.terminal().unwrap();
        wait_for(&mut console, "the word?").await;
        keyboard.unwrap().press(b"sesame\r").await.unwrap();
        wait_for(&mut console, "heard sesame").await;
        drop((guest, console));
        let guest = Guest::find(ground.run.path()).unwrap().unwrap();
        let (mut console, keyboard) = guest.terminal().unwrap();
        keyboard.unwrap().press(b"mellon\r").await.unwrap();
        wait_for(&mut console, "heard mellon").await;
        assert_eq!(guest.exited().await, Exit::Code(0));
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_that_cannot_be_started_says_why() {
    let ground = Ground::container("");
    let root = ground.machine.0.path().join("root");
    fs::remove_dir(root.join("usr")).unwrap();
    within(async {
        let guest = Guest::start(ground.spec()).await.unwrap();
        assert_eq!(guest.exited().await, Exit::Code(1));
        let said = guest.complaints();
        assert!(said.contains("OS tree"), "{said}");
    });
    fs::rename(&root, ground.machine.0.path().join("kept")).unwrap();
    std::os::unix::fs::symlink("/", &root).unwrap();
    // The first guest has taken its end of the cable with it.
    let mut ground = ground;
    ground.net = tests::net::Net::with(Kind::Nspawn.into());
    within(async {
        let error = Guest::start(ground.spec()).await.unwrap_err();
        assert!(matches!(error, GuestError::Open { .. }), "{error}");
        let mut spec = ground.spec();
        spec.boot = BootMode::CheckpointSource;
        let error = Guest::start(spec).await.unwrap_err();
        assert!(matches!(error, GuestError::Container), "{error}");
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn from_inside_a_container_nothing_of_the_host_can_be_reached() {
    let ground = Ground::container(
        "try() { what=$1; shift; if timeout 5 \"$@\" >/dev/null 2>&1; then echo \"reached $what\"; \
                 else echo \"refused $what\"; fi; }
         try gateway nc $host 8585 -e true
         try log nc $host 8586 -e true
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
    let console = within(async {
        let address = |port| format!("{}:{port}", config::task::GATEWAY).parse().unwrap();
        let _open: Vec<_> = [8585, 8586, 9000]
            .map(|port| ground.net.tcp_listener(address(port)).unwrap())
            .into();
        let guest = Guest::start(ground.spec()).await.unwrap();
        let mut console = guest.console().unwrap();
        let said = wait_for(&mut console, "bomb over").await;
        guest.end().await.unwrap();
        said
    });
    println!("{console}");
    let said: Vec<_> = console.lines().map(str::trim).collect();
    let reached = ["gateway", "log", "chmod_suid"].map(|what| format!("reached {what}"));
    let all = said.iter().filter(|line| line.starts_with("reached "));
    assert_eq!(all.collect::<Vec<_>>(), reached.iter().collect::<Vec<_>>());
    let refused = said.iter().filter(|line| line.starts_with("refused "));
    assert_eq!(refused.count(), 14);
    for fact in [
        "root is nobody outside",
        "first is init",
        "hardware:",
        "group: ::/",
    ] {
        assert!(said.contains(&fact), "{fact}");
    }
    let devices = said.iter().find(|line| line.starts_with("devices:"));
    let known = ["full", "null", "random", "tty", "urandom", "zero"];
    let words = devices.unwrap().split(' ').skip(1);
    let strange = words.filter(|path| !path.starts_with("/dev/pts/"));
    let strange: Vec<_> = strange
        .filter(|path| !known.iter().any(|name| *path == format!("/dev/{name}")))
        .collect();
    assert_eq!(strange, Vec::<&str>::new());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_package_is_built_in_a_container() {
    let host = AgentHost::ready_with_container("");
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.packages[0].revision, "r0.0");
    assert!(host.log_of(1).contains("hello"), "{}", host.log_of(1));
    let live = fs::read_to_string(host.state_directory().join("builds/1/log.live")).unwrap();
    assert!(live.contains("build: made hello"), "{live}");
    let console = fs::read_to_string(host.state_directory().join("builds/1/console")).unwrap();
    assert!(console.contains("machine: powering off"), "{console}");

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
fn a_person_logs_in_to_a_container_at_a_breakpoint() {
    let host = AgentHost::ready_with_container("");
    let source = host.source("int main(void) { return 0; }\n");
    let mut person = host.terminal(&["login", "demo", &source]);
    person.wait_for("connected");
    person.type_in("\recho it is $((41 + 1)); ls ../sources | wc -l\r");
    person.wait_for("it is 42");
    // What is interrupted is the shell's, and nothing else in the container.
    let sleep = format!("sleep 10{}", std::process::id());
    person.type_in(&format!("{sleep}\r"));
    wait_until("it sleeps", || runs(&sleep));
    person.type_in("\x03");
    wait_until("it was woken", || !runs(&sleep));
    person.type_in("echo and $((42 + 1)); exit\r");
    person.wait_for("and 43");
    assert_eq!(person.wait(), Some(0));
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    host.machinectl(&["build", "demo", &source, "--hold"])
        .refused(3, "is a container, which cannot be suspended");
    host.wait_until_torn_down();
}

/// Whether a process with this command line runs.
fn runs(line: &str) -> bool {
    let processes = sys::file::entries(Path::new("/proc")).unwrap();
    let mut lines = processes
        .iter()
        .map(|it| fs::read_to_string(it.join("cmdline")));
    lines.any(|found| found.is_ok_and(|found| found.replace('\0', " ").trim() == line))
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_with_options_of_its_own_runs_only_where_that_is_allowed() {
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
            wait_until("it is refused", || {
                host.log().contains("set guests.options to")
            });
        }
        host.wait_until_torn_down();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_that_dies_is_tried_again_and_one_that_runs_is_taken_up() {
    let mut host = AgentHost::ready_with_container("builds.retries_max = 1\n");
    let slow = "#include <unistd.h>\n#include <stdio.h>\nint main(void) { puts(\"slow\"); fflush(stdout); sleep(4); return 0; }\n";
    let id = host.submit_code("demo", slow);
    for attempt in 1..=2 {
        wait_until("its guest runs", || {
            let build = host.build(id);
            build.attempts == attempt && build.state == State::Running && !host.guests().is_empty()
        });
        for guest in host.guests() {
            let _ = kill_process(guest, Signal::KILL);
        }
    }
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abnormal), "{build:?}");

    let id = host.submit_code("demo", slow);
    host.wait_for(id, State::Running);
    let live = host.state_directory().join(format!("builds/{id}/log.live"));
    wait_until("it says something", || {
        fs::read_to_string(&live).is_ok_and(|text| text.contains("slow"))
    });
    let guests: Vec<Pid> = host.guests();
    assert_eq!(guests.len(), 1);
    host.stop(Signal::KILL);
    assert_eq!(host.guests(), guests, "the guest runs on");
    host.start();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Success), 1),
        "{build:?}"
    );
    let live = fs::read_to_string(&live).unwrap();
    assert!(live.contains("build: made hello"), "{live}");
    host.wait_until_torn_down();
}

/// A worker in the way of build2's: its result is packed and holds the log, its files
/// come in one archive. LZ4 lets a block stand as it is.
const OLD_WORKER: &str = r#"#!/bin/sh
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
fn a_shell_script_in_the_way_of_build2s_workers_builds() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    host.add_worker("default", OLD_WORKER);
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
