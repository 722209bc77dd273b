//! The settings of guests.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Reader;
use crate::egress::EgressMode;
use crate::limits::LimitRule;
use crate::pressure::{PressureKind, PressureLimits};
use crate::resource_counts::ResourceCounts;

/// QEMU's accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// KVM if it works on this host, else TCG.
    Auto,
    /// KVM only.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The host's UEFI firmware. The two files belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uefi {
    /// The firmware's code.
    pub code: PathBuf,
    /// The initial variables of a machine that has none of its own.
    pub variables: PathBuf,
}

/// A range of numbers of users, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The smallest number.
    pub first: u32,
    /// The largest number.
    pub last: u32,
}

/// The default of `guests.uids`.
const UIDS: UidRange = UidRange {
    first: 1_900_000_000,
    last: 1_900_065_535,
};
/// The numbers that neither users of hosts have, nor containers, nor confined tools, nor the
/// kernel.
const UNUSED: std::ops::RangeInclusive<u32> = 1_879_048_192..=2_099_999_999;
/// The smallest size of a range: no agent runs more guests.
const UIDS_MIN: u32 = 4096;

impl FromStr for UidRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (first, last) = text.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let (first, last): (u32, u32) =
            parse().ok_or("a range such as `1900000000-1900065535` is expected")?;
        if !UNUSED.contains(&first) || !UNUSED.contains(&last) {
            return Err("numbers from 1879048192 to 2099999999 are expected");
        }
        if last < first || last - first < UIDS_MIN - 1 {
            return Err("at least 4096 numbers are expected");
        }
        Ok(Self { first, last })
    }
}

/// The settings of guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// The numbers of the users that virtual machines run as.
    pub uids: UidRange,
    /// QEMU's accelerator.
    pub acceleration: Acceleration,
    /// The firmware of machines that boot by UEFI.
    pub uefi: Uefi,
    /// The largest number of guests; if `None`, only processors and memory limit it.
    pub parallel_max: Option<usize>,
    /// The largest number of guests of a machine whose manifest does not set it.
    pub per_machine_max: Option<usize>,
    /// The processors that guests may be given, in percent of the host's: above 100 they are
    /// overcommitted.
    pub cpu_percent: u64,
    /// The memory for all guests; if `None`, the host's memory less its reserve.
    pub memory_bytes: Option<u64>,
    /// The memory that is kept for the host itself.
    pub memory_reserve_bytes: u64,
    /// The countable resources that the host has for guests.
    pub resources: ResourceCounts,
    /// The pressure on the host above which no guest starts beside another one.
    pub pressure: PressureLimits,
    /// The expected growth of a snapshot of a machine whose manifest does not set it.
    pub disk_growth_bytes: u64,
    /// Keeps a checkpoint in each image, from which builds start warm.
    pub checkpoints: bool,
    /// The largest number of ready guests of each machine with each toolchain.
    pub ready_max: usize,
    /// Lets machines bring options for QEMU or systemd-nspawn.
    pub options_allowed: bool,
    /// The time limits of the guests of single machines.
    pub limits: Vec<LimitRule>,
    /// The longest time from the restore of a checkpoint to the guest's first packet.
    pub restore_limit: Duration,
    /// The widest egress that a machine may request.
    pub egress: EgressMode,
    /// The private networks that guests with egress may reach.
    pub egress_private: Vec<IpNet>,
}

fn uids(reader: &mut Reader<'_>) -> UidRange {
    // The user of all guests in earlier versions.
    reader.retired("guests.user");
    let text = reader.optional_text("guests.uids", |text| text.parse::<UidRange>().map(drop));
    text.and_then(|text| text.parse().ok()).unwrap_or(UIDS)
}

fn resources(reader: &mut Reader<'_>) -> ResourceCounts {
    let key = "guests.resources";
    let counts = reader.list(key, "`NAME = COUNT`", |text| text.parse().ok());
    ResourceCounts::collect(counts).unwrap_or_else(|error| {
        reader.fault(key, &error.to_string());
        ResourceCounts::default()
    })
}

/// Reads the limits on pressure. Builds keep all processors and disks of a host busy, so only
/// that on memory has one by default.
fn pressure(reader: &mut Reader<'_>) -> PressureLimits {
    let mut limit = |kind: PressureKind, default| {
        let percent = reader.small_number(kind.setting(), default, 0..=100);
        Some(percent).filter(|percent| *percent > 0)
    };
    PressureLimits {
        memory: limit(PressureKind::Memory, 20),
        io: limit(PressureKind::Io, 0),
        cpu: limit(PressureKind::Cpu, 0),
    }
}

pub(super) fn guests(reader: &mut Reader<'_>) -> Guests {
    let accelerators = [
        ("auto", Acceleration::Auto),
        ("kvm", Acceleration::Kvm),
        ("tcg", Acceleration::Tcg),
    ];
    let egress_modes = [
        ("none", EgressMode::None),
        ("allow", EgressMode::Allow),
        ("nat", EgressMode::Nat),
    ];
    Guests {
        uids: uids(reader),
        acceleration: reader.choice("guests.acceleration", &accelerators),
        uefi: Uefi {
            code: reader.path("guests.uefi_code", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
            variables: reader.path("guests.uefi_variables", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        },
        parallel_max: reader.optional_count("guests.parallel_max", 0, 4096),
        per_machine_max: reader.optional_count("guests.per_machine_max", 0, 4096),
        cpu_percent: reader.number("guests.cpu_percent", 200, 1..=10_000),
        memory_bytes: reader.optional_mebibytes("guests.memory_mib"),
        memory_reserve_bytes: reader.mebibytes("guests.memory_reserve_mib", 512, 0..=1 << 30),
        resources: resources(reader),
        pressure: pressure(reader),
        disk_growth_bytes: reader.mebibytes("guests.disk_growth_mib", 256, 0..=1 << 30),
        checkpoints: reader.choice("guests.frozen", &[("auto", true), ("off", false)]),
        ready_max: reader.count("guests.ready_max", 2, 0..=64),
        options_allowed: reader.choice("guests.options", &[("refuse", false), ("allow", true)]),
        limits: reader.list(
            "guests.limits",
            "`PATTERN = start SECONDS silence SECONDS total SECONDS shutdown SECONDS`",
            |text| text.parse().ok(),
        ),
        restore_limit: reader.seconds("guests.wake_seconds_max", 15),
        egress: reader.choice("guests.egress", &egress_modes),
        egress_private: reader.list(
            "guests.egress_private",
            "networks such as `10.1.0.0/16`",
            |text| text.parse().ok(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_nobody_else_has_are_a_range() {
        let table = [
            ("1900000000-1900065535", Ok(UIDS)),
            ("1900000000", Err("a range")),
            ("1900000000-", Err("a range")),
            ("a-b", Err("a range")),
            // Root, users of the host, containers of systemd-nspawn, `(uid_t) -1`.
            ("0-65535", Err("numbers from")),
            ("100000-165535", Err("numbers from")),
            ("524288-589823", Err("numbers from")),
            ("2147300000-4294967295", Err("numbers from")),
            ("1900065535-1900000000", Err("at least")),
            ("1900000000-1900004094", Err("at least")),
        ];
        for (text, expected) in table {
            match (text.parse::<UidRange>(), expected) {
                (Ok(range), Ok(expected)) => assert_eq!(range, expected),
                (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{text}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_countable_resources_of_a_host_are_a_list() {
        use crate::settings::Settings;
        let parse = |list: &str| Settings::parse(&format!("[guests]\nresources = {list}\n"));
        let counts = parse(r#"["license = 2", "modem=1"]"#).unwrap();
        assert_eq!(counts.guests.resources.to_string(), "license=2 modem=1");
        let fault = |list: &str| parse(list).unwrap_err()[0].to_string();
        let twice = "line 2: `guests.resources`: resource license is named twice";
        assert_eq!(fault(r#"["license = 2", "license = 1"]"#), twice);
        let form = "line 2: `guests.resources`: a list of `NAME = COUNT` is expected";
        assert!(
            fault(r#"["license = 0"]"#).starts_with(form),
            "{}",
            fault(r#"["license = 0"]"#)
        );
    }

    #[test]
    fn the_user_of_earlier_versions_is_accepted_without_effect() {
        use crate::settings::Settings;
        let old = Settings::parse("[guests]\nuser = \"buildhost-guest\"\n");
        assert_eq!(old, Settings::parse(""));
    }
}
