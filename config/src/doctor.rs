//! What a doctor of hosts finds: the one list of findings, and the messages in which
//! the agent tells what it knows.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::{BuildId, MachineName};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// It wastes space or will surprise somebody.
    Warning,
    /// Something cannot be used, or its content cannot be trusted.
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

/// One kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// How programs know it.
    pub id: Id,
    /// The id as it is written.
    pub word: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it means.
    pub meaning: &'static str,
    /// What repairs it.
    pub remedy: &'static str,
}

/// Makes the list of kinds and the enum of their ids from one table.
macro_rules! kinds {
    ($($id:ident, $word:literal, $severity:ident, $meaning:literal, $remedy:literal;)*) => {
        /// The id of a kind of finding; a promise to programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Id {
            $(#[doc = $meaning] #[serde(rename = $word)] $id,)*
        }

        /// Every kind of finding: first those of machines, then those of volumes,
        /// then those of the host.
        pub const KINDS: &[Kind] = &[$(Kind {
            id: Id::$id,
            word: $word,
            severity: Severity::$severity,
            meaning: $meaning,
            remedy: $remedy,
        },)*];

        impl Id {
            /// What is known of this kind.
            pub fn kind(self) -> &'static Kind {
                &KINDS[self as usize]
            }
        }
    };
}

kinds! {
    BrokenLink, "broken-link", Fault,
        "the current link leads to no complete revision", "a person: `machinectl rollback`";
    NoLink, "no-link", Fault,
        "a machine has no current link, and the next boot deletes it", "a person: `machinectl rollback`";
    TwinIdentity, "twin-identity", Fault,
        "two revisions claim to be the same content", "a person: a new snapshot, sent in full";
    HalfDeleted, "half-deleted", Warning,
        "a deletion was begun and has not ended", "--repair, or the agent: it is finished";
    DeletionMark, "deletion-mark", Warning,
        "a machine in service is marked as being deleted", "--repair: the mark is removed";
    IncomingLink, "incoming-link", Warning,
        "a link was never put in place", "--repair: it is removed";
    LostPin, "lost-pin", Warning,
        "a pinned revision is not there", "--repair: the pin is removed";
    HalfRevision, "half-revision", Warning,
        "a revision is writable or unfinished, and nobody is making it", "--repair: it is deleted";
    HalfImage, "half-image", Warning,
        "a bootstrapped image is writable", "--repair: it is deleted";
    StraySnapshot, "stray-snapshot", Warning,
        "nobody uses a snapshot", "--repair, or the agent: it is deleted";
    ArrivingRevision, "arriving-revision", Note,
        "a revision is writable or unfinished, and somebody may be making it", "nothing: it arrives";
    NoIdentity, "no-identity", Note,
        "a revision was not received as a stream", "nothing: the next stream may be a full one";
    UnknownImage, "unknown-image", Note,
        "an image does not say what it was made from", "the agent: it is bootstrapped anew";
    OldImage, "old-image", Note,
        "an image was made from another revision", "the agent: it is bootstrapped anew";
    Locked, "locked", Note,
        "somebody is changing a machine", "nothing: it ends";
    Stranger, "stranger", Note,
        "something is not ours", "nothing: it is never touched";

    ReadOnlyVolume, "read-only-volume", Fault,
        "the volume cannot be written to", "a person: find the kernel's reason, mount it anew";
    DeviceMissing, "device-missing", Fault,
        "a device of the volume is missing", "a person: `btrfs replace`";
    DeviceErrors, "device-errors", Fault,
        "a device of the volume has failed or has returned bad data", "a person: `btrfs scrub`, another device";
    MountedOver, "mounted-over", Fault,
        "a mount hides a part of the volume", "a person: unmount it";
    ImageOutgrows, "image-outgrows", Warning,
        "the volume is in a file that cannot grow to its size", "a person: make room beside the file";
    NoChecksums, "no-checksums", Warning,
        "the volume is mounted so that bad data goes unnoticed", "a person: mount it without that option";
    Autodefrag, "autodefrag", Warning,
        "the volume is mounted so that snapshots stop sharing their space", "a person: mount it without that option";
    Quotas, "quotas", Warning,
        "quota groups make deleting and taking snapshots slow", "a person: `btrfs quota disable`";
    OldProgs, "old-btrfs-progs", Warning,
        "btrfs-progs before 6.2 may lose data when they receive", "a person: install newer ones";
    MountedElsewhere, "mounted-elsewhere", Note,
        "a part of a machine is mounted in another place, too", "nothing: deleting does not wait for it";

    NoAgent, "no-agent", Note,
        "no agent answers: guests, networks and records were not examined", "a person: start buildhost-agent";
    AgentFailed, "agent-failed", Warning,
        "the agent could not examine guests, networks and records", "a person: read its log";
    RecordsDamaged, "records-damaged", Fault,
        "the database of builds is damaged", "a person: restore it from a copy";
    LowSpace, "low-space", Fault,
        "there is less room than the reserve, and nothing starts", "a person: delete something";
    NoFirmware, "no-firmware", Fault,
        "a machine boots by UEFI, and the host has no firmware for it", "a person: install the package ovmf";
    GuestWithoutNetwork, "guest-without-network", Fault,
        "a guest runs whose network is gone", "a person: cancel its build";
    BuildWithoutGuest, "build-without-guest", Warning,
        "a build is recorded as running, and nobody runs it", "--repair: it goes back into the queue";
    LeftoverGuest, "leftover-guest", Warning,
        "a guest runs without a build", "--repair: it is ended";
    LeftoverDirectory, "leftover-directory", Warning,
        "the run directory of a guest that has ended", "--repair: it is removed";
    LeftoverNetwork, "leftover-network", Warning,
        "the network of a guest that has ended", "--repair: it is deleted";
    LeftoverGroup, "leftover-cgroup", Warning,
        "the control group of a guest that has ended", "--repair: it is removed";
    BuildWithoutDirectory, "build-without-directory", Warning,
        "the log and the artifacts of a build are gone", "a person: restore them from a copy";
    DirectoryWithoutRecord, "directory-without-record", Warning,
        "files of a build that is not recorded", "a person: keep them elsewhere, or delete them";
    UnusedSources, "unused-sources", Warning,
        "sources were handed in a day ago, and no build has them", "--repair: they are deleted";
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kind().word)
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A machine.
    Machine(MachineName),
    /// A volume.
    Volume(PathBuf),
    /// The agent, by its socket.
    Agent(PathBuf),
    /// A guest, by its short name.
    Guest(String),
    /// A network namespace.
    Network(String),
    /// A control group.
    Group(PathBuf),
    /// A build.
    Build(BuildId),
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
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of finding it is.
    pub id: Id,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about; in JSON one key, such as `"machine": "linux"`.
    #[serde(flatten)]
    pub subject: Subject,
    /// What proves it.
    pub proof: String,
    /// What a person can do.
    pub advice: String,
    /// What a repair does; empty when a person must decide.
    pub repair: Vec<String>,
    /// Whether the agent that runs does so by itself in its next round.
    pub by_itself: bool,
}

impl Finding {
    /// A finding that a person must decide on.
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
            by_itself: false,
        }
    }

    /// Names it, so that a repair can be asked for.
    pub fn name(&self) -> Name {
        Name {
            id: self.id,
            subject: self.subject.clone(),
        }
    }
}

/// What tells a finding from all others of one moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// What kind of finding it is.
    pub id: Id,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
}

/// What the agent found, and what it is about to clean by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// What goes in its next round.
    pub cleaning: Vec<Cleaning>,
}

/// Something that the agent deletes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleaning {
    /// The volume.
    pub volume: PathBuf,
    /// The machine.
    pub machine: MachineName,
    /// The name of a subvolume; all of the machine when there is none.
    pub entry: Option<String>,
}

/// What came of a repair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// What was done.
    pub done: Vec<String>,
    /// What could not be, and why.
    pub failed: Vec<String>,
}

/// The list of all findings, as a table for people.
pub fn table() -> String {
    let mut text =
        String::from("| id | severity | what it means | what repairs it |\n|---|---|---|---|\n");
    for kind in KINDS {
        let Kind {
            word,
            severity,
            meaning,
            remedy,
            ..
        } = kind;
        let _ = writeln!(text, "| `{word}` | {severity} | {meaning} | {remedy} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_people_lists_every_finding() {
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
    fn an_id_is_written_as_it_is_known_and_known_once() {
        let mut words = std::collections::BTreeSet::new();
        for kind in KINDS {
            assert_eq!(kind.id.kind(), kind);
            let json = serde_json::to_string(&kind.id).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.id));
            assert!(words.insert(kind.word), "{}", kind.word);
        }
    }

    #[test]
    fn a_finding_names_its_subject_with_one_key() {
        let subject = Subject::Machine("linux".parse().unwrap());
        let finding = Finding::new(Id::NoLink, subject, "it has none", "rollback");
        let json = serde_json::to_string(&finding).unwrap();
        insta::assert_snapshot!(json, @r#"{"id":"no-link","severity":"fault","machine":"linux","proof":"it has none","advice":"rollback","repair":[],"by_itself":false}"#);
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
        let name = serde_json::to_string(&finding.name()).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&name).unwrap(), finding.name());
    }
}
