//! The description of a guest to start.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use config::machine::{Boot, Machine};
use config::settings::{Acceleration, Uefi};

use crate::network::Port;
use crate::sealed_memory::SealedMemory;

/// The description of a guest to start.
#[derive(Debug)]
pub struct Spec {
    /// Its name in the host's list of processes.
    pub name: String,
    /// Its snapshot, with the files that the machine's manifest names.
    pub directory: PathBuf,
    /// The machine's manifest.
    pub machine: Machine,
    /// The user that QEMU runs as, and no other guest.
    pub user: User,
    /// The directory for its sockets and its process record; created if missing.
    pub run_dir: PathBuf,
    /// The name of its network, which must exist.
    pub network: String,
    /// Its port if the network has several guests.
    pub port: Option<Port>,
    /// The accelerator that the settings ask for.
    pub acceleration: Acceleration,
    /// The host's firmware, for a machine that boots by UEFI.
    pub uefi: Uefi,
    /// Passes the guest's flushes on to the host's disk. Otherwise its disk is thrown away
    /// with it, and flushes do nothing.
    pub durable: bool,
    /// The way in which it boots.
    pub boot: BootMode,
    /// The memory of the checkpoint to restore, if it is shared with other guests. Otherwise
    /// the guest has that of its own snapshot.
    pub shared_memory: Option<SealedMemory>,
    /// Leaves the processors of a virtual machine stopped until [`Guest::resume`](crate::Guest::resume).
    pub paused: bool,
    /// Descriptors that stay open as long as the guest lives, such as a lock.
    pub keep_open: Vec<OwnedFd>,
}

/// The way in which a guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// Boots from its disk.
    Cold,
    /// Boots from a clone of its disk, with its memory in a file, so that a checkpoint of
    /// it can be saved. The machine's own disk stays unchanged.
    CheckpointSource,
    /// Continues from the checkpoint in its directory. The checkpoint's memory file stays
    /// unchanged.
    Restore,
}

/// An unprivileged user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's group.
    pub gid: u32,
}

impl Spec {
    /// Returns the name of its control group, which no other guest has.
    pub(crate) fn group(&self) -> String {
        let suffix = self.port.map(Port::suffix).unwrap_or_default();
        format!("{}{suffix}", self.network)
    }

    /// Returns the kernel that QEMU boots; `None` if the guest is restored, or if the firmware
    /// starts the disk's boot loader.
    pub(crate) fn kernel(&self) -> Option<&Boot> {
        let boot = self.machine.boot.as_ref();
        boot.filter(|_| self.boot != BootMode::Restore)
    }
}

#[cfg(test)]
impl Spec {
    /// Returns the guest of build 42 on a machine with this manifest.
    pub(crate) fn example(manifest: &str) -> Self {
        Self {
            name: "demo, build 42".to_owned(),
            directory: "/build/machines/default/demo/demo-default-42".into(),
            machine: Machine::parse(manifest).unwrap(),
            user: User { uid: 900, gid: 900 },
            run_dir: "/run/buildhost/guests/42".into(),
            network: "buildhost-42".to_owned(),
            port: None,
            acceleration: Acceleration::Auto,
            uefi: config::settings::Settings::parse("").unwrap().guests.uefi,
            durable: false,
            boot: BootMode::Cold,
            shared_memory: None,
            paused: false,
            keep_open: Vec::new(),
        }
    }
}
