//! The parts of a session before they are registered with the runtime.

use std::path::PathBuf;

use config::MachineName;
use config::task::{ForkIdentity, Preload};
use guest::network::Network;
use guest::{BootMode, Guest};

use super::GuestSecrets;
use super::log_capture::CaptureFiles;
use super::streams::Streams;

/// The parts of a session before they are registered with the runtime. Blocking code opens
/// them.
pub(super) struct Parts {
    pub(super) guest: Guest,
    pub(super) network: Network,
    pub(super) streams: Streams,
    pub(super) boot: BootMode,
    pub(super) preload: Preload,
    pub(super) fork: Option<ForkIdentity>,
    pub(super) capture: CaptureFiles,
    pub(super) secrets: GuestSecrets,
    pub(super) tag: String,
    pub(super) machine: MachineName,
    pub(super) run_dir: PathBuf,
}
