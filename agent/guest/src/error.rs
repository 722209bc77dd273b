//! Why a guest cannot be started or reached.

use std::io;
use std::path::{Path, PathBuf};

use crate::network::NetworkError;
use crate::qemu::qmp::QmpError;

/// Why a guest cannot be started or reached.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// KVM was asked for.
    #[error("this host has no KVM that works; set acceleration to \"auto\" or \"tcg\"")]
    NoKvm,
    /// The machine boots by UEFI.
    #[error(
        "the machine boots by UEFI, and its firmware {} cannot be used; install the package \
         ovmf, or set guests.uefi_code and guests.uefi_variables to its files",
        path.display()
    )]
    NoFirmware {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The machine has variables of another firmware.
    #[error(
        "{} has {bytes} bytes and belongs to another firmware than this host's, which has \
         {wanted}; delete it from the image, or set guests.uefi_code and \
         guests.uefi_variables to the firmware that it belongs to",
        path.display()
    )]
    Variables {
        /// The file with them.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The size that it should have.
        wanted: u64,
    },
    /// The machine is a container.
    #[error("a container cannot be frozen")]
    Container,
    /// The frozen guest cannot be woken: QEMU, its command line or the host's
    /// processor is another one. Start it cold, and freeze it anew.
    #[error("the frozen guest does not fit this host any more; it must be frozen anew")]
    Stale,
    /// Its run directory belongs to another one.
    #[error("a guest with the run directory {} is running", .0.display())]
    Running(PathBuf),
    /// Its network is not there.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A file of its snapshot cannot be used.
    #[error("cannot open {} for the guest", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Its run directory or its record cannot be used.
    #[error("cannot use {}", path.display())]
    Run {
        /// The file or directory.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// QEMU or systemd-nspawn could not be started.
    #[error("cannot start the guest's program")]
    Start(#[source] io::Error),
    /// QEMU or nspawn ended, does not answer, or does not do what it is told.
    #[error("the guest's program failed it{}", said(stderr))]
    Up {
        /// The end of what it complained about.
        stderr: String,
        /// What we noticed.
        source: QmpError,
    },
    /// Its limits cannot be set.
    #[error("cannot limit what the guest takes of the host")]
    Limit(#[source] io::Error),
    /// The process cannot be watched.
    #[error("cannot watch the guest's process")]
    Watch(#[source] io::Error),
    /// It does not end.
    #[error("the guest's process {0} was killed and does not end")]
    Undead(u32),
}

impl GuestError {
    pub(crate) fn run(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Run { path, source }
    }
}

/// The end of a sentence, with what a program complained about.
pub fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}
