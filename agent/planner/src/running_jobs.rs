//! The jobs that run, as a plan sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::builds::{Resources, Submitter};
use config::task::Provenance;
use config::{BuildId, CopyTag, ImageKey};
use jiff::Timestamp;
use store::VolumeId;

/// The identity of a job: something that runs a guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobId {
    /// A build.
    Build(BuildId),
    /// The bootstrap of an image, or the making of its checkpoint.
    Bootstrap(ImageKey),
    /// A debug session in a copy of a held build.
    Copy(CopyTag),
    /// The copies of a build that are about to start.
    Fork(BuildId),
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => write!(f, "build {id}"),
            Self::Bootstrap(key) => write!(f, "the bootstrap of {key}"),
            Self::Copy(tag) => write!(f, "debug session {tag}"),
            Self::Fork(id) => write!(f, "the fork of build {id}"),
        }
    }
}

/// A hold, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningHold {
    /// The image that the build ran on.
    pub key: ImageKey,
    /// `true` while there is a guest.
    pub has_guest: bool,
}

/// A debug session, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningDebugSession {
    /// The image that the build ran on.
    pub key: ImageKey,
    /// The person who debugs.
    pub submitter: Submitter,
    /// The time of the request.
    pub since: Timestamp,
    /// `true` once it was admitted.
    pub admitted: bool,
}

/// A fork of a build, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningFork {
    /// The image that the build runs on.
    pub key: ImageKey,
    /// The number of copies.
    pub copies: u32,
    /// `true` once it was admitted.
    pub admitted: bool,
}

/// The jobs at one instant, without the means to end them.
#[derive(Debug, Clone, Default)]
pub struct RunningJobs {
    /// The builds.
    pub builds: BTreeMap<BuildId, ImageKey>,
    /// The images of the auxiliary guests of these builds, for those that have any.
    pub auxiliaries: BTreeMap<BuildId, Vec<ImageKey>>,
    /// The bootstraps and checkpoints, each with the inputs of its image.
    pub images: BTreeMap<ImageKey, Provenance>,
    /// The bootstraps among them that no build needed when they started.
    pub unasked: BTreeSet<ImageKey>,
    /// The holds.
    pub holds: BTreeMap<BuildId, RunningHold>,
    /// The debug sessions, waiting ones included.
    pub debug_sessions: BTreeMap<CopyTag, RunningDebugSession>,
    /// The resources that the builds of these jobs asked for, if they asked for any. A hold or a
    /// debug session has those of its build.
    pub resources: BTreeMap<BuildId, Resources>,
    /// The forks of builds whose copies do not run yet, waiting ones included.
    pub forks: BTreeMap<BuildId, RunningFork>,
    /// The volumes in which revisions are being pruned.
    pub pruning: BTreeSet<VolumeId>,
    /// The builds whose outcome cannot be stored at present, each with the reason.
    pub unstored: BTreeMap<BuildId, String>,
}

impl RunningJobs {
    /// Returns the debug sessions that wait for admission.
    pub fn waiting_debug_sessions(&self) -> impl Iterator<Item = (CopyTag, &ImageKey)> {
        self.debug_sessions
            .iter()
            .filter(|(_, session)| !session.admitted)
            .map(|(tag, session)| (*tag, &session.key))
    }

    /// Returns the resources that the build of a job asked for; `None` if it asked for none.
    pub fn resources_of(&self, job: &JobId) -> Option<&Resources> {
        match job {
            JobId::Build(id) | JobId::Fork(id) => self.resources.get(id),
            JobId::Copy(tag) => self.resources.get(&tag.build),
            JobId::Bootstrap(_) => None,
        }
    }

    /// Returns a sentence about each build whose outcome cannot be stored at present.
    pub fn notices(&self) -> Vec<String> {
        let notice = |(id, reason): (&BuildId, &String)| {
            format!("build {id} has ended, and its outcome cannot be stored: {reason}")
        };
        self.unstored.iter().map(notice).collect()
    }

    /// Returns the number of jobs of each kind, without holds.
    pub fn counts(&self) -> [(&'static str, usize); 3] {
        [
            ("build", self.builds.len()),
            ("bootstrap", self.images.len()),
            ("copy", self.debug_sessions.len()),
        ]
    }

    /// Returns the auxiliary guests of builds, each with its build and its image.
    pub fn auxiliary_guests(&self) -> impl Iterator<Item = (JobId, &ImageKey)> {
        let builds = self.auxiliaries.iter();
        builds.flat_map(|(id, keys)| keys.iter().map(|key| (JobId::Build(*id), key)))
    }

    /// Returns the jobs that have a guest or are about to, each with its image. Auxiliary guests are
    /// not among them.
    pub fn guests(&self) -> impl Iterator<Item = (JobId, &ImageKey)> {
        let builds = self.builds.iter().map(|(id, key)| (JobId::Build(*id), key));
        let images = self
            .images
            .keys()
            .map(|key| (JobId::Bootstrap(key.clone()), key));
        let holds = self
            .holds
            .iter()
            .filter(|(_, hold)| hold.has_guest)
            .map(|(id, hold)| (JobId::Build(*id), &hold.key));
        let debug_sessions = self
            .debug_sessions
            .iter()
            .filter(|(_, session)| session.admitted)
            .map(|(tag, session)| (JobId::Copy(*tag), &session.key));
        let forks = self.forks.iter().filter(|(_, fork)| fork.admitted);
        let copies = forks
            .flat_map(|(id, fork)| (0..fork.copies).map(move |_| (JobId::Fork(*id), &fork.key)));
        let guests = builds.chain(images).chain(holds);
        guests.chain(debug_sessions).chain(copies)
    }
}
