//! One guest on the host: its process, its network and its gateway.

pub mod cgroup;
mod error;
pub mod gateway;
mod guest;
pub mod network;
mod nspawn;
mod process;
mod qemu;
mod run_dir;
mod usage;

pub use error::{GuestError, said};
pub use guest::{BootMode, ConsoleInput, Guest, Spec, Stream, User};
pub use process::Exit;
pub use qemu::checkpoint::{bytes, forget, is_frozen, is_unfit, set_unfit, thaw};
pub use qemu::qmp::QmpError;
pub use qemu::{Accelerator, accelerator, arguments, firmware};
