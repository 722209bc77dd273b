//! One guest on the host: its process, its network and its gateway.
//!
//! There are two kinds of guests: virtual machines by QEMU and containers by
//! systemd-nspawn, each with users of its own. Everything here is synchronous:
//! functions block on child processes, files and sockets, each wait with a deadline.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod cgroup;
mod end;
mod error;
pub mod gateway;
mod guest;
pub mod network;
mod nspawn;
mod process;
mod qemu;
mod run_dir;
mod sealed_memory;
mod spec;
mod uids;
mod usage;

pub use end::{GuestEnd, Shutdown};
pub use error::{GuestError, stderr_suffix};
pub use guest::{Console, Guest};
pub use process::Exit;
pub use qemu::qmp::QmpError;
pub use qemu::{
    Accelerator, KvmAccess, accelerator, check_firmware, checkpoint, command_line, fork,
};
pub use sealed_memory::SealedMemory;
pub use spec::{BootMode, Spec, User};
pub use uids::Uids;
