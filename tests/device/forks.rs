//! Forks of running guests and builds: the copies continue where the source was.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;

use config::builds::{Build, StartKind, State};
use config::settings::{Acceleration, Settings};
use config::task::Outcome;
use guest::fork::{ForkError, ForkSpec};
use guest::{BootMode, Guest};
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::wait_until;

use crate::checkpoints::wait_until_ready;
use crate::guest_failures::guest_process;
use crate::guests::{GuestFixture, copy, output, wait_for};

/// A worker that fills 100 MiB of memory and writes to its disk, and tells what it remembers when
/// it is asked on its control port.
const REMEMBER: &str = r#"
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = buildhost.control ] && exec 3<>/dev/${port##*/}
done
echo waiting
until read -r go <&3; do sleep 0.1; done
mkdir /memory && mount -t tmpfs -o size=120m none /memory
dd if=/dev/urandom of=/memory/big bs=1M count=${go#go} 2>/dev/null
sum=$(md5sum </memory/big | cut -c 1-32)
echo "disk-$sum" | dd of=/dev/vda conv=notrunc 2>/dev/null
sync
echo "remember $sum until asked"
n=0
while :; do
    until read -r word <&3; do n=$((n + 1)); sleep 0.1; done
    echo 3 >/proc/sys/vm/drop_caches
    now=$(md5sum </memory/big | cut -c 1-32)
    echo "answer $word $sum $now $(head -c 37 /dev/vda) counted $n"
done
"#;

/// Restores a guest from a directory.
fn restore(fixture: &GuestFixture) -> Guest {
    let mut spec = fixture.spec();
    spec.boot = BootMode::Restore;
    Guest::start(spec).unwrap()
}

/// Makes the checkpoint of a machine that remembers.
fn image(change: impl FnOnce(&mut config::machine::Machine)) -> GuestFixture {
    let mut image = GuestFixture::new(REMEMBER);
    image.machine.1.memory_kib = NonZeroU64::new(256 * 1024).unwrap();
    change(&mut image.machine.1);
    let mut spec = image.spec();
    spec.boot = BootMode::CheckpointSource;
    let guest = Guest::start(spec).unwrap();
    wait_for(&mut output(guest.console()), "waiting");
    guest.checkpoint(image.machine.0.path()).unwrap();
    image
}

fn fixture_in(directory: &Path, image: &GuestFixture) -> GuestFixture {
    GuestFixture::of((copy(directory), image.machine.1.clone()))
}

/// Forks a guest into a copy of its directory. Returns the MiB that it had changed.
fn fork(
    guest: &Guest,
    source: &Path,
    image: &GuestFixture,
) -> (GuestFixture, Result<u64, ForkError>) {
    let target = fixture_in(source, image);
    let spec = ForkSpec {
        source: source.to_owned(),
        target: target.machine.0.path().to_owned(),
        machine: image.machine.1.clone(),
        acceleration: Acceleration::Auto,
        uefi: Settings::parse("").unwrap().guests.uefi,
    };
    let captured = guest
        .prepare_fork(spec)
        .and_then(|prepared| guest.capture_fork(prepared));
    let forked = captured.and_then(|captured| {
        let (stopped, changed) = (captured.stopped(), captured.changed() >> 20);
        println!("stopped for {stopped:.1?}, {changed} MiB had changed");
        captured.complete().map(|()| changed)
    });
    (target, forked)
}

/// Asks a guest on its control port, and returns its answer.
fn ask(guest: &Guest, word: &str) -> String {
    let mut console = output(guest.console());
    let mut control = guest.control().unwrap().unwrap();
    control.write_all(format!("{word}\n").as_bytes()).unwrap();
    let answer = wait_for(&mut console, " counted ");
    let line = answer.lines().find(|line| line.contains("answer")).unwrap();
    line.to_owned()
}

fn assert_remembers(answer: &str, word: &str, sum: &str) {
    let expected = format!("answer {word} {sum} {sum} disk-{sum} counted ");
    assert!(answer.contains(&expected), "{answer}, not {expected}");
}

/// Forks a guest and a fork of it, and checks what all of them remember.
fn forks_remember(image: &GuestFixture, mib: u64) {
    let source = fixture_in(image.machine.0.path(), image);
    let guest = restore(&source);
    let mut console = output(guest.console());
    let mut control = guest.control().unwrap().unwrap();
    control.write_all(format!("go{mib}\n").as_bytes()).unwrap();
    let text = wait_for(&mut console, " until asked");
    let (_, rest) = text.split_once("remember ").unwrap();
    let (sum, _) = rest.split_once(" until asked").unwrap();
    assert_eq!(sum.len(), 32, "{text}");
    drop((console, control));
    let (point, forked) = fork(&guest, source.machine.0.path(), image);
    assert!(forked.unwrap() >= mib);
    let children = [1, 2].map(|_| fixture_in(point.machine.0.path(), image));
    let guests: Vec<_> = children.iter().map(restore).collect();
    for (number, child) in guests.iter().enumerate() {
        let word = format!("child{number}");
        assert_remembers(&ask(child, &word), &word, sum);
    }
    assert_remembers(&ask(&guest, "source"), "source", sum);
    // The child is like its source, also in that it can be forked.
    let (point, forked) = fork(&guests[0], children[0].machine.0.path(), image);
    forked.unwrap();
    let grandchild = restore(&point);
    assert_remembers(&ask(&grandchild, "grandchild"), "grandchild", sum);
    for guest in guests.iter().chain([&guest, &grandchild]) {
        guest.kill_and_wait().unwrap();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn forks_of_a_guest_remember_what_it_knew_and_it_runs_on() {
    forks_remember(&image(|_| ()), 100);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_with_several_processors_is_forked() {
    let two = |machine: &mut config::machine::Machine| {
        machine.cpus = NonZeroU32::new(2).unwrap();
    };
    forks_remember(&image(two), 10);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_that_cannot_be_forked_is_refused_and_runs_on() {
    let image = image(|_| ());
    let directory = image.machine.0.path();
    let cold = fixture_in(directory, &image);
    let guest = cold.start();
    let (_, refused) = fork(&guest, cold.machine.0.path(), &image);
    assert!(matches!(refused, Err(ForkError::Cold)), "{refused:?}");
    wait_for(&mut output(guest.console()), "waiting");
    guest.kill_and_wait().unwrap();
    let source = fixture_in(directory, &image);
    let guest = restore(&source);
    for (name, content) in [
        ("frozen.key", &b"another QEMU"[..]),
        ("frozen.state", b"QEVM\0\0\0\x04"),
    ] {
        let path = source.machine.0.path().join(name);
        let before = fs::read(&path).unwrap();
        sys::file::replace(&path, content).unwrap();
        let (point, refused) = fork(&guest, source.machine.0.path(), &image);
        match refused {
            Err(ForkError::Stale) if name == "frozen.key" => {}
            Err(ForkError::Format(_)) if name == "frozen.state" => {}
            other => panic!("{name}: {other:?}"),
        }
        drop(point);
        sys::file::replace(&path, &before).unwrap();
    }
    let mut control = guest.control().unwrap().unwrap();
    control.write_all(b"go1\n").unwrap();
    drop(control);
    wait_for(&mut output(guest.console()), "remember ");
    guest.kill_and_wait().unwrap();
}

/// A program `build` that computes for a while, and whose artifacts tell copies apart.
const COMPUTE: &str = r#"#!/bin/sh
set -eu
echo "begins as $(cat "$BUILDHOST_FORK")"
dd if=/dev/urandom of=changed bs=1M count=8 2>/dev/null
before=$(md5sum <changed)
sum=0
step=0
while [ $step -lt 200 ]; do
    step=$((step + 1))
    sum=$((sum + step * step))
    [ $step != 10 ] || echo "is computing"
    sleep 0.1
done
[ "$before" = "$(md5sum <changed)" ]
echo "$sum" >"$BUILDHOST_OUT/sum"
cp "$BUILDHOST_FORK" "$BUILDHOST_OUT/identity"
head -c 16 /dev/urandom | md5sum >"$BUILDHOST_OUT/random"
date +%s >"$BUILDHOST_OUT/time"
"#;

/// Resources for more guests than this host has processors.
const ROOM: &str = "guests.cpu_percent = 1000\nguests.disk_growth_mib = 32\n";

/// Starts a host with a machine whose builds compute, restored from a checkpoint.
fn computing_host(settings: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add("demo", |_| {});
    host.add_build_program("default", COMPUTE);
    host.start();
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    host
}

/// Waits until a build is in the middle of its computation.
fn wait_until_it_computes(host: &AgentHost, id: u64) {
    let log = host.state_directory().join(format!("builds/{id}/log.live"));
    wait_until(&format!("build {id} computes"), || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("is computing"))
    });
}

/// Forks a build, and returns the numbers of its copies.
fn fork_build(host: &AgentHost, id: u64, copies: u32) -> Vec<u64> {
    let (id, copies) = (id.to_string(), copies.to_string());
    let answer = host.machinectl(&["fork", &id, "--copies", &copies]);
    let numbers = answer.success().stdout;
    numbers.lines().map(|line| line.parse().unwrap()).collect()
}

/// Waits for the success of a build. Returns its record.
fn success(host: &AgentHost, id: u64) -> Build {
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    build
}

/// Returns the content of an artifact.
fn artifact(host: &AgentHost, id: u64, name: &str) -> String {
    let path = format!("builds/{id}/artifacts/{name}");
    fs::read_to_string(host.state_directory().join(path)).unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn copies_of_a_running_build_end_with_right_and_different_results() {
    let copies = if tests::is_long_run() { 8 } else { 4 };
    let host = computing_host(ROOM);
    let ids = [(); 2].map(|()| host.submit("demo", "unused"));
    let [source, unforked] = ids;
    wait_until_it_computes(&host, source);
    let forked = fork_build(&host, source, copies);
    assert_eq!(forked.len(), copies as usize);
    let line = host.log();
    let line = line.lines().find(|line| line.contains("forked the guest"));
    println!("{}", line.unwrap());
    let sum = (1..=200).map(|step| step * step).sum::<u64>().to_string() + "\n";
    let mut random = BTreeSet::new();
    for id in ids.iter().chain(&forked) {
        success(&host, *id);
        assert_eq!(artifact(&host, *id, "sum"), sum, "build {id}");
        random.insert(artifact(&host, *id, "random"));
    }
    assert_eq!(random.len(), ids.len() + forked.len(), "{random:?}");
    assert_eq!(artifact(&host, unforked, "identity"), "0 of 0\n");
    assert_eq!(
        artifact(&host, source, "identity"),
        format!("0 of {copies}\n")
    );
    for (id, number) in forked.iter().zip(1..) {
        let identity = format!("{number} of {copies}");
        assert_eq!(artifact(&host, *id, "identity"), format!("{identity}\n"));
        let log = host.log_of(*id);
        assert!(log.contains("begins as 0 of 0"), "{log}");
        assert!(
            log.contains(&format!("continuing as copy {identity}")),
            "{log}"
        );
        let origin = host.build(*id).forked_from.unwrap();
        assert_eq!((origin.build.0, origin.number), (source, number));
        let shown = host
            .machinectl(&["builds", &id.to_string()])
            .success()
            .stdout;
        assert!(
            shown.contains(&format!("build {source}, copy {identity}")),
            "{shown}"
        );
        let provenance = host.machinectl(&["provenance", &id.to_string()]).success();
        assert!(
            provenance.stdout.contains("\"forkedFrom\""),
            "{}",
            provenance.stdout
        );
    }
    let point = format!("demo/demo-default-{source}-f");
    assert!(!host.host.volume.path().join(point).exists());
    // A finished build cannot be forked, and a fork without room is refused as a whole.
    let refused = host.machinectl(&["fork", &source.to_string()]);
    assert!(
        refused.stderr.contains("only a running build"),
        "{}",
        refused.stderr
    );
    let id = host.submit("demo", "unused");
    wait_until_it_computes(&host, id);
    let refused = host.machinectl(&["fork", &id.to_string(), "--copies", "40"]);
    assert!(
        refused.stderr.contains("there is room for"),
        "{}",
        refused.stderr
    );
    success(&host, id);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn forks_outlive_the_agent_and_what_it_left_is_cleaned() {
    let mut host = computing_host(ROOM);
    let source = host.submit("demo", "unused");
    wait_until_it_computes(&host, source);
    let forked = fork_build(&host, source, 2);
    for id in &forked {
        host.wait_for(*id, State::Running);
    }
    host.stop(Signal::KILL);
    // What an agent leaves that is killed in the middle of a fork.
    let point = host
        .host
        .volume
        .path()
        .join(format!("demo/demo-default-{source}-f"));
    let snapshot = host
        .host
        .volume
        .path()
        .join(format!("demo/demo-default-{source}"));
    let mut leave = sys::command::prepare("btrfs");
    leave
        .args(["subvolume", "snapshot"])
        .args([&snapshot, &point]);
    sys::command::run(leave, std::time::Duration::from_mins(1)).unwrap();
    host.start();
    for id in forked.iter().chain([&source]) {
        success(&host, *id);
    }
    for (id, number) in forked.iter().zip(1..) {
        assert_eq!(artifact(&host, *id, "identity"), format!("{number} of 2\n"));
    }
    wait_until("the fork point is deleted", || !point.exists());
    // A copy whose guest ends is not repeated.
    let source = host.submit("demo", "unused");
    wait_until_it_computes(&host, source);
    let copy = fork_build(&host, source, 1)[0];
    host.wait_for(copy, State::Running);
    rustix::process::kill_process(guest_process(&host, copy), Signal::KILL).unwrap();
    let lost = host.wait_for(copy, State::Finished);
    assert_eq!(lost.outcome, Some(Outcome::Abnormal), "{lost:?}");
    assert!(
        lost.message.contains("cannot be repeated"),
        "{}",
        lost.message
    );
    success(&host, source);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn builds_that_cannot_be_forked_are_refused_with_the_reason() {
    let mut host = AgentHost::new(ROOM);
    host.add("cold", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        tests::write_file(&files.join("manifest"), &(manifest + "frozen: off\n"));
    });
    host.add_container("box", |_| {});
    host.add_build_program("default", COMPUTE);
    host.start();
    let refused = |machine: &str| {
        let id = host.submit(machine, "unused");
        wait_until_it_computes(&host, id);
        let refused = host.machinectl(&["fork", &id.to_string()]);
        success(&host, id);
        refused.stderr
    };
    let cold = refused("cold");
    assert!(cold.contains("its guest started cold"), "{cold}");
    let container = refused("box");
    assert!(container.contains("it runs in a container"), "{container}");
}
