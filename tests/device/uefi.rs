//! Machines that boot by UEFI: with the kernel of their manifest, or from the EFI system partition
//! of their disk.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::builds::{Build, StartKind, State};
use config::machine::{Firmware, UEFI_VARIABLES};
use config::task::Outcome;
use guest::{BootMode, Exit, Guest, GuestError};
use session::handshake::HandshakeMode;
use tests::agent::AgentHost;
use tftp::server::Event;

use crate::checkpoints::{image_file, wait_until_ready};
use crate::guests::{
    GuestFixture, LIMIT, WAIT_FOR_START, copy, next_event, output, read, serve_control_port,
    wait_for,
};

fn uefi_fixture(script: &str) -> GuestFixture {
    let mut fixture = GuestFixture::new(script);
    fixture.machine.1.firmware = Firmware::Uefi;
    // The firmware fails to start a kernel with less memory.
    fixture.machine.1.memory_kib = NonZeroU64::new(256 * 1024).unwrap();
    fixture
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn firmware_that_is_missing_or_does_not_fit_is_named() {
    let fixture = uefi_fixture("");
    let mut spec = fixture.spec();
    spec.uefi.code = "/nowhere/OVMF_CODE.fd".into();
    let error = Guest::start(spec).unwrap_err();
    assert!(matches!(error, GuestError::NoFirmware { .. }), "{error}");
    assert!(error.to_string().contains("install the package ovmf"));
    let own = fixture.machine.0.path().join(UEFI_VARIABLES);
    sys::file::replace(&own, &[0; 4096]).unwrap();
    let error = Guest::start(fixture.spec()).unwrap_err();
    assert!(matches!(error, GuestError::UefiVariables { .. }), "{error}");
    fs::remove_file(&own).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &own).unwrap();
    let error = Guest::start(fixture.spec()).unwrap_err();
    assert!(matches!(error, GuestError::Open { .. }), "{error}");
    assert!(fixture.net.processes().unwrap().is_empty());
    assert!(!guest::checkpoint::exists(fixture.machine.0.path()));
}

/// A worker whose bootstrap sets an EFI variable, as an installer does. A build logs the variables
/// before and after it has set another one.
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
fn a_disk_with_a_boot_loader_boots_by_uefi_and_each_build_has_its_own_variables() {
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
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    println!("{:.1?} to the checkpoint", began.elapsed());
    let variables = || fs::read(image_file(&host, "default", UEFI_VARIABLES)).unwrap();
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
    println!("{:.1?} in total", began.elapsed());
    host.wait_until_torn_down();
}

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use super::*;

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn the_kernel_of_the_manifest_is_started_by_uefi_and_restored_from_a_checkpoint() {
        let image = uefi_fixture(&format!("ls -d /sys/firmware/efi\n{WAIT_FOR_START}"));
        let directory = image.machine.0.path();
        let began = Instant::now();
        let mut spec = image.spec();
        spec.boot = BootMode::CheckpointSource;
        let guest = Guest::start(spec).unwrap();
        let printed = wait_for(&mut output(guest.console()), "waiting");
        println!("cold: {:.2?} to the waiting worker", began.elapsed());
        assert!(printed.contains("/sys/firmware/efi"), "{printed}");
        guest.checkpoint(directory).unwrap();
        // The changed variables belong to the checkpoint, not to the machine.
        let template = fs::read(image.spec().uefi.variables).unwrap();
        assert!(fs::read(directory.join(UEFI_VARIABLES)).unwrap() == template);
        assert!(fs::read(directory.join("frozen.vars")).unwrap() != template);
        let restored = GuestFixture::of((copy(directory), image.machine.1.clone()));
        let (_server, mut events) = restored.serve();
        let mut spec = restored.spec();
        spec.boot = BootMode::Restore;
        let began = Instant::now();
        let guest = Guest::start(spec).unwrap();
        serve_control_port(&guest, HandshakeMode::Restore);
        let console = read(output(guest.console()));
        assert_eq!(next_event(&mut events), Event::FirstContact);
        println!("restore: {:.2?} to the first packet", began.elapsed());
        assert_eq!(guest.wait(LIMIT), Some(Exit::Code(0)));
        assert!(console.join().unwrap().contains("build: 42"));
    }
}
