//! A machine's manifest: the file `manifest` in each of its revisions.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::egress::Egress;
use crate::limits::{LimitOverrides, Seconds};
use crate::manifest::{self, Manifest};
use crate::names::FileName;
use crate::resource_counts::ResourceCounts;

/// The name of the file in the top directory of a revision.
pub const FILE: &str = "manifest";

/// The file beside the manifest with the variables of a machine that boots by UEFI, such
/// as the boot entries of an installer. Without it, the host's firmware starts with its
/// default variables, and the bootstrapped image keeps the changed ones.
pub const UEFI_VARIABLES: &str = "uefi.vars";

/// The first program of a guest, in its root.
pub const INIT: &str = "/sbin/init";

/// The reason for which a container cannot have systemd as its [`INIT`].
pub const SYSTEMD_IN_CONTAINER: &str = "a container's /sbin/init must be a script or another \
    program that needs no privileges, and this one is systemd; `buildhost image make` makes \
    containers with such a script";

/// Returns true if a program, by its path without links, is systemd.
pub fn is_systemd(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "systemd")
}

/// The kinds of machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A virtual machine, run by QEMU.
    #[default]
    Kvm,
    /// A container, run by systemd-nspawn.
    Nspawn,
}

/// The use of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Builds run on it.
    #[default]
    Build,
    /// It runs beside the builds of controllers that ask for it, and no build runs on it.
    Auxiliary,
}

/// The firmware of a `kvm` machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU's BIOS.
    #[default]
    Bios,
    /// The host's UEFI firmware, with the variables in [`UEFI_VARIABLES`].
    Uefi,
}

/// The disk cache mode of a `kvm` machine. A bootstrap never ignores flushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskCache {
    /// Uses the host's page cache and ignores flushes of builds, whose snapshots are
    /// discarded.
    #[default]
    Unsafe,
    /// Uses the host's page cache and honors flushes.
    Writeback,
    /// Bypasses the host's page cache, for machines whose disks would fill it.
    None,
}

/// A machine's manifest, checked.
///
/// The values have the names of build2's machine manifests. `kernel`, `initrd`,
/// `cmdline`, `disk`, `cpus`, `cpus-max`, `firmware`, `frozen`, `egress`, `parallel-max`,
/// `resources`,
/// `disk-growth`, `disk-cache` and `…-seconds-max` are extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The identifier of this content, for people and controllers.
    pub id: String,
    /// A description of one line.
    pub summary: String,
    /// The kind of machine.
    pub kind: Kind,
    /// The use of the machine.
    pub role: Role,
    /// The memory of a guest, in KiB: the least that the machine needs, and the amount for
    /// builds that ask for none.
    pub memory_kib: NonZeroU64,
    /// The largest amount of memory that a build may ask for, in KiB; `memory_kib` if `None`.
    pub memory_max_kib: Option<NonZeroU64>,
    /// The number of processors of a guest whose build asks for none.
    pub cpus: NonZeroU32,
    /// The largest number of processors that a build may ask for; `cpus` if `None`.
    pub cpus_max: Option<NonZeroU32>,
    /// The largest number of simultaneous guests; set by the host's settings if `None`.
    pub parallel_max: Option<NonZeroU32>,
    /// The countable resources of the host that each guest needs.
    pub resources: ResourceCounts,
    /// The expected growth of a guest's snapshot, in KiB; set by the host's settings if
    /// `None`.
    pub disk_growth_kib: Option<NonZeroU64>,
    /// The file with the root disk; for a container, the directory with the root.
    pub disk: FileName,
    /// The disk cache mode of a `kvm` machine.
    pub disk_cache: DiskCache,
    /// The time limits of guests: `start-seconds-max`, `silence-seconds-max`,
    /// `total-seconds-max` and `shutdown-seconds-max`. The host's settings may override them.
    pub limits: LimitOverrides,
    /// The firmware of a `kvm` machine: `bios` or `uefi`.
    pub firmware: Firmware,
    /// Lets the host keep a checkpoint for warm starts: `frozen: auto` or `off`.
    pub checkpoint: bool,
    /// The egress of its guests, if the host allows it.
    pub egress: Egress,
    /// Additional options for QEMU or systemd-nspawn. They can give any file of the host
    /// to a guest, so the machine runs only if the host allows options.
    pub options: Vec<String>,
    /// The kernel to boot; if `None`, the firmware starts the disk's boot loader.
    pub boot: Option<Boot>,
}

/// A kernel that is loaded from outside the guest's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The file with the kernel.
    pub kernel: FileName,
    /// The file with the initial RAM disk.
    pub initrd: Option<FileName>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// All faults of a machine's manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct MachineError(pub Vec<String>);

/// The memory of a guest whose machine does not state it, in KiB.
const MEMORY_KIB: NonZeroU64 = NonZeroU64::MIN.saturating_add(512 * 1024 - 1);

/// All known values, including those of build2 that are ignored.
const KNOWN: [&str; 27] = [
    "id",
    "name",
    "summary",
    "role",
    "type",
    "ram-minimum",
    "ram-maximum",
    "cpus",
    "cpus-max",
    "parallel-max",
    "resources",
    "disk-growth",
    "disk-cache",
    "start-seconds-max",
    "silence-seconds-max",
    "total-seconds-max",
    "shutdown-seconds-max",
    "disk",
    "firmware",
    "frozen",
    "egress",
    "kernel",
    "initrd",
    "cmdline",
    "mac",
    "options",
    "changes",
];

impl Machine {
    /// Parses the text of a manifest file.
    ///
    /// # Errors
    /// All faults of the text.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let list =
            manifest::parse_local(text).map_err(|error| MachineError(vec![error.to_string()]))?;
        match <[Manifest; 1]>::try_from(list) {
            Ok([manifest]) => Self::check(&manifest),
            Err(list) => Err(MachineError(vec![format!(
                "one manifest is expected, not {}",
                list.len()
            )])),
        }
    }

    fn check(manifest: &Manifest) -> Result<Self, MachineError> {
        let mut reader = Reader {
            manifest,
            faults: Vec::new(),
        };
        reader.reject_unknown();
        let kernel: Option<FileName> = reader.optional("kernel");
        let initrd = reader.optional("initrd");
        let cmdline = manifest.get("cmdline");
        if kernel.is_none() && (initrd.is_some() || cmdline.is_some()) {
            reader
                .faults
                .push("`initrd` and `cmdline` need a `kernel`".to_owned());
        }
        let (id, summary) = (reader.text("id"), reader.text("summary"));
        let kind = reader.choice("type", &[("kvm", Kind::Kvm), ("nspawn", Kind::Nspawn)]);
        if kind == Kind::Nspawn && kernel.is_some() {
            let fault = "a machine of the type nspawn has no `kernel` of its own";
            reader.faults.push(fault.to_owned());
        }
        let firmware = [("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];
        let firmware = reader.choice("firmware", &firmware);
        if kind == Kind::Nspawn && manifest.get("firmware").is_some() {
            let fault = "a machine of the type nspawn has no `firmware`";
            reader.faults.push(fault.to_owned());
        }
        let disk = match kind {
            Kind::Kvm => FileName::disk(),
            Kind::Nspawn => FileName::root(),
        };
        let (memory_kib, memory_max_kib) = reader.bounded("ram-minimum", MEMORY_KIB, "ram-maximum");
        let (cpus, cpus_max) = reader.bounded("cpus", NonZeroU32::MIN, "cpus-max");
        let machine = Self {
            id,
            summary,
            kind,
            role: reader.role(),
            memory_kib,
            memory_max_kib,
            cpus,
            cpus_max,
            parallel_max: reader.optional("parallel-max"),
            resources: reader.or("resources", ResourceCounts::default()),
            disk_growth_kib: reader.optional("disk-growth"),
            disk: reader.or("disk", disk),
            disk_cache: reader.choice(
                "disk-cache",
                &[
                    ("unsafe", DiskCache::Unsafe),
                    ("writeback", DiskCache::Writeback),
                    ("none", DiskCache::None),
                ],
            ),
            limits: reader.limits(),
            firmware,
            checkpoint: reader.choice("frozen", &[("auto", true), ("off", false)])
                && kind == Kind::Kvm,
            egress: reader.or("egress", Egress::None),
            options: reader.options(),
            boot: kernel.map(|kernel| Boot {
                kernel,
                initrd,
                cmdline: cmdline.unwrap_or_default().to_owned(),
            }),
        };
        if reader.faults.is_empty() {
            Ok(machine)
        } else {
            Err(MachineError(reader.faults))
        }
    }
}

/// A reader of values that collects all faults.
struct Reader<'a> {
    manifest: &'a Manifest,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn reject_unknown(&mut self) {
        for (name, _) in self.manifest.pairs() {
            if !KNOWN.contains(&name.as_str()) {
                self.faults
                    .push(format!("`{name}` is not a value of a machine"));
            }
        }
    }

    fn text(&mut self, name: &str) -> String {
        let value = self.manifest.get(name).unwrap_or_default();
        if value.is_empty() {
            self.faults.push(format!("`{name}` is missing"));
        }
        value.to_owned()
    }

    /// Reads one of a few words; the first one is the default.
    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> T {
        let Some(value) = self.manifest.get(name) else {
            return choices[0].1;
        };
        let found = choices.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let expected: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            let expected = expected.join(" or ");
            self.faults
                .push(format!("`{name}` is {expected}, not `{value}`"));
        }
        found.unwrap_or(&choices[0]).1
    }

    /// Reads a value and its upper bound. The default of the value is at most the bound.
    fn bounded<T: Copy + Ord + std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
        default: T,
        bound_name: &str,
    ) -> (T, Option<T>) {
        let (value, bound) = (self.optional(name), self.optional(bound_name));
        if value.zip(bound).is_some_and(|(value, bound)| value > bound) {
            self.faults
                .push(format!("`{bound_name}` is less than `{name}`"));
        }
        let default = bound.map_or(default, |bound| default.min(bound));
        (value.unwrap_or(default), bound)
    }

    fn role(&mut self) -> Role {
        let roles = [("build", Role::Build), ("auxiliary", Role::Auxiliary)];
        self.choice("role", &roles)
    }

    fn limits(&mut self) -> LimitOverrides {
        let mut limit = |name: &str| self.optional(name).map(|Seconds(limit)| limit);
        LimitOverrides {
            start: limit("start-seconds-max"),
            idle: limit("silence-seconds-max"),
            total: limit("total-seconds-max"),
            shutdown: limit("shutdown-seconds-max"),
        }
    }

    /// Reads words with a shell's quoting.
    fn options(&mut self) -> Vec<String> {
        let words = shlex::split(self.manifest.get("options").unwrap_or_default());
        words.unwrap_or_else(|| {
            let fault = "`options`: a quote does not end";
            self.faults.push(fault.to_owned());
            Vec::new()
        })
    }

    fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let parsed = self.manifest.get(name)?.parse();
        parsed
            .map_err(|error| self.faults.push(format!("`{name}`: {error}")))
            .ok()
    }

    fn or<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_manifest_is_parsed() {
        let text = ": 1\nid: demo-1\nname: demo\nsummary: A demo\ntype: kvm\nram-minimum: 262144\ncpus: 2\ndisk: root.img\nkernel: vmlinuz\ninitrd: initrd\ncmdline: console=ttyS0 quiet\n";
        let machine = Machine::parse(text).unwrap();
        assert_eq!(machine.memory_kib.get(), 262_144);
        assert_eq!(machine.cpus.get(), 2);
        assert_eq!(machine.boot.unwrap().cmdline, "console=ttyS0 quiet");
    }

    #[test]
    fn missing_values_have_defaults() {
        let machine = Machine::parse(": 1\nid: x\nsummary: y\n").unwrap();
        assert_eq!(machine.kind, Kind::Kvm);
        assert_eq!(machine.memory_kib.get(), 524_288);
        assert_eq!(machine.disk.as_str(), "disk.img");
        assert_eq!(machine.boot, None);
        assert!(machine.checkpoint);
        let container = Machine::parse(": 1\nid: x\nsummary: y\ntype: nspawn\n").unwrap();
        assert_eq!(container.disk.as_str(), "root");
        assert!(!container.checkpoint);
    }

    #[test]
    fn bounds_are_at_least_the_values_that_they_bound() {
        let parse = |values: &str| Machine::parse(&format!(": 1\nid: x\nsummary: y\n{values}"));
        let machine = parse("cpus: 2\ncpus-max: 8\nram-maximum: 4194304\n").unwrap();
        assert_eq!(machine.cpus_max.map(NonZeroU32::get), Some(8));
        assert_eq!(machine.memory_kib.get(), 524_288);
        let small = parse("ram-maximum: 262144\n").unwrap();
        assert_eq!(small.memory_kib.get(), 262_144, "an unstated value");
        let error = parse("cpus: 2\ncpus-max: 1\nram-minimum: 2\nram-maximum: 1\n").unwrap_err();
        let faults = [
            "`ram-maximum` is less than `ram-minimum`",
            "`cpus-max` is less than `cpus`",
        ];
        assert_eq!(error.0, faults);
    }

    #[test]
    fn only_virtual_machines_have_firmware() {
        let firmware = |kind: &str| {
            let text = format!(": 1\nid: x\nsummary: y\ntype: {kind}\nfirmware: uefi\n");
            Machine::parse(&text).map(|machine| machine.firmware)
        };
        assert_eq!(firmware("kvm"), Ok(Firmware::Uefi));
        let error = firmware("nspawn").unwrap_err().to_string();
        assert_eq!(error, "a machine of the type nspawn has no `firmware`");
    }

    #[test]
    fn a_machine_is_for_builds_unless_it_is_auxiliary() {
        let role = |value: &str| {
            let machine = Machine::parse(&format!(": 1\nid: x\nsummary: y\n{value}"));
            machine.map(|machine| machine.role)
        };
        assert_eq!(role(""), Ok(Role::Build));
        assert_eq!(role("role: build\n"), Ok(Role::Build));
        assert_eq!(role("role: auxiliary\n"), Ok(Role::Auxiliary));
        let error = role("role: helper\n").unwrap_err().to_string();
        assert_eq!(error, "`role` is `build` or `auxiliary`, not `helper`");
    }

    #[test]
    fn time_limits_and_the_disk_cache_mode_are_parsed() {
        let text = ": 1\nid: x\nsummary: y\nstart-seconds-max: 900\ndisk-cache: none\n";
        let machine = Machine::parse(text).unwrap();
        assert_eq!(machine.limits.start, Some(Duration::from_mins(15)));
        assert_eq!(machine.limits.total, None);
        assert_eq!(machine.disk_cache, DiskCache::None);
    }

    #[test]
    fn options_are_split_like_shell_words() {
        let options = |value: &str| {
            let text = format!(": 1\nid: x\nsummary: y\noptions: {value}\n");
            Machine::parse(&text).map(|machine| machine.options)
        };
        let words = ["-device", "usb-ehci,id=a b"].map(str::to_owned).to_vec();
        assert_eq!(options("-device 'usb-ehci,id=a b'"), Ok(words));
        let error = options("-device 'usb").unwrap_err();
        assert_eq!(error.to_string(), "`options`: a quote does not end");
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let text = ": 1\nsummary: y\ntype: xen\nram-minimum: 0\ndisk: ../x\ninitrd: i\nfirmware: coreboot\nfrozen: warm\ndisk-cache: big\ntotal-seconds-max: 0\ncolour: red\n";
        insta::assert_snapshot!(Machine::parse(text).unwrap_err().0.join("\n"));
    }
}
