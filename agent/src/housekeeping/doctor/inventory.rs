//! The inventory of the host: the facts that an examination depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::builds::State;
use config::feeds::FeedStatus;
use config::pressure::Pressure;
use config::{
    BuildId, CacheName, ControllerName, CopyTag, GuestTag, MachineName, ResourceName, ScheduleName,
    ToolchainName,
};
use store::Holder;

/// The facts that an examination depends on.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The prefix of the names of the agent's networks and control groups.
    pub prefix: String,
    /// The builds that the agent runs.
    pub running: BTreeSet<BuildId>,
    /// The open debug sessions.
    pub copies: BTreeSet<CopyTag>,
    /// True if bootstraps run. A guest does not tell to which one it belongs.
    pub bootstraps: bool,
    /// The ready guests, and those that are being made.
    pub ready: BTreeSet<GuestTag>,
    /// The run directories of guests.
    pub guests: Vec<Guest>,
    /// The networks with the prefix.
    pub networks: Vec<Network>,
    /// The control groups with the prefix.
    pub groups: Vec<Group>,
    /// The facts from the records.
    pub records: Records,
    /// The entries of the directory of builds.
    pub directories: Vec<PathBuf>,
    /// Old sources that no build uses, with their sizes in bytes.
    pub unused: Vec<(PathBuf, u64)>,
    /// The directory of sources.
    pub sources: PathBuf,
    /// The machines whose firmware is missing, each with the error.
    pub without_firmware: Vec<(MachineName, String)>,
    /// The machines and toolchains whose last bootstrap failed, each with the error.
    pub failed_bootstraps: Vec<(MachineName, ToolchainName, String)>,
    /// The machines and toolchains whose bootstrap waits, each with the reason.
    pub waiting_bootstraps: Vec<(MachineName, ToolchainName, String)>,
    /// The schedules whose machines do not exist.
    pub schedules: Vec<(ScheduleName, MachineName)>,
    /// The directories of the agent that other users may enter, with their modes.
    pub open: Vec<(PathBuf, u32)>,
    /// The paths with less free space than the reserve, each with its free bytes.
    pub short: Vec<(PathBuf, u64)>,
    /// The kernel's directory of reports on pressure.
    pub pressure_directory: PathBuf,
    /// The pressure that is high.
    pub high_pressure: Vec<Pressure>,
    /// The resources whose pressure has a limit, but is not reported.
    pub unreported_pressure: Vec<&'static str>,
    /// The caches between builds.
    pub caches: Vec<CacheFacts>,
    /// The directories of caches that the settings do not name.
    pub unnamed_caches: Vec<PathBuf>,
    /// The patterns and reporters of the hash equivalence service that stand for nothing, as words.
    pub hashserv_unmatched: Vec<String>,
    /// The database of layers, releases and projects.
    pub catalog: PathBuf,
    /// The rows of the catalog that cannot be read, such as `project camera`, each with the fault.
    pub unreadable_catalog: Vec<(String, String)>,
    /// The files with secrets that other users may read, with their modes.
    pub open_secrets: Vec<(PathBuf, u32)>,
    /// The machines that need more of a countable resource than the host has: the resource, and
    /// the needed and the existing number.
    pub undeclared: Vec<(MachineName, ResourceName, u32, u32)>,
    /// The rules whose last notification was given up or fails after others were, each with the
    /// number of those and the failure.
    pub lost_notifications: Vec<(String, u32, String)>,
    /// The reason for which guests are not registered with machined.
    pub machined_fault: Option<String>,
    /// The package feeds.
    pub feeds: Vec<FeedStatus>,
    /// The controllers.
    pub controllers: Vec<ControllerFacts>,
    /// The controllers that the settings do not name, each with the number of its open leases.
    pub unnamed_controllers: Vec<(ControllerName, u32)>,
}

/// The facts about a controller.
#[derive(Debug, Clone)]
pub struct ControllerFacts {
    /// The name.
    pub name: ControllerName,
    /// The failure of the last request and the seconds since the first one, if it fails.
    pub failing: Option<(String, u64)>,
    /// The fault of the key.
    pub key_fault: Option<String>,
    /// The number of machines that it may be offered.
    pub machines: usize,
    /// The sentences about machines that are not as a farm has published them.
    pub unlike: Vec<String>,
}

/// The facts about a cache.
#[derive(Debug, Clone)]
pub struct CacheFacts {
    /// The name.
    pub name: CacheName,
    /// The size.
    pub bytes: u64,
    /// The size up to which entries are kept.
    pub bytes_max: u64,
    /// The patterns and writers that stand for nothing, as words.
    pub unmatched: Vec<String>,
}

/// The run directory of a guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its path.
    pub run: PathBuf,
    /// The guest's short name.
    pub tag: String,
    /// The guest's process, if it runs.
    pub pid: Option<u32>,
    /// True if the process record cannot be read.
    pub unreadable: bool,
    /// True if the guest's network exists.
    pub network: bool,
}

/// Returns the build of a guest of this name, its own or an auxiliary one.
pub(super) fn build_of(tag: &str) -> Option<BuildId> {
    match tag.parse() {
        Ok(GuestTag::Build(id)) => Some(id),
        Ok(GuestTag::Auxiliary(tag)) => Some(tag.build),
        _ => None,
    }
}

/// Returns the short name of the network of a guest. An auxiliary guest is in that of its build.
pub(super) fn network_tag(tag: &str) -> String {
    build_of(tag).map_or_else(|| tag.to_owned(), |build| build.to_string())
}

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The processes in it.
    pub processes: Vec<Holder>,
}

/// A control group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its path.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// True if processes are in it.
    pub busy: bool,
}

/// The facts from the records.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The path of the database.
    pub path: PathBuf,
    /// The faults of the database. If there are any, nothing else is known.
    pub faults: Vec<String>,
    /// The builds whose records can be read.
    pub builds: BTreeMap<BuildId, Recorded>,
    /// The other builds, each with the fault of its record.
    pub unreadable: BTreeMap<BuildId, String>,
    /// The schedules that cannot be read, by their names, each with the fault.
    pub unreadable_schedules: BTreeMap<String, String>,
}

/// A recorded build and its files.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its state.
    pub state: State,
    /// The number of its attempts.
    pub attempts: u32,
    /// True if its result is on disk.
    pub result: bool,
    /// Its directory, if that is missing.
    pub lost: Option<PathBuf>,
}
