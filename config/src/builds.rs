//! The administration API's messages about builds and the host.

mod controller_task;
mod failing;
mod interactive;
mod labels;
mod listing;
mod log_position;
mod priority;
mod progress;
mod record;
mod request;
mod resources;
mod state;
mod trial_status;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::load::Load;
use crate::names::{MachineName, ResourceName, ToolchainName};
use crate::pressure::Pressure;

pub use controller_task::ControllerTask;
pub use failing::FailingPackage;
pub use interactive::{Hold, HoldKind, Interactive};
pub use labels::{LabelError, Submitter, Target};
pub use listing::{Cursor, LISTED_MAX, ListQuery, Sort, SortKey};
pub use log_position::LogPosition;
pub use priority::Priority;
pub use progress::{Count, PreloadUse, Progress};
pub use record::{
    Artifact, Build, BuildInputs, BuiltPackage, ForkOrigin, GuestKind, HostPolicy, LogTime, Phase,
    SourceOrigin, StartKind, Typist, Usage,
};
pub use request::{Fork, Request};
pub use resources::{ResourceError, Resources};
pub use state::{Cancellation, State, TransitionError};
pub use trial_status::TrialStatus;

/// The socket of the administration API, in the agent's run directory.
pub const SOCKET: &str = "agent.sock";

/// The protocol to which a console connection is upgraded: raw bytes in both directions.
pub const CONSOLE_PROTOCOL: &str = "buildhost-console";

/// The file beside a build's artifacts that records their provenance.
pub const PROVENANCE: &str = "provenance.json";

/// The file beside a build's artifacts with their signed provenance: one DSSE envelope on one
/// line.
pub const SIGNED_PROVENANCE: &str = "provenance.intoto.jsonl";

/// The status of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The host's name.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// The readiness of each machine and toolchain.
    pub machines: Vec<Readiness>,
    /// The number of queued builds.
    pub queued: usize,
    /// The number of running guests, bootstraps included.
    pub guests: usize,
    /// Problems that keep the host from building, each with its remedy.
    pub notices: Vec<String>,
    /// The trials of new revisions.
    #[serde(default)]
    pub trials: Vec<TrialStatus>,
    /// The free space of each volume.
    #[serde(default)]
    pub volumes: Vec<VolumeSpace>,
    /// The countable resources, and their use by guests.
    #[serde(default)]
    pub resources: BTreeMap<ResourceName, Load>,
    /// The pressure on each resource; empty if the kernel reports none.
    #[serde(default)]
    pub pressure: Vec<Pressure>,
}

/// The free space of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpace {
    /// Its directory.
    pub path: PathBuf,
    /// The number of bytes that can still be written.
    pub bytes_free: u64,
}

/// The readiness of a machine to build with a toolchain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The state of the bootstrapped image.
    pub image: ImageState,
    /// The reason for that state; may be empty.
    pub message: String,
    /// The kind of start that the next build will have.
    #[serde(default)]
    pub start: StartKind,
    /// The reason for a cold start, or the cost of a warm one.
    #[serde(default)]
    pub start_message: String,
    /// The number of checkpoints evicted since the agent started.
    #[serde(default)]
    pub evictions: u32,
    /// The error of the last bootstrap, until one succeeds; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bootstrap_error: String,
    /// The reason for which its bootstrap waits; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bootstrap_wait: String,
}

/// The state of a bootstrapped image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// The image exists and is up to date.
    Ready,
    /// The image is out of date; builds use it until the new one is ready.
    Outdated,
    /// No image exists yet.
    Missing,
    /// The bootstrap failed.
    Failed,
}

impl fmt::Display for ImageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Outdated => "outdated",
            Self::Missing => "missing",
            Self::Failed => "failed",
        })
    }
}

/// The body of an error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The error and its remedy.
    pub detail: String,
}
