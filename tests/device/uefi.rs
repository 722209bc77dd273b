//! Machines that boot by UEFI: with a kernel of their own, and from the EFI system
//! partition of their disk.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Instant;

use agent::session::handshake::{self, HandshakeMode};
use config::builds::{Build, StartKind, State};
use config::machine::{Firmware, UEFI_VARIABLES};
use config::task::Outcome;
use guest::{self, BootMode, Exit, Guest, GuestError};
use tests::agent::AgentHost;
use tftp::server::Event;

use crate::checkpoints::{image, settled};
use crate::guests::{Ground, WAITING, copy, read, wait_for, within};

fn ground(script: &str) -> Ground {
    let mut ground = Ground::new(script);
    ground.machine.1.firmware = Firmware::Uefi;
    // With less it fails to start a kernel.
    ground.machine.1.memory_kib = NonZeroU64::new(256 * 1024).unwrap();
    ground
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_firmware_that_is_missing_or_does_not_fit_is_named() {
    let ground = ground("");
    within(async {
        let mut spec = ground.spec();
        spec.uefi.code = "/nowhere/OVMF_CODE.fd".into();
        let error = Guest::start(spec).await.unwrap_err();
        assert!(matches!(error, GuestError::NoFirmware { .. }), "{error}");
        assert!(error.to_string().contains("install the package ovmf"));
        let own = ground.machine.0.path().join(UEFI_VARIABLES);
        sys::file::replace(&own, &[0; 4096]).unwrap();
        let error = Guest::start(ground.spec()).await.unwrap_err();
        assert!(matches!(error, GuestError::Variables { .. }), "{error}");
        fs::remove_file(&own).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &own).unwrap();
        let error = Guest::start(ground.spec()).await.unwrap_err();
        assert!(matches!(error, GuestError::Open { .. }), "{error}");
    });
    assert!(ground.net.processes().unwrap().is_empty());
    assert!(!guest::is_frozen(ground.machine.0.path()));
}

/// Installs like an installer, by leaving a variable; builds tell it, and leave another.
const WORKER: &str = r#"#!/bin/sh
host=169.254.111.222
variables=/sys/firmware/efi/efivars
vendor=6275696c-6468-6f73-7400-000000000000
cd /tmp
leave() { printf '\007\000\000\000%s' $1 >$variables/$1-$vendor; }
put() { printf ': 1\nstatus: success\n' >$1; tftp -p -l $1 -r $1 $host; }
if [ $1 = bootstrap ]; then leave Installer && put bootstrap.manifest; exit; fi
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" = buildhost.control ] && exec 3<>/dev/${port##*/}
done
echo ready >&3
until read -r go time random <&3; do sleep 0.1; done
tftp -g -r task.manifest $host
before=$(ls $variables | grep $vendor | cut -d - -f 1)
leave Build
after=$(ls $variables | grep $vendor | cut -d - -f 1)
echo before $before, after $after >log
tftp -p -l log -r log $host
put result.manifest
"#;

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_disk_with_a_boot_loader_is_bootstrapped_by_uefi_and_builds_with_its_variables() {
    let began = Instant::now();
    let mut host = AgentHost::new("");
    let machine = std::env::var_os("BUILDHOST_TEST_MACHINE").unwrap();
    let uefi = PathBuf::from(machine).with_file_name("uefi");
    host.add_from(&uefi, "demo", |files: &Path| {
        assert!(!files.join("vmlinuz").exists());
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        tests::write_file(&files.join("manifest"), &(manifest + "disk-cache: none\n"));
    });
    host.add_worker("default", WORKER);
    host.start();
    settled(&host, "demo", "default", StartKind::Restored);
    println!("{:.1?} until a guest was frozen", began.elapsed());
    let variables = || fs::read(image(&host, "default", UEFI_VARIABLES)).unwrap();
    let installed = variables();
    for _ in 0..2 {
        let id = host.submit("demo", "hello");
        let build: Build = host.wait_for(id, State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
        println!("build {id}: {:?}", build.startup());
        assert!(build.restored, "{build:?}");
        let log = host.log_of(id);
        assert_eq!(log.trim(), "before Installer, after Build Installer");
    }
    assert!(variables() == installed, "a build changed its image");
    println!("{:.1?} for all", began.elapsed());
    host.wait_until_torn_down();
}

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use super::*;

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn a_kernel_of_its_own_is_started_by_uefi_and_frozen() {
        let image = ground(&format!("ls -d /sys/firmware/efi\n{WAITING}"));
        let directory = image.machine.0.path();
        within(async {
            let began = Instant::now();
            let mut spec = image.spec();
            spec.boot = BootMode::CheckpointSource;
            let guest = Guest::start(spec).await.unwrap();
            let printed = wait_for(&mut guest.console().unwrap(), "waiting").await;
            println!("cold: {:.2?} to the waiting worker", began.elapsed());
            assert!(printed.contains("/sys/firmware/efi"), "{printed}");
            guest.freeze(directory).await.unwrap();
            // What the frozen guest has made of them is not the machine's.
            let template = fs::read(image.spec().uefi.variables).unwrap();
            assert!(fs::read(directory.join(UEFI_VARIABLES)).unwrap() == template);
            assert!(fs::read(directory.join("frozen.vars")).unwrap() != template);
            let woken = Ground::of((copy(directory), image.machine.1.clone()));
            let (_server, mut events) = woken.serve();
            let mut spec = woken.spec();
            spec.boot = BootMode::Restore;
            let began = Instant::now();
            let guest = Guest::start(spec).await.unwrap();
            let port = guest.control().unwrap().unwrap();
            tokio::spawn(handshake::serve(port, HandshakeMode::Restore));
            let console = read(guest.console());
            assert_eq!(events.recv().await, Some(Event::FirstContact));
            println!("woken: {:.2?} to the first packet", began.elapsed());
            assert_eq!(guest.exited().await, Exit::Code(0));
            assert!(console.await.unwrap().contains("build: 42"));
        });
    }
}
