//! The parts of the agent that its guests share.

use std::path::PathBuf;
use std::sync::Arc;

use config::settings::{CurrentSettings, Pr};
use guest::Uids;
use telemetry::metrics::Metrics;
use tokio::sync::Notify;

use super::BitBakeServices;
use super::commands::CommandRegistry;
use super::console::ConsoleRegistry;

/// Everything that a session needs of the agent. All guests of an agent share one.
#[derive(Debug)]
pub struct GuestServices {
    /// The host's name, with which the names of its network namespaces and control groups
    /// begin.
    pub name: String,
    /// The directory with a run directory for each guest.
    pub run_dir: PathBuf,
    /// The agent's settings.
    pub settings: CurrentSettings,
    /// The settings `[pr]`.
    pub pr_settings: Pr,
    /// The services for BitBake that guests reach at their gateway.
    pub bitbake: BitBakeServices,
    /// The users that virtual machines run as.
    pub uids: Uids,
    /// The consoles of running guests.
    pub consoles: ConsoleRegistry,
    /// The commands of driven guests.
    pub commands: CommandRegistry,
    /// The counters of guest starts and transfers.
    pub metrics: Arc<Metrics>,
    /// Wakes the one who registers guests with machined.
    pub started: Notify,
}

impl GuestServices {
    /// Returns the run directory of the guest with this tag.
    pub fn run_dir_of(&self, tag: &str) -> PathBuf {
        self.run_dir.join(tag)
    }

    /// Returns the name of the network namespace and the control group of a guest.
    pub fn network_name(&self, tag: &str) -> String {
        format!("{}-{tag}", self.name)
    }
}
