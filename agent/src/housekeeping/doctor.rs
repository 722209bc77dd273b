//! The doctor of the agent: finds leftover guests, networks and control groups, and builds
//! whose records and files disagree. [`inspect`] reads the host, [`examine`] decides,
//! [`repair`] acts.

mod examine;
mod inspect;
mod inventory;
mod problems;
mod repair;

use std::fmt;
use std::path::PathBuf;

use config::BuildId;
use config::doctor::Finding;

pub use examine::examine;
pub(super) use inspect::open_directories;
pub use inspect::{inspect, planned_deletions};
pub use inventory::{
    CacheFacts, ControllerFacts, Group, Guest, Inventory, Network, Recorded, Records,
};
pub(crate) use problems::problems;
pub use repair::repair;

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Ends a guest and deletes its network and run directory.
    EndGuest(Leftover),
    /// Removes a run directory.
    RemoveDirectory(PathBuf),
    /// Deletes a network with the processes in it, which are the text.
    DeleteNetwork(String, String),
    /// Removes an empty control group.
    RemoveGroup(PathBuf),
    /// Puts a build back into the queue.
    Requeue(BuildId),
    /// Deletes sources.
    DeleteSources(Vec<PathBuf>),
}

/// A guest that belongs to no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its run directory.
    pub run: PathBuf,
    /// Its network.
    pub network: String,
    /// Its process.
    pub pid: u32,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndGuest(guest) => {
                write!(
                    f,
                    "end process {} and delete network {}",
                    guest.pid, guest.network
                )
            }
            Self::RemoveDirectory(path) | Self::RemoveGroup(path) => {
                write!(f, "remove {}", path.display())
            }
            Self::DeleteNetwork(name, inside) if inside.is_empty() => {
                write!(f, "delete network {name}")
            }
            Self::DeleteNetwork(name, inside) => {
                write!(f, "end {inside} and delete network {name}")
            }
            Self::Requeue(id) => write!(f, "put build {id} back into the queue"),
            Self::DeleteSources(paths) => write!(
                f,
                "delete {} unused {}",
                paths.len(),
                if paths.len() == 1 { "file" } else { "files" }
            ),
        }
    }
}

/// A finding and its repair.
#[derive(Debug, Clone)]
pub struct Found {
    /// The finding.
    pub finding: Finding,
    /// The repair; `None` if a person must decide.
    pub repair: Option<Repair>,
}

#[cfg(test)]
mod tests;
