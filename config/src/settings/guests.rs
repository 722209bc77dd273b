//! The settings of guests.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::Reader;
use crate::egress::EgressMode;
use crate::limits::LimitRule;

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

/// The settings of guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// The unprivileged user that guests run as; it owns nothing but their snapshots.
    pub user: String,
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
    /// The expected growth of a snapshot of a machine whose manifest does not set it.
    pub disk_growth_bytes: u64,
    /// Keeps a checkpoint in each image, from which builds start warm.
    pub checkpoints: bool,
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
        user: reader.text("guests.user", "buildhost-guest", |text| match text {
            "" | "root" => Err("an unprivileged user is expected"),
            _ => Ok(()),
        }),
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
        disk_growth_bytes: reader.mebibytes("guests.disk_growth_mib", 256, 0..=1 << 30),
        checkpoints: reader.choice("guests.frozen", &[("auto", true), ("off", false)]),
        options_allowed: reader.choice("guests.options", &[("refuse", false), ("allow", true)]),
        limits: reader.list(
            "guests.limits",
            "`PATTERN = start SECONDS silence SECONDS total SECONDS`",
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
