//! The settings of how guests are run.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::MIB;
use super::reader::Reader;
use crate::egress::EgressMode;
use crate::limits::LimitRule;

/// Which accelerator QEMU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// KVM where it really works, else TCG.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The files of the firmware for machines that boot by UEFI. They belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uefi {
    /// The firmware itself.
    pub code: PathBuf,
    /// The variables that a machine begins with which brings none.
    pub variables: PathBuf,
}

/// How guests are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// The user that guests run as; it owns nothing but their snapshots.
    pub user: String,
    /// The accelerator.
    pub acceleration: Acceleration,
    /// The firmware of machines that boot by UEFI.
    pub uefi: Uefi,
    /// How many guests run at once, at the most; as many as there is room for if `None`.
    pub parallel_max: Option<usize>,
    /// How many of them run on one machine whose manifest does not say it.
    pub per_machine_max: Option<usize>,
    /// How often processors may be given away: 100 is once.
    pub cpu_percent: u64,
    /// The memory of all guests together; that of the host less its reserve if `None`.
    pub memory_bytes: Option<u64>,
    /// The memory that is the host's own.
    pub memory_reserve_bytes: u64,
    /// What the snapshot of a machine grows by whose manifest does not say it.
    pub disk_growth_bytes: u64,
    /// Whether guests are kept frozen at their start, for builds to wake.
    pub checkpoints: bool,
    /// Whether machines may bring options for QEMU or systemd-nspawn.
    pub options_allowed: bool,
    /// How long the guests of single machines may take.
    pub limits: Vec<LimitRule>,
    /// From the waking of a frozen guest to its first packet.
    pub restore_limit: Duration,
    /// How far machines may ask to reach beyond the host.
    pub egress: EgressMode,
    /// The private networks that guests may reach then.
    pub egress_private: Vec<IpNet>,
}

pub(super) fn guests(reader: &mut Reader<'_>) -> Guests {
    use Acceleration::{Auto, Kvm, Tcg};
    // Nothing is said by 0.
    let some = |number: u64| usize::try_from(number).ok().filter(|number| *number > 0);
    let accelerators = [("auto", Auto), ("kvm", Kvm), ("tcg", Tcg)];
    let reaches = [
        ("none", EgressMode::None),
        ("allow", EgressMode::Allow),
        ("nat", EgressMode::Nat),
    ];
    Guests {
        user: reader.text("guests.user", "buildhost-guest", |text| match text {
            "" | "root" => Err("an unprivileged user is expected"),
            _ => Ok(()),
        }),
        acceleration: reader.choice("guests.acceleration", &accelerators),
        uefi: Uefi {
            code: reader.path("guests.uefi_code", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
            variables: reader.path("guests.uefi_variables", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        },
        parallel_max: some(reader.number("guests.parallel_max", 0, 0..=4096)),
        per_machine_max: some(reader.number("guests.per_machine_max", 0, 0..=4096)),
        cpu_percent: reader.number("guests.cpu_percent", 200, 1..=10_000),
        memory_bytes: some(reader.number("guests.memory_mib", 0, 0..=1 << 30))
            .map(|mebibytes| MIB * mebibytes as u64),
        memory_reserve_bytes: MIB * reader.number("guests.memory_reserve_mib", 512, 0..=1 << 30),
        disk_growth_bytes: MIB * reader.number("guests.disk_growth_mib", 256, 0..=1 << 30),
        checkpoints: reader.choice("guests.frozen", &[("auto", true), ("off", false)]),
        options_allowed: reader.choice("guests.options", &[("refuse", false), ("allow", true)]),
        limits: reader.list(
            "guests.limits",
            "`PATTERN = start SECONDS silence SECONDS total SECONDS`",
            |text| text.parse().ok(),
        ),
        restore_limit: reader.seconds("guests.wake_seconds_max", 15),
        egress: reader.choice("guests.egress", &reaches),
        egress_private: reader.list(
            "guests.egress_private",
            "networks such as `10.1.0.0/16`",
            |text| text.parse().ok(),
        ),
    }
}
