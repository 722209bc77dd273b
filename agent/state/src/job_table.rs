//! The table of everything that runs a guest, and how to end each entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use config::builds::{Build, Resources, Submitter};
use config::manifest::Manifest;
use config::task::{Outcome, Provenance};
use config::{BuildId, ControllerName, CopyTag, ImageKey};
use jiff::Timestamp;
use parking_lot::Mutex;
use planner::{JobId, RunningDebugSession, RunningFork, RunningHold, RunningJobs};
use store::VolumeId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The use of a disk of the host that is nearly full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUse {
    /// A directory on the disk.
    pub directory: PathBuf,
    /// The bytes that the guest has written there.
    pub written: u64,
    /// The largest number of bytes that were seen free beside the reserve since the guest
    /// started. `None` if that is unknown.
    pub available: Option<u64>,
}

/// A build that runs.
#[derive(Debug)]
pub struct BuildJob {
    /// The image that it runs on.
    pub key: ImageKey,
    /// The resources that it asked for.
    pub resources: Resources,
    /// The images of its auxiliary guests.
    pub auxiliaries: Vec<ImageKey>,
    /// Cancels it.
    pub cancel: CancellationToken,
    /// Forks its guest, once it runs.
    pub fork: Option<session::ForkHandle>,
    /// Resumes its guest at a breakpoint, once it runs.
    pub resume: Option<tftp::server::DeferredFile>,
    /// The disk that was nearly full, if the build was evicted for it.
    pub evicted: Option<DiskUse>,
    /// The largest number of bytes that were seen free beside the reserve since the build
    /// started, by the directories of the disks. `None` for a build that was adopted.
    pub available: Option<BTreeMap<PathBuf, u64>>,
    /// Set when a person's cancellation was accepted.
    pub is_canceled: bool,
    /// The end of the lease of its task, if it was ended early.
    pub lease_end: Option<LeaseEnd>,
    /// Set when its attempt has ended and its record is about to say how: too late to cancel.
    pub is_concluded: bool,
}

/// The answer to a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// The build is being ended, and its outcome will say so.
    Accepted,
    /// The attempt has ended, and its record is being stored.
    Concluded,
    /// The build does not run.
    NotRunning,
}

impl BuildJob {
    /// Returns the entry of a build that starts.
    pub fn new(build: &Build, cancel: CancellationToken) -> Self {
        Self {
            key: ImageKey::of(build),
            resources: build.resources.clone(),
            auxiliaries: build
                .auxiliaries()
                .map(|it| ImageKey {
                    machine: it.machine.clone(),
                    toolchain: build.toolchain.clone(),
                })
                .collect(),
            cancel,
            fork: None,
            resume: None,
            evicted: None,
            available: Some(BTreeMap::new()),
            is_canceled: false,
            lease_end: None,
            is_concluded: false,
        }
    }
}

/// The reason for which the build of a controller's task was ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEnd {
    /// A task of another controller, with a higher priority, needed its place.
    Interrupted(ControllerName),
    /// The time of its lease is over.
    Expired,
    /// Its controller does not want its result any more, for this reason.
    Withdrawn(String),
    /// Its lease is given back without a result, for this reason.
    Revoked(String),
    /// Its controller was forgotten.
    Forgotten,
}

impl LeaseEnd {
    /// Returns the outcome of the build.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Interrupted(_) | Self::Revoked(_) => Outcome::Interrupt,
            Self::Expired | Self::Withdrawn(_) | Self::Forgotten => Outcome::Abort,
        }
    }
}

impl fmt::Display for LeaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(by) => write!(
                f,
                "a task of controller {by}, which has a higher priority, took its place"
            ),
            Self::Expired => f.write_str(
                "its controller has given it up, because the time of its lease (lease_minutes_max) is over",
            ),
            Self::Withdrawn(reason) => write!(f, "its controller has ended it: {reason}"),
            Self::Revoked(reason) => write!(f, "its lease is given back: {reason}"),
            Self::Forgotten => f.write_str(
                "its controller, which the settings do not name, was forgotten (`buildhost controllers forget`)",
            ),
        }
    }
}

/// A bootstrap, or the making of a checkpoint.
#[derive(Debug)]
pub struct ImageJob {
    /// The inputs of the image.
    pub inputs: Provenance,
    /// Set if no build needed the image when the job started.
    pub unasked: bool,
    /// Cancels it.
    pub cancel: CancellationToken,
    /// The disk that was nearly full, if the job was evicted for it.
    pub evicted: Option<DiskUse>,
}

/// A hold: the guest or the snapshot of a failed build, kept for debugging.
#[derive(Debug, Clone)]
pub struct HoldJob {
    /// The image that the build ran on.
    pub key: ImageKey,
    /// The resources that the build asked for.
    pub resources: Resources,
    /// Releases the guest and the snapshot.
    pub release: CancellationToken,
    /// Evicts the guest; the snapshot stays.
    pub evict: CancellationToken,
    /// `true` while there is a guest.
    pub has_guest: bool,
}

/// A debug session in a copy of a held build.
#[derive(Debug)]
pub struct DebugJob {
    /// The image that the build ran on.
    pub key: ImageKey,
    /// The resources that the build asked for.
    pub resources: Resources,
    /// The person who debugs.
    pub submitter: Submitter,
    /// The time of the request.
    pub since: Timestamp,
    /// Ends it.
    pub cancel: CancellationToken,
    /// Receives the scheduler's answer; `None` once it was admitted or rejected.
    pub admission: Option<oneshot::Sender<Result<(), String>>>,
    /// The disk that was nearly full, if the session was evicted for it.
    pub evicted: Option<DiskUse>,
}

/// A fork of a build whose copies do not run yet.
#[derive(Debug)]
pub struct ForkJob {
    /// The image that the build runs on.
    pub key: ImageKey,
    /// The number of copies.
    pub copies: u32,
    /// Receives the scheduler's answer; `None` once it was admitted or rejected.
    pub admission: Option<oneshot::Sender<Result<(), String>>>,
}

/// The entries of a [`JobTable`].
#[derive(Debug, Default)]
pub struct Entries {
    /// The builds that run.
    pub builds: BTreeMap<BuildId, BuildJob>,
    /// The bootstraps and checkpoints under way.
    pub images: BTreeMap<ImageKey, ImageJob>,
    /// The holds.
    pub holds: BTreeMap<BuildId, HoldJob>,
    /// The debug sessions, waiting ones included.
    pub debug_sessions: BTreeMap<CopyTag, DebugJob>,
    /// The forks of builds, by the build that is forked.
    pub forks: BTreeMap<BuildId, ForkJob>,
    /// The volumes in which revisions are being pruned.
    pub pruning: BTreeSet<VolumeId>,
    /// The builds whose outcome cannot be stored at present, each with the reason.
    pub unstored: BTreeMap<BuildId, String>,
}

/// The table of everything that runs a guest.
#[derive(Debug, Default)]
pub struct JobTable(Mutex<Entries>);

impl JobTable {
    /// Reads or changes the entries. `work` must not block.
    pub fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        work(&mut self.0.lock())
    }

    /// Returns the jobs of this instant.
    pub fn running(&self) -> RunningJobs {
        self.with(|entries| RunningJobs {
            builds: entries
                .builds
                .iter()
                .map(|(id, job)| (*id, job.key.clone()))
                .collect(),
            auxiliaries: entries
                .builds
                .iter()
                .filter(|(_, job)| !job.auxiliaries.is_empty())
                .map(|(id, job)| (*id, job.auxiliaries.clone()))
                .collect(),
            images: entries
                .images
                .iter()
                .map(|(key, job)| (key.clone(), job.inputs.clone()))
                .collect(),
            unasked: entries
                .images
                .iter()
                .filter(|(_, job)| job.unasked)
                .map(|(key, _)| key.clone())
                .collect(),
            holds: entries
                .holds
                .iter()
                .map(|(id, hold)| (*id, hold.as_running()))
                .collect(),
            debug_sessions: entries
                .debug_sessions
                .iter()
                .map(|(tag, job)| (*tag, job.as_running()))
                .collect(),
            forks: entries
                .forks
                .iter()
                .map(|(id, job)| (*id, job.as_running()))
                .collect(),
            resources: entries.resources(),
            pruning: entries.pruning.clone(),
            unstored: entries.unstored.clone(),
        })
    }

    /// Cancels a build, unless its attempt has ended.
    pub fn cancel_build(&self, id: BuildId) -> CancelAnswer {
        self.with(|entries| match entries.builds.get_mut(&id) {
            None => CancelAnswer::NotRunning,
            Some(job) if job.is_concluded => CancelAnswer::Concluded,
            Some(job) => {
                job.is_canceled = true;
                job.cancel.cancel();
                CancelAnswer::Accepted
            }
        })
    }

    /// Ends the build of a controller's task early, unless its attempt has ended.
    pub fn end_lease(&self, id: BuildId, end: LeaseEnd) -> CancelAnswer {
        self.with(|entries| match entries.builds.get_mut(&id) {
            None => CancelAnswer::NotRunning,
            Some(job) if job.is_concluded => CancelAnswer::Concluded,
            Some(job) => {
                job.lease_end.get_or_insert(end);
                job.cancel.cancel();
                CancelAnswer::Accepted
            }
        })
    }

    /// Returns the early end of a build's lease.
    pub fn lease_end(&self, id: BuildId) -> Option<LeaseEnd> {
        self.with(|entries| entries.builds.get(&id)?.lease_end.clone())
    }

    /// Marks the attempt at a build as ended: from now on it cannot be canceled. Returns true if
    /// a cancellation was accepted before.
    pub fn conclude_build(&self, id: BuildId) -> bool {
        self.with(|entries| {
            let Some(job) = entries.builds.get_mut(&id) else {
                return false;
            };
            job.is_concluded = true;
            job.is_canceled
        })
    }

    /// Returns the jobs that may be evicted, with their images. Bootstraps come first: of jobs
    /// that have written equally, the last one is evicted.
    pub fn evictable(&self) -> Vec<(JobId, ImageKey)> {
        self.with(|entries| {
            let images = entries.images.keys();
            let images = images.map(|key| (JobId::Bootstrap(key.clone()), key.clone()));
            // Held guests are suspended and write nothing; a concluded build has no guest.
            let builds = entries.builds.iter();
            let builds = builds
                .filter(|(_, job)| !job.is_concluded)
                .map(|(id, job)| (JobId::Build(*id), job.key.clone()));
            let sessions = entries.debug_sessions.iter();
            let sessions = sessions.map(|(tag, job)| (JobId::Copy(*tag), job.key.clone()));
            images.chain(builds).chain(sessions).collect()
        })
    }

    /// Resumes the guest of a build that waits at its breakpoint.
    pub fn resume_build(&self, id: BuildId) {
        let resume = self.with(|entries| entries.builds.get(&id)?.resume.clone());
        if let Some(resume) = resume {
            resume.provide(&config::manifest::print_local(&[Manifest::new()]));
        }
    }

    /// Cancels a bootstrap or the making of a checkpoint. Returns `false` if it was
    /// cancelled before or does not run.
    pub fn cancel_image(&self, key: &ImageKey) -> bool {
        self.with(|entries| {
            let job = entries.images.get(key);
            let job = job.filter(|job| !job.cancel.is_cancelled());
            job.map(|job| job.cancel.cancel()).is_some()
        })
    }

    /// Evicts the guest of a hold; its snapshot stays.
    pub fn evict_hold(&self, id: BuildId) {
        self.with(|entries| {
            if let Some(hold) = entries.holds.get(&id) {
                hold.evict.cancel();
            }
        });
    }

    /// Releases a hold. Returns `false` if there is no such hold.
    pub fn release_hold(&self, id: BuildId) -> bool {
        self.with(|entries| {
            let hold = entries.holds.get(&id);
            hold.map(|hold| hold.release.cancel()).is_some()
        })
    }

    /// Answers a debug session that waits for admission.
    pub fn answer_debug_session(&self, tag: CopyTag, answer: Result<(), String>) {
        self.with(|entries| {
            let job = entries.debug_sessions.get_mut(&tag);
            if let Some(admission) = job.and_then(|job| job.admission.take()) {
                // The requester may have left; then the session ends by itself.
                let _ = admission.send(answer);
            }
        });
    }

    /// Answers a fork that waits for admission.
    pub fn answer_fork(&self, id: BuildId, answer: Result<(), String>) {
        self.with(|entries| {
            let job = entries.forks.get_mut(&id);
            if let Some(admission) = job.and_then(|job| job.admission.take()) {
                let _ = admission.send(answer);
            }
        });
    }

    /// Ends a debug session.
    pub fn cancel_debug_session(&self, tag: CopyTag) {
        self.with(|entries| {
            if let Some(job) = entries.debug_sessions.get(&tag) {
                job.cancel.cancel();
            }
        });
    }

    /// Ends a job because it has written `written` bytes to the disk of `directory`, which is
    /// nearly full.
    pub fn evict(&self, job: &JobId, directory: PathBuf, written: u64) {
        self.with(|entries| {
            let available = entries.available(job, &directory);
            if let Some((cancel, evicted)) = entries.eviction_of(job) {
                *evicted = Some(DiskUse {
                    directory,
                    written,
                    available,
                });
                cancel.cancel();
            }
        });
    }

    /// Notes the free space beside the reserve of the disk of `directory` for all builds.
    pub fn note_available(&self, directory: &Path, bytes: u64) {
        self.with(|entries| {
            let jobs = entries.builds.values_mut();
            for available in jobs.filter_map(|job| job.available.as_mut()) {
                let most = available.entry(directory.to_owned()).or_default();
                *most = bytes.max(*most);
            }
        });
    }

    /// Returns the largest number of bytes that were seen free beside the reserve on the disk
    /// of `directory` since a build started.
    pub fn available(&self, id: BuildId, directory: &Path) -> Option<u64> {
        self.with(|entries| entries.available(&JobId::Build(id), directory))
    }

    /// Returns the disk for which a job was evicted, if it was. It is forgotten with the entry
    /// of the job, so that a retry does not inherit it.
    pub fn eviction(&self, job: &JobId) -> Option<DiskUse> {
        self.with(|entries| entries.eviction_of(job)?.1.clone())
    }
}

impl Entries {
    /// Returns the resources that builds asked for, by the build whose job has them.
    fn resources(&self) -> BTreeMap<BuildId, Resources> {
        let builds = self.builds.iter().map(|(id, job)| (*id, &job.resources));
        let holds = self.holds.iter().map(|(id, hold)| (*id, &hold.resources));
        let sessions = self.debug_sessions.iter();
        let sessions = sessions.map(|(tag, job)| (tag.build, &job.resources));
        builds
            .chain(holds)
            .chain(sessions)
            .filter(|(_, resources)| !resources.is_empty())
            .map(|(id, resources)| (id, resources.clone()))
            .collect()
    }

    fn available(&self, job: &JobId, directory: &Path) -> Option<u64> {
        match job {
            JobId::Build(id) => {
                let available = self.builds.get(id)?.available.as_ref()?;
                available.get(directory).copied()
            }
            JobId::Bootstrap(_) | JobId::Copy(_) | JobId::Fork(_) => None,
        }
    }

    fn eviction_of(&mut self, job: &JobId) -> Option<(&CancellationToken, &mut Option<DiskUse>)> {
        match job {
            JobId::Build(id) => {
                let job = self.builds.get_mut(id)?;
                Some((&job.cancel, &mut job.evicted))
            }
            JobId::Bootstrap(key) => {
                let job = self.images.get_mut(key)?;
                Some((&job.cancel, &mut job.evicted))
            }
            JobId::Copy(tag) => {
                let job = self.debug_sessions.get_mut(tag)?;
                Some((&job.cancel, &mut job.evicted))
            }
            JobId::Fork(_) => None,
        }
    }
}

impl ForkJob {
    fn as_running(&self) -> RunningFork {
        RunningFork {
            key: self.key.clone(),
            copies: self.copies,
            admitted: self.admission.is_none(),
        }
    }
}

impl HoldJob {
    fn as_running(&self) -> RunningHold {
        RunningHold {
            key: self.key.clone(),
            has_guest: self.has_guest,
        }
    }
}

impl DebugJob {
    fn as_running(&self) -> RunningDebugSession {
        RunningDebugSession {
            key: self.key.clone(),
            submitter: self.submitter.clone(),
            since: self.since,
            admitted: self.admission.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(jobs: &JobTable) -> CancellationToken {
        let request = r#"{"machine": "demo", "sources": [], "resources": {"cpus": 3}}"#;
        let build = Build::new(
            BuildId(1),
            serde_json::from_str(request).unwrap(),
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        );
        let cancel = CancellationToken::new();
        let job = BuildJob::new(&build, cancel.clone());
        jobs.with(|entries| entries.builds.insert(BuildId(1), job));
        cancel
    }

    #[test]
    fn a_cancellation_is_accepted_until_the_attempt_is_concluded() {
        let (jobs, id) = (JobTable::default(), BuildId(1));
        assert_eq!(jobs.cancel_build(id), CancelAnswer::NotRunning);
        start(&jobs);
        let running = jobs.running();
        let resources = running.resources_of(&JobId::Build(id)).unwrap();
        assert_eq!(resources.to_string(), "3 processors");
        assert!(!jobs.conclude_build(id));
        assert_eq!(jobs.cancel_build(id), CancelAnswer::Concluded);
        assert_eq!(jobs.evictable(), []);
        let cancel = start(&jobs);
        assert_eq!(jobs.evictable().len(), 1);
        assert_eq!(jobs.cancel_build(id), CancelAnswer::Accepted);
        assert!(cancel.is_cancelled());
        assert!(jobs.conclude_build(id));
    }

    #[test]
    fn a_retry_does_not_inherit_the_eviction_of_an_earlier_attempt() {
        let (jobs, build) = (JobTable::default(), JobId::Build(BuildId(1)));
        let evict = || jobs.evict(&build, "/full".into(), 7);
        evict();
        assert_eq!(jobs.eviction(&build), None, "it does not run");
        let first = start(&jobs);
        for bytes in [5, 9, 3] {
            jobs.note_available(Path::new("/full"), bytes);
        }
        evict();
        assert!(first.is_cancelled());
        let disk = DiskUse {
            directory: "/full".into(),
            written: 7,
            available: Some(9),
        };
        assert_eq!(jobs.eviction(&build), Some(disk));
        let second = start(&jobs);
        assert_eq!(jobs.eviction(&build), None);
        assert!(!second.is_cancelled());
    }
}
