//! What a machine says of itself: the file `manifest` in each of its revisions.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use crate::egress::Egress;
use crate::limits::{LimitOverrides, Seconds};
use crate::manifest::{self, Manifest};
use crate::names::FileName;

/// The name of the file, in the top directory of a revision.
pub const FILE: &str = "manifest";

/// The file with the variables of a machine that boots by UEFI, such as the entries
/// that an installer made: beside the manifest. Without one the host's firmware
/// begins with its own, and the bootstrapped image keeps what has become of them.
pub const UEFI_VARIABLES: &str = "uefi.vars";

/// How a machine is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A virtual machine, by QEMU.
    #[default]
    Kvm,
    /// A container, by systemd-nspawn.
    Nspawn,
}

/// What starts the boot loader or the kernel of a `kvm` machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU's BIOS.
    #[default]
    Bios,
    /// The host's UEFI firmware, with the variables in [`UEFI_VARIABLES`].
    Uefi,
}

/// How the disk of a `kvm` machine is written; a bootstrap always heeds flushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskCache {
    /// Into the host's memory, and a build's flushes do nothing: its snapshot is
    /// thrown away.
    #[default]
    Unsafe,
    /// Into the host's memory, and flushes take as long as they do.
    Writeback,
    /// Past the host's memory: for machines whose disks would only crowd it out.
    None,
}

/// A machine's manifest, checked.
///
/// The names of values are those of build2's machine manifests; `kernel`,
/// `initrd`, `cmdline`, `disk`, `cpus`, `firmware`, `frozen`, `egress`,
/// `parallel-max`, `disk-growth`, `disk-cache` and `…-seconds-max` are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Tells this content from every other; for people and controllers.
    pub id: String,
    /// One line for people.
    pub summary: String,
    /// How it is run.
    pub kind: Kind,
    /// Memory of a guest, in KiB.
    pub memory_kib: NonZeroU64,
    /// Processors of a guest.
    pub cpus: NonZeroU32,
    /// How many guests it may have at once; what the host's settings say if `None`.
    pub parallel_max: Option<NonZeroU32>,
    /// What the snapshot of a guest may grow by, in KiB; likewise.
    pub disk_growth_kib: Option<NonZeroU64>,
    /// The file with the root disk; of a container, the directory with its root.
    pub disk: FileName,
    /// What of the host is between the disk of a `kvm` machine and its guests.
    pub disk_cache: DiskCache,
    /// How long its guests may take: `start-seconds-max`, `silence-seconds-max` and
    /// `total-seconds-max`. The host's operator may say otherwise.
    pub limits: LimitOverrides,
    /// What starts a `kvm` machine: `bios` or `uefi`.
    pub firmware: Firmware,
    /// Whether a guest is kept frozen at its start, for builds to wake: `auto` or
    /// `off`.
    pub checkpoint: bool,
    /// What of the world outside its guests reach, if the host lets them.
    pub egress: Egress,
    /// Options for QEMU, or for systemd-nspawn, besides ours. They can hand any file
    /// of the host to a guest: nothing runs with them unless the host allows it.
    pub options: Vec<String>,
    /// What its firmware boots; without it, the disk's own boot loader.
    pub boot: Option<Boot>,
}

/// A kernel that is handed to the guest from outside its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The file with the kernel.
    pub kernel: FileName,
    /// The file with the initial RAM disk.
    pub initrd: Option<FileName>,
    /// The kernel's command line.
    pub cmdline: String,
}

/// Everything that is wrong with a machine's manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct MachineError(pub Vec<String>);

/// The values that we read, and those of build2's that we let stand unread.
const KNOWN: [&str; 24] = [
    "id",
    "name",
    "summary",
    "role",
    "type",
    "ram-minimum",
    "ram-maximum",
    "cpus",
    "parallel-max",
    "disk-growth",
    "disk-cache",
    "start-seconds-max",
    "silence-seconds-max",
    "total-seconds-max",
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
    /// Reads the text of a manifest file.
    ///
    /// # Errors
    /// Every fault of the text at once.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let list = manifest::parse(text).map_err(|error| MachineError(vec![error.to_string()]))?;
        match <[Manifest; 1]>::try_from(list) {
            Ok([manifest]) => Self::check(&manifest),
            Err(list) => Err(MachineError(vec![format!(
                "one manifest is expected, there are {}",
                list.len()
            )])),
        }
    }

    fn check(manifest: &Manifest) -> Result<Self, MachineError> {
        let mut reader = Reader {
            manifest,
            faults: Vec::new(),
        };
        reader.refuse_unknown();
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
        let machine = Self {
            id,
            summary,
            kind,
            memory_kib: reader.or(
                "ram-minimum",
                NonZeroU64::MIN.saturating_add(512 * 1024 - 1),
            ),
            cpus: reader.or("cpus", NonZeroU32::MIN),
            parallel_max: reader.optional("parallel-max"),
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

/// Reads values and collects what is wrong with them.
struct Reader<'a> {
    manifest: &'a Manifest,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn refuse_unknown(&mut self) {
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

    /// One of a few words; the first one is meant when nothing is said.
    fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> T {
        let Some(value) = self.manifest.get(name) else {
            return words[0].1;
        };
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let list: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let list = list.join(" or ");
            self.faults
                .push(format!("`{name}` is {list}, not `{value}`"));
        }
        found.unwrap_or(&words[0]).1
    }

    fn limits(&mut self) -> LimitOverrides {
        let mut limit = |name: &str| self.optional(name).map(|Seconds(limit)| limit);
        LimitOverrides {
            start: limit("start-seconds-max"),
            idle: limit("silence-seconds-max"),
            total: limit("total-seconds-max"),
        }
    }

    /// Words as a shell would read them.
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
    fn a_full_manifest_is_read() {
        let text = ": 1\nid: demo-1\nname: demo\nsummary: A demo\ntype: kvm\nram-minimum: 262144\ncpus: 2\ndisk: root.img\nkernel: vmlinuz\ninitrd: initrd\ncmdline: console=ttyS0 quiet\n";
        let machine = Machine::parse(text).unwrap();
        assert_eq!(machine.memory_kib.get(), 262_144);
        assert_eq!(machine.cpus.get(), 2);
        assert_eq!(machine.boot.unwrap().cmdline, "console=ttyS0 quiet");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
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
    fn a_machine_may_ask_for_uefi_and_a_container_has_no_firmware() {
        let firmware = |kind: &str| {
            let text = format!(": 1\nid: x\nsummary: y\ntype: {kind}\nfirmware: uefi\n");
            Machine::parse(&text).map(|machine| machine.firmware)
        };
        assert_eq!(firmware("kvm"), Ok(Firmware::Uefi));
        let error = firmware("nspawn").unwrap_err().to_string();
        assert_eq!(error, "a machine of the type nspawn has no `firmware`");
    }

    #[test]
    fn a_machine_says_how_long_its_guests_take_and_how_its_disk_is_written() {
        let text = ": 1\nid: x\nsummary: y\nstart-seconds-max: 900\ndisk-cache: none\n";
        let machine = Machine::parse(text).unwrap();
        assert_eq!(machine.limits.start, Some(Duration::from_mins(15)));
        assert_eq!(machine.limits.total, None);
        assert_eq!(machine.disk_cache, DiskCache::None);
    }

    #[test]
    fn options_are_words_as_in_a_shell() {
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
    fn all_faults_are_told_at_once() {
        let text = ": 1\nsummary: y\ntype: xen\nram-minimum: 0\ndisk: ../x\ninitrd: i\nfirmware: coreboot\nfrozen: warm\ndisk-cache: big\ntotal-seconds-max: 0\ncolour: red\n";
        insta::assert_snapshot!(Machine::parse(text).unwrap_err().0.join("\n"));
    }
}
