//! What an examination of the host depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::builds::State;
use config::{BuildId, MachineName};
use store::Holder;

use crate::state::CopyTag;

/// What an examination depends on.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// What the names of our networks and control groups begin with.
    pub prefix: String,
    /// The builds that the agent runs.
    pub running: BTreeSet<BuildId>,
    /// The copies of builds that people look into.
    pub copies: BTreeSet<CopyTag>,
    /// Whether it runs bootstraps; which guest is of which one, nobody can tell.
    pub bootstraps: bool,
    /// What has a run directory.
    pub guests: Vec<Guest>,
    /// The networks whose names begin with our prefix.
    pub networks: Vec<Network>,
    /// The control groups whose names begin with our prefix.
    pub groups: Vec<Group>,
    /// What the records say.
    pub records: Records,
    /// The entries of the directory of builds.
    pub directories: Vec<PathBuf>,
    /// Sources that no build has, handed in long ago, and how large they are.
    pub unused: Vec<(PathBuf, u64)>,
    /// The directory of sources.
    pub sources: PathBuf,
    /// The machines that lack firmware, and what is wrong with it.
    pub without_firmware: Vec<(MachineName, String)>,
    /// Where there is less room than the reserve: the place and what is free.
    pub short: Vec<(PathBuf, u64)>,
}

/// A run directory.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The directory.
    pub run: PathBuf,
    /// Its guest's short name.
    pub tag: String,
    /// The guest's process, when it runs.
    pub pid: Option<u32>,
    /// Whether the record of its process cannot be read.
    pub unreadable: bool,
    /// Whether the guest's network is there.
    pub network: bool,
}

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// What runs in it.
    pub processes: Vec<Holder>,
}

/// A control group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where it is.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Whether processes are in it.
    pub busy: bool,
}

/// What the records say.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with them; then nothing else is known.
    pub faults: Vec<String>,
    /// All builds.
    pub builds: BTreeMap<BuildId, Recorded>,
}

/// What the records say of a build, and what is there of it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// How far it has come.
    pub state: State,
    /// How often its guest was started.
    pub attempts: u32,
    /// Whether its result is on disk.
    pub result: bool,
    /// Its directory, when that is not there.
    pub lost: Option<PathBuf>,
}
