//! The errors of starting and reaching a guest.

use std::io;
use std::path::{Path, PathBuf};

use config::machine::SYSTEMD_IN_CONTAINER;

use crate::network::NetworkError;
use crate::qemu::qmp::QmpError;

/// A reason why a guest cannot be started, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The settings demand KVM, which does not work.
    #[error(
        "KVM does not work on this host, or only root may open /dev/kvm; give the device a \
         group of its own, or set guests.acceleration to \"auto\" or \"tcg\""
    )]
    NoKvm,
    /// The machine boots by UEFI, and the host has no firmware for it.
    #[error(
        "the machine boots by UEFI, and its firmware {} cannot be used; install the package \
         ovmf, or set guests.uefi_code and guests.uefi_variables to its files",
        path.display()
    )]
    NoFirmware {
        /// The missing file.
        path: PathBuf,
        /// The error of the file.
        source: io::Error,
    },
    /// The machine's firmware variables belong to another firmware.
    #[error(
        "{} has {bytes} bytes and belongs to another firmware than this host's, which has \
         {expected}; delete it from the image, or set guests.uefi_code and \
         guests.uefi_variables to the firmware that it belongs to",
        path.display()
    )]
    UefiVariables {
        /// The file with the variables.
        path: PathBuf,
        /// The file's size.
        bytes: u64,
        /// The size that the firmware expects.
        expected: u64,
    },
    /// A checkpoint of a container was requested.
    #[error("a container cannot be checkpointed or restored")]
    Container,
    /// A container would start systemd.
    #[error("the machine cannot start: {SYSTEMD_IN_CONTAINER}")]
    Systemd,
    /// The checkpoint belongs to another QEMU, command line or processor.
    #[error("the checkpoint does not fit this host any more; save another one")]
    StaleCheckpoint,
    /// All users of the setting `guests.uids` are taken.
    #[error("all users of the setting guests.uids are taken; name a larger range")]
    NoUid,
    /// The run directory belongs to a running guest.
    #[error("a guest with the run directory {} is running", .0.display())]
    Running(PathBuf),
    /// The guest's network cannot be used.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A file of the guest's snapshot cannot be used.
    #[error("cannot open {} for the guest", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the file.
        source: io::Error,
    },
    /// The run directory or the process record cannot be used.
    #[error("cannot use {}", path.display())]
    RunDir {
        /// The file or directory.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// QEMU or systemd-nspawn cannot be executed.
    #[error("cannot start the guest's program")]
    Spawn(#[source] io::Error),
    /// QEMU or nspawn ended, does not answer, or refuses a command.
    #[error("the guest's program failed{}", stderr_suffix(stderr))]
    Program {
        /// The end of its standard error.
        stderr: String,
        /// The first error that was noticed.
        source: QmpError,
    },
    /// The guest's resource limits cannot be set.
    #[error("cannot set the resource limits of the guest")]
    Limit(#[source] io::Error),
    /// The guest's process cannot be held.
    #[error("cannot open the guest's process")]
    Pidfd(#[source] io::Error),
    /// The guest's process does not end.
    #[error("the guest's process {0} was killed and does not end")]
    Unkillable(u32),
}

impl GuestError {
    /// Returns a constructor of the error of a path in the run directory.
    pub(crate) fn run_dir(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::RunDir { path, source }
    }
}

/// Returns the end of an error message: a program's standard error, if it has written any.
pub fn stderr_suffix(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}
