//! QEMU's command line. Pure.

use std::ffi::OsString;

use config::machine::{DiskCache, Firmware};
use config::task::{CONTROL_PORT, LOG_PORT};
use serde_json::json;

use super::accelerator::Accelerator;
use crate::network::Port;
use crate::spec::{BootMode, Spec};

/// The numbers under which QEMU receives its descriptors.
pub(super) const TAP: i32 = 3;
pub(super) const MONITOR: i32 = 4;
pub(super) const CONSOLE: i32 = 5;
pub(super) const LOG: i32 = 6;
pub(super) const DISK: i32 = 7;
pub(super) const CONTROL: i32 = 8;
pub(super) const FIRMWARE: i32 = 9;
pub(super) const VARIABLES: i32 = 10;
pub(super) const EVENTS: i32 = 11;
pub(super) const SHARED_MEMORY: i32 = 12;
/// The first number of the descriptors that QEMU only keeps open.
pub(super) const KEEP_OPEN: i32 = 13;

/// The paths, in QEMU's view, of the files that it opens by name.
pub(super) const KERNEL: &str = "/kernel";
pub(super) const INITRD: &str = "/initrd";
pub(super) const MEMORY: &str = "/memory";

const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Returns QEMU's command line for a guest, without the program. Starts nothing.
pub fn command_line(spec: &Spec, accelerator: Accelerator) -> Vec<OsString> {
    let mut line = Line::default();
    line.add("-name", format!("guest={}", spec.name.replace(',', ",,")));
    line.flag("-no-user-config");
    line.flag("-nodefaults");
    line.flag("-no-reboot");
    // The processors stay stopped until the command `cont`.
    line.flag("-S");
    line.add("-display", "none");
    line.add("-sandbox", SANDBOX);
    hardware(&mut line, spec, accelerator);
    firmware(&mut line, spec);
    kernel(&mut line, spec);
    disk(&mut line, spec);
    line.add("-netdev", format!("tap,id=net,fd={TAP}"));
    let mac = spec.port.unwrap_or(Port::BUILD).hardware_address();
    line.add(
        "-device",
        format!("virtio-net-pci,netdev=net,mac={mac},romfile="),
    );
    socket(&mut line, "monitor", MONITOR);
    line.add("-mon", "chardev=monitor,mode=control");
    // A monitor serves one connection: this one stays connected for the events.
    socket(&mut line, "events", EVENTS);
    line.add("-mon", "chardev=events,mode=control");
    socket(&mut line, "console", CONSOLE);
    line.add("-serial", "chardev:console");
    socket(&mut line, "log", LOG);
    line.add("-device", "virtio-serial-pci");
    line.add(
        "-device",
        format!("virtserialport,chardev=log,name={LOG_PORT}"),
    );
    socket(&mut line, "control", CONTROL);
    line.add(
        "-device",
        format!("virtserialport,chardev=control,name={CONTROL_PORT}"),
    );
    line.add("-object", "rng-builtin,id=random");
    line.add("-device", "virtio-rng-pci,rng=random");
    line.add("-device", "vmgenid,guid=auto");
    // Reports a panic of the guest's kernel, and ends the guest then.
    line.add("-device", "pvpanic-pci");
    let options = spec.machine.options.iter();
    line.arguments.extend(options.map(OsString::from));
    line.arguments
}

fn hardware(line: &mut Line, spec: &Spec, accelerator: Accelerator) {
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm(_) => ("kvm", "host"),
        // The cache of translated code would grow to 1 GiB otherwise.
        Accelerator::Tcg => ("tcg,tb-size=256", "max"),
    };
    let mut machine = "q35".to_owned();
    if spec.boot != BootMode::Cold {
        memory(line, spec);
        machine += ",memory-backend=ram";
    }
    if spec.machine.firmware == Firmware::Uefi {
        machine += ",pflash0=firmware,pflash1=variables";
    }
    line.add("-machine", machine);
    if spec.boot == BootMode::Restore {
        line.add("-incoming", "defer");
    }
    line.add("-accel", accelerator);
    line.add("-cpu", cpu);
    line.add("-smp", spec.machine.cpus.to_string());
    line.add("-m", format!("size={}k", spec.machine.memory_kib));
}

/// Adds memory in a file. A private mapping keeps a restored guest's writes out of it.
fn memory(line: &mut Line, spec: &Spec) {
    let size = spec.machine.memory_kib;
    let share = if spec.boot == BootMode::Restore {
        "off"
    } else {
        "on"
    };
    let path = match spec.shared_memory {
        Some(_) => format!("/proc/self/fd/{SHARED_MEMORY}"),
        None => MEMORY.to_owned(),
    };
    let file = format!("id=ram,mem-path={path},size={size}k,share={share}");
    line.add("-object", format!("memory-backend-file,{file}"));
}

/// Adds flash memory with the firmware's code, read-only, and with its variables.
fn firmware(line: &mut Line, spec: &Spec) {
    if spec.machine.firmware == Firmware::Bios {
        return;
    }
    for (set, fd, name, read_only) in [
        (2, FIRMWARE, "firmware", true),
        (3, VARIABLES, "variables", false),
    ] {
        let node = json!({
            "driver": "raw",
            "node-name": name,
            "read-only": read_only,
            "cache": { "direct": false, "no-flush": !spec.durable },
            "file": {
                "driver": "file",
                "filename": format!("/dev/fdset/{set}"),
                "read-only": read_only,
            },
        });
        line.add("-add-fd", format!("fd={fd},set={set}"));
        line.add("-blockdev", node.to_string());
    }
}

/// Adds the kernel to boot, of which each QEMU keeps a copy. A restored guest has booted.
fn kernel(line: &mut Line, spec: &Spec) {
    let Some(boot) = spec.kernel() else {
        return;
    };
    line.add("-kernel", KERNEL);
    if boot.initrd.is_some() {
        line.add("-initrd", INITRD);
    }
    if !boot.cmdline.is_empty() {
        line.add("-append", &boot.cmdline);
    }
}

fn disk(line: &mut Line, spec: &Spec) {
    let cache = spec.machine.disk_cache;
    let node = json!({
        "driver": "raw",
        "node-name": "disk",
        "discard": "unmap",
        "cache": {
            "direct": cache == DiskCache::None,
            "no-flush": cache == DiskCache::Unsafe && !spec.durable,
        },
        "file": { "driver": "file", "filename": "/dev/fdset/1" },
    });
    line.add("-add-fd", format!("fd={DISK},set=1"));
    line.add("-blockdev", node.to_string());
    // UEFI would try the network first. A kernel of the machine still takes precedence.
    let boot_index = match spec.machine.firmware {
        Firmware::Bios => "",
        Firmware::Uefi => ",bootindex=1",
    };
    line.add("-device", format!("virtio-blk-pci,drive=disk{boot_index}"));
}

/// Adds a socket that listens already. QEMU accepts connections at any time.
fn socket(line: &mut Line, id: &str, fd: i32) {
    let options = format!("socket,id={id},fd={fd},server=on,wait=off");
    line.add("-chardev", options);
}

/// A command line being built.
#[derive(Default)]
struct Line {
    arguments: Vec<OsString>,
}

impl Line {
    fn flag(&mut self, flag: &str) {
        self.arguments.push(flag.into());
    }

    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.flag(option);
        self.arguments.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::KvmAccess;
    use crate::sealed_memory::SealedMemory;

    /// Returns the command line with an option and its value per line.
    fn text(spec: &Spec, accelerator: Accelerator) -> String {
        let arguments = command_line(spec, accelerator)
            .into_iter()
            .map(|argument| argument.into_string().unwrap());
        let text = arguments.collect::<Vec<_>>().join(" ");
        text.replace(" -", "\n-")
    }

    #[test]
    fn a_machine_boots_its_own_kernel() {
        let spec = Spec::example(
            ": 1\nid: d\nsummary: d\nkernel: vmlinuz\ninitrd: initrd\ncmdline: console=ttyS0, quiet\n",
        );
        insta::assert_snapshot!(text(&spec, Accelerator::Tcg));
    }

    #[test]
    fn a_machine_boots_by_uefi() {
        let mut spec = Spec::example(": 1\nid: d\nsummary: d\nfirmware: uefi\n");
        insta::assert_snapshot!(text(&spec, Accelerator::Tcg));
        spec.boot = BootMode::Restore;
        let restored = text(&spec, Accelerator::Tcg);
        let machine = "-machine q35,memory-backend=ram,pflash0=firmware,pflash1=variables";
        assert!(restored.contains(machine), "{restored}");
    }

    #[test]
    fn the_disk_cache_follows_the_manifest_and_a_durable_guest_flushes() {
        let cache = |value: &str, durable| {
            let manifest = format!(": 1\nid: d\nsummary: d\ndisk-cache: {value}\n");
            let mut spec = Spec::example(&manifest);
            spec.durable = durable;
            let line = text(&spec, Accelerator::Tcg);
            let (_, cache) = line.split_once(r#"{"cache":{"#).unwrap();
            cache.split_once('}').unwrap().0.to_owned()
        };
        assert_eq!(cache("unsafe", false), r#""direct":false,"no-flush":true"#);
        assert_eq!(cache("unsafe", true), r#""direct":false,"no-flush":false"#);
        assert_eq!(
            cache("writeback", false),
            r#""direct":false,"no-flush":false"#
        );
        assert_eq!(cache("none", false), r#""direct":true,"no-flush":false"#);
    }

    #[test]
    fn options_of_the_machine_come_last() {
        let spec = Spec::example(": 1\nid: d\nsummary: d\noptions: -device usb-ehci\n");
        let line = text(&spec, Accelerator::Tcg);
        assert!(line.ends_with("pvpanic-pci\n-device usb-ehci"), "{line}");
    }

    #[test]
    fn a_restored_guest_differs_from_its_source_in_two_options() {
        let mut spec = Spec::example(": 1\nid: d\nsummary: d\n");
        spec.boot = BootMode::Restore;
        let restored = text(&spec, Accelerator::Tcg);
        spec.boot = BootMode::CheckpointSource;
        let source = text(&spec, Accelerator::Tcg);
        assert_eq!(
            restored
                .replace("share=off", "share=on")
                .replace("\n-incoming defer", ""),
            source
        );
        insta::assert_snapshot!(restored);
    }

    #[test]
    fn a_restored_guest_has_no_kernel_to_boot() {
        let manifest = ": 1\nid: d\nsummary: d\nkernel: vmlinuz\ninitrd: initrd\ncmdline: quiet\n";
        let mut spec = Spec::example(manifest);
        let kernel = "\n-kernel /kernel\n-initrd /initrd\n-append quiet";
        spec.boot = BootMode::CheckpointSource;
        assert!(text(&spec, Accelerator::Tcg).contains(kernel));
        spec.boot = BootMode::Restore;
        assert!(!text(&spec, Accelerator::Tcg).contains("/kernel"));
    }

    #[test]
    fn shared_memory_is_opened_by_its_descriptor() {
        let mut spec = Spec::example(": 1\nid: d\nsummary: d\n");
        spec.boot = BootMode::Restore;
        let own = text(&spec, Accelerator::Tcg);
        spec.shared_memory = Some(SealedMemory::copy_of(&tempfile::tempfile().unwrap()).unwrap());
        let shared = text(&spec, Accelerator::Tcg);
        let path = format!("mem-path=/proc/self/fd/{SHARED_MEMORY},");
        assert_eq!(shared.replace(&path, "mem-path=/memory,"), own);
        assert_ne!(shared, own);
    }

    #[test]
    fn a_durable_machine_boots_from_its_disk() {
        let mut spec = Spec::example(": 1\nid: d\nsummary: d\ncpus: 4\nram-minimum: 1048576\n");
        spec.durable = true;
        insta::assert_snapshot!(text(&spec, Accelerator::Kvm(KvmAccess::Everybody)));
    }
}
