//! The findings of `host doctor`: the list of their kinds, and the messages in which the
//! agent reports its own.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::{BuildId, CacheName, ControllerName, MachineName, ScheduleName};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Note,
    /// Something wastes space or will cause surprises.
    Warning,
    /// Something is unusable, or its content is not trustworthy.
    Fault,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        })
    }
}

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FindingKind {
    /// The identifier.
    pub id: Id,
    /// The identifier as text.
    pub name: &'static str,
    /// The severity.
    pub severity: Severity,
    /// The meaning.
    pub meaning: &'static str,
    /// The remedy.
    pub remedy: &'static str,
}

/// Defines the list of kinds and the enum of their identifiers from one table.
macro_rules! kinds {
    ($($id:ident, $name:literal, $severity:ident, $meaning:literal, $remedy:literal;)*) => {
        /// The identifier of a kind of finding. Identifiers are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Id {
            $(#[doc = $meaning] #[serde(rename = $name)] $id,)*
        }

        /// All kinds of findings: those of machines, of volumes and of the host.
        pub const KINDS: &[FindingKind] = &[$(FindingKind {
            id: Id::$id,
            name: $name,
            severity: Severity::$severity,
            meaning: $meaning,
            remedy: $remedy,
        },)*];

        impl Id {
            /// Returns the kind.
            pub fn kind(self) -> &'static FindingKind {
                &KINDS[self as usize]
            }
        }
    };
}

kinds! {
    BrokenLink, "broken-link", Fault,
        "the current link does not point to a complete revision", "operator: `buildhost rollback`";
    NoLink, "no-link", Fault,
        "a machine has no current link; the next boot deletes it", "operator: `buildhost rollback`";
    UnusableManifest, "unusable-manifest", Fault,
        "the manifest of the current revision cannot be used", "operator: upgrade the machine";
    TwinIdentity, "twin-identity", Fault,
        "two revisions have the same identity", "operator: push a new snapshot in full";
    HalfDeleted, "half-deleted", Warning,
        "a deletion was interrupted", "--repair or the agent: finishes it";
    DeletionMark, "deletion-mark", Warning,
        "a machine in service is marked as being deleted", "--repair: removes the mark";
    IncomingLink, "incoming-link", Warning,
        "a new current link was never published", "--repair: removes it";
    LostPin, "lost-pin", Warning,
        "the revision of a pin does not exist", "--repair: removes the pin";
    HalfRevision, "half-revision", Warning,
        "the creation of a revision was interrupted", "--repair: deletes it";
    WritableRevision, "writable-revision", Warning,
        "a revision is writable, and Buildhost did not create it so", "operator: make it read-only, or delete it";
    HalfImage, "half-image", Warning,
        "a bootstrapped image is writable", "--repair: deletes it";
    StrayTrialImage, "stray-trial-image", Warning,
        "an image was made for the trial of a revision, which has ended",
        "--repair or the agent: deletes it";
    OnTrial, "on-trial", Note,
        "a new revision is on trial", "none: the agent or the farm decides, or `promote` and `rollback`";
    StraySnapshot, "stray-snapshot", Warning,
        "a snapshot is an orphan: nothing uses it", "--repair or the agent: deletes it";
    ArrivingRevision, "arriving-revision", Note,
        "a revision is writable or incomplete, and may still be created", "none: wait for the ingest";
    PartialRevision, "partial-revision", Note,
        "a part of a revision has arrived", "none: the same push continues it, any other deletes it";
    NoIdentity, "no-identity", Note,
        "a revision was not received as a stream, unlike others of its machine", "none: the next push may have to be full";
    UnknownImage, "unknown-image", Note,
        "an image does not name its revision and toolchain", "agent: bootstraps it again";
    OldImage, "old-image", Note,
        "an image was made from another revision", "agent: bootstraps it again";
    Locked, "locked", Note,
        "another process is changing the machine", "none: wait for it";
    Unmanaged, "stranger", Note,
        "an entry is unmanaged", "none: it is never changed";

    ReadOnlyVolume, "read-only-volume", Fault,
        "the volume is read-only", "operator: find the reason in the kernel log, then remount";
    DeviceMissing, "device-missing", Fault,
        "a device of the volume is missing", "operator: `btrfs replace`";
    DeviceErrors, "device-errors", Fault,
        "a device of the volume failed or returned bad data", "operator: `btrfs scrub`, or replace the device";
    OpenVolume, "open-volume", Warning,
        "users other than root may enter the volume", "operator: `chmod 0700`";
    UnprotectedMount, "unprotected-mount", Note,
        "set-uid programs and devices of images would work on the host", "operator: mount with nosuid and nodev";
    MountedOver, "mounted-over", Fault,
        "a mount hides a part of the volume", "operator: unmount it";
    ImageOutgrows, "image-outgrows", Warning,
        "the volume is in a file that cannot grow to its full size", "operator: free space beside the file";
    NoChecksums, "no-checksums", Warning,
        "the mount options disable checksums, so bad data is not detected", "operator: remount without the option";
    Autodefrag, "autodefrag", Warning,
        "the mount options make snapshots stop sharing their space", "operator: remount without the option";
    Quotas, "quotas", Warning,
        "quota groups slow down snapshots and deletions", "operator: `btrfs quota disable`";
    OldProgs, "old-btrfs-progs", Warning,
        "btrfs-progs before 6.2 can lose data when they receive", "operator: install a newer version";
    MountedElsewhere, "mounted-elsewhere", Note,
        "a part of a machine is also mounted elsewhere", "none: deletion does not wait for it";

    NoAgent, "no-agent", Note,
        "no agent answers; guests, networks and records were not examined", "operator: start buildhost-agent";
    AgentFailed, "agent-failed", Warning,
        "the agent failed to examine guests, networks and records", "operator: read the agent's log";
    RecordsDamaged, "records-damaged", Fault,
        "the database of builds is damaged", "operator: restore it from a backup";
    UnreadableRecord, "unreadable-record", Fault,
        "the record of a build, a schedule, a project, a layer or a release cannot be read; lists leave it out, and it does not run", "operator: use the agent that wrote it, or delete the row";
    LowSpace, "low-space", Fault,
        "the free space is below the reserve; nothing starts", "operator: free space";
    HostPressure, "host-pressure", Warning,
        "the host is under pressure, and no guest starts beside another one", "operator: end what uses the host, or give it more";
    UnknownPressure, "unknown-pressure", Note,
        "the kernel does not report the pressure on the host, so its limit has no effect", "operator: boot with psi=1, or set the limit to 0";
    OpenState, "open-state", Warning,
        "users other than root may enter a directory of the agent", "operator: restart the agent, which closes it";
    NoFirmware, "no-firmware", Fault,
        "a machine boots by UEFI, and the host has no UEFI firmware", "operator: install the package ovmf";
    BootstrapFailed, "bootstrap-failed", Fault,
        "the last bootstrap of a machine with a toolchain failed", "operator: mend the machine or the toolchain";
    BootstrapWaiting, "bootstrap-waiting", Note,
        "the bootstrap of a machine with a toolchain waits", "none: it starts when its reason has passed";
    GuestWithoutNetwork, "guest-without-network", Fault,
        "a running guest has lost its network", "operator: cancel its build";
    BuildWithoutGuest, "build-without-guest", Warning,
        "a build is recorded as running but has no job", "--repair: returns it to the queue";
    LeftoverGuest, "leftover-guest", Warning,
        "a guest is an orphan: it runs without a build", "--repair: ends it";
    LeftoverDirectory, "leftover-directory", Warning,
        "the run directory of a guest that has ended", "--repair: removes it";
    LeftoverNetwork, "leftover-network", Warning,
        "the network of a guest that has ended", "--repair: deletes it";
    LeftoverGroup, "leftover-cgroup", Warning,
        "the control group of a guest that has ended", "--repair: removes it";
    BuildWithoutDirectory, "build-without-directory", Warning,
        "the log and the artifacts of a build are missing", "operator: restore them from a backup";
    DirectoryWithoutRecord, "directory-without-record", Warning,
        "files of a build without a record", "operator: move or delete them";
    ScheduleWithoutMachine, "schedule-without-machine", Warning,
        "a schedule submits builds for a machine that does not exist", "operator: add the machine, or `buildhost schedule remove`";
    UnusedSources, "unused-sources", Warning,
        "sources were uploaded more than a day ago, and no build uses them", "--repair: deletes them";
    CacheTooLarge, "cache-too-large", Warning,
        "a cache between builds is larger than its `mib_max`", "agent: prunes it";
    CacheUnmatched, "cache-unmatched", Warning,
        "nothing matches a pattern or a writer of a cache", "operator: correct the settings";
    CacheUnnamed, "cache-unnamed", Warning,
        "the directory of a cache that the settings do not name", "operator: name it, or delete the directory";
    ControllerUnreachable, "controller-unreachable", Warning,
        "a controller has failed or refused all requests for an hour", "operator: correct its settings, or ask who runs it";
    ControllerKey, "controller-key", Fault,
        "the key of a controller is missing, or others than root may read it", "operator: `chmod 600`, or make a new one";
    ControllerWithoutMachine, "controller-without-machine", Warning,
        "no machine is offered to a controller", "operator: add a machine, or correct `machines` in the settings";
    FarmContent, "farm-content", Fault,
        "a machine has other content than a farm has published, or unknown content, and gets no builds of it", "operator: `buildhost record`, or `buildhost delete`, after which the host fetches the published one";
    ControllerUnnamed, "controller-unnamed", Warning,
        "results wait for a controller that the settings do not name", "operator: name it again, or `buildhost controllers forget`";
    NotificationsLost, "notifications-lost", Warning,
        "notifications of a rule were given up, the last one among them", "operator: correct its settings; `buildhost notify test`";
    FeedFailing, "feed-failing", Fault,
        "packages wait for their publication in a feed, or its keys or indexes cannot be used", "operator: correct its section `[[feeds]]`; `buildhost feed rebuild`";
    FeedIncomplete, "feed-incomplete", Fault,
        "files that the indexes of a feed name are missing", "operator: `buildhost feed rebuild`";
    FeedRefused, "feed-refused", Warning,
        "a feed has refused packages in the last week, whose versions it has with other content", "operator: change the versions";
    HashservUnmatched, "hashserv-unmatched", Warning,
        "nothing matches a pattern or a reporter of the hash equivalence service", "operator: correct the settings";
    OpenSecret, "open-secret", Warning,
        "a file with a secret can be read by users other than root", "operator: close it, and replace the secret";
    GuestsUnregistered, "guests-unregistered", Note,
        "the host has systemd-machined, but guests are not registered with it, so that systemd's machinectl does not show them",
        "operator: find the reason in the log of systemd-machined; builds do not depend on it";
    UndeclaredResource, "undeclared-resource", Warning,
        "a machine needs a countable resource that the host does not have", "operator: declare it in `guests.resources`, or change the machine";
}

/// The kinds of findings of which notifications tell while the agent runs.
pub const PROBLEMS: [Id; 9] = [
    Id::LowSpace,
    Id::HostPressure,
    Id::ControllerUnreachable,
    Id::FeedFailing,
    Id::FeedIncomplete,
    Id::LeftoverGuest,
    Id::LeftoverDirectory,
    Id::LeftoverNetwork,
    Id::LeftoverGroup,
];

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kind().name)
    }
}

/// The subject of a finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A machine.
    Machine(MachineName),
    /// A volume.
    Volume(PathBuf),
    /// The agent, by its socket.
    Agent(PathBuf),
    /// A guest, by its tag.
    Guest(String),
    /// A network namespace.
    Network(String),
    /// A control group.
    Group(PathBuf),
    /// A build.
    Build(BuildId),
    /// A schedule.
    Schedule(ScheduleName),
    /// A cache between builds.
    Cache(CacheName),
    /// A controller.
    Controller(ControllerName),
    /// A section or a key of the settings.
    Setting(String),
    /// A file or directory.
    Path(PathBuf),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(name) => write!(f, "machine {name}"),
            Self::Volume(path) => write!(f, "volume {}", path.display()),
            Self::Agent(path) => write!(f, "agent {}", path.display()),
            Self::Guest(tag) => write!(f, "guest {tag}"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Group(path) => write!(f, "cgroup {}", path.display()),
            Self::Build(id) => write!(f, "build {id}"),
            Self::Schedule(name) => write!(f, "schedule {name}"),
            Self::Cache(name) => write!(f, "cache {name}"),
            Self::Controller(name) => write!(f, "controller {name}"),
            Self::Setting(name) => write!(f, "setting {name}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The kind of finding.
    pub id: Id,
    /// The severity.
    pub severity: Severity,
    /// The subject; in JSON one key, such as `"machine": "linux"`.
    #[serde(flatten)]
    pub subject: Subject,
    /// The evidence.
    pub proof: String,
    /// The advice to the operator.
    pub advice: String,
    /// The steps of a repair; empty if the operator must decide.
    pub repair: Vec<String>,
    /// Set if the running agent repairs it in its next round.
    #[serde(rename = "by_itself")]
    pub automatic: bool,
}

impl Finding {
    /// Creates a finding on which the operator must decide.
    pub fn new(
        id: Id,
        subject: Subject,
        proof: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            id,
            severity: id.kind().severity,
            subject,
            proof: proof.into(),
            advice: advice.into(),
            repair: Vec::new(),
            automatic: false,
        }
    }

    /// Returns the key with which a repair is requested.
    pub fn key(&self) -> FindingKey {
        FindingKey {
            id: self.id,
            subject: self.subject.clone(),
        }
    }
}

/// The key of a finding, unique among the findings of one examination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FindingKey {
    /// The kind of finding.
    pub id: Id,
    /// The subject.
    #[serde(flatten)]
    pub subject: Subject,
}

/// The agent's findings, and its pending deletions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
    /// The deletions of its next round.
    pub cleaning: Vec<Cleaning>,
}

/// A pending deletion of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaning {
    /// The volume.
    pub volume: PathBuf,
    /// The machine.
    pub machine: MachineName,
    /// The name of the subvolume; the whole machine if `None`.
    pub entry: Option<String>,
}

/// The result of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// The completed steps.
    pub done: Vec<String>,
    /// The failed steps, with their errors.
    pub failed: Vec<String>,
}

/// Returns the table of all kinds of findings for the documentation.
pub fn table() -> String {
    let mut text =
        String::from("| id | severity | what it means | what repairs it |\n|---|---|---|---|\n");
    for kind in KINDS {
        let FindingKind {
            name,
            severity,
            meaning,
            remedy,
            ..
        } = kind;
        let _ = writeln!(text, "| `{name}` | {severity} | {meaning} | {remedy} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_finding() {
        let page = include_str!("../../docs/doctor.md");
        let from = page.find("| id |").unwrap();
        let listed: Vec<_> = page[from..]
            .lines()
            .take_while(|line| !line.is_empty())
            .collect();
        let known = table();
        assert_eq!(listed, known.lines().collect::<Vec<_>>());
    }

    #[test]
    fn identifiers_are_unique_and_serialized_by_name() {
        let mut names = std::collections::BTreeSet::new();
        for kind in KINDS {
            assert_eq!(kind.id.kind(), kind);
            let json = serde_json::to_string(&kind.id).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.id));
            assert!(names.insert(kind.name), "{}", kind.name);
        }
    }

    #[test]
    fn a_finding_serializes_its_subject_as_one_key() {
        let subject = Subject::Machine("linux".parse().unwrap());
        let finding = Finding::new(Id::NoLink, subject, "it has none", "rollback");
        let json = serde_json::to_string(&finding).unwrap();
        insta::assert_snapshot!(json, @r#"{"id":"no-link","severity":"fault","machine":"linux","proof":"it has none","advice":"rollback","repair":[],"by_itself":false}"#);
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
        let key = serde_json::to_string(&finding.key()).unwrap();
        assert_eq!(
            serde_json::from_str::<FindingKey>(&key).unwrap(),
            finding.key()
        );
    }
}
