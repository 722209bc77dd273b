//! The table of everything that runs a guest, and how to end each entry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::builds::Submitter;
use config::manifest::Manifest;
use config::task::Provenance;
use config::{BuildId, CopyTag, ImageKey};
use jiff::Timestamp;
use parking_lot::Mutex;
use planner::{JobId, RunningDebugSession, RunningHold, RunningJobs};
use store::VolumeId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A build that runs.
#[derive(Debug)]
pub struct BuildJob {
    /// The image that it runs on.
    pub key: ImageKey,
    /// Cancels it.
    pub cancel: CancellationToken,
    /// Resumes its guest at a breakpoint, once it runs.
    pub resume: Option<tftp::server::DeferredFile>,
    /// The directory that was nearly full, if the build was evicted for it.
    pub evicted: Option<PathBuf>,
}

impl BuildJob {
    /// Returns the entry of a build that starts.
    pub fn new(key: ImageKey, cancel: CancellationToken) -> Self {
        Self {
            key,
            cancel,
            resume: None,
            evicted: None,
        }
    }
}

/// A bootstrap, or the making of a checkpoint.
#[derive(Debug)]
pub struct ImageJob {
    /// The inputs of the image.
    pub inputs: Provenance,
    /// Cancels it.
    pub cancel: CancellationToken,
    /// The directory that was nearly full, if the job was evicted for it.
    pub evicted: Option<PathBuf>,
}

/// A hold: the guest or the snapshot of a failed build, kept for debugging.
#[derive(Debug, Clone)]
pub struct HoldJob {
    /// The image that the build ran on.
    pub key: ImageKey,
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
    /// The person who debugs.
    pub submitter: Submitter,
    /// The time of the request.
    pub since: Timestamp,
    /// Ends it.
    pub cancel: CancellationToken,
    /// Receives the scheduler's answer; `None` once it was admitted or rejected.
    pub admission: Option<oneshot::Sender<Result<(), String>>>,
    /// The directory that was nearly full, if the session was evicted for it.
    pub evicted: Option<PathBuf>,
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
            images: entries
                .images
                .iter()
                .map(|(key, job)| (key.clone(), job.inputs.clone()))
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
            pruning: entries.pruning.clone(),
            unstored: entries.unstored.clone(),
        })
    }

    /// Cancels a build. Returns `false` if it does not run.
    pub fn cancel_build(&self, id: BuildId) -> bool {
        self.with(|entries| {
            let job = entries.builds.get(&id);
            job.map(|job| job.cancel.cancel()).is_some()
        })
    }

    /// Resumes the guest of a build that waits at its breakpoint.
    pub fn resume_build(&self, id: BuildId) {
        let resume = self.with(|entries| entries.builds.get(&id)?.resume.clone());
        if let Some(resume) = resume {
            resume.provide(&config::manifest::print(&[Manifest::new()]));
        }
    }

    /// Cancels a bootstrap or the making of a checkpoint.
    pub fn cancel_image(&self, key: &ImageKey) {
        self.with(|entries| {
            if let Some(job) = entries.images.get(key) {
                job.cancel.cancel();
            }
        });
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

    /// Ends a debug session.
    pub fn cancel_debug_session(&self, tag: CopyTag) {
        self.with(|entries| {
            if let Some(job) = entries.debug_sessions.get(&tag) {
                job.cancel.cancel();
            }
        });
    }

    /// Ends a job because `directory` is nearly full.
    pub fn evict(&self, job: &JobId, directory: PathBuf) {
        self.with(|entries| {
            if let Some((cancel, evicted)) = entries.eviction_of(job) {
                *evicted = Some(directory);
                cancel.cancel();
            }
        });
    }

    /// Returns the directory for which a job was evicted, if it was. It is forgotten with
    /// the entry of the job, so that a retry does not inherit it.
    pub fn eviction(&self, job: &JobId) -> Option<PathBuf> {
        self.with(|entries| entries.eviction_of(job)?.1.clone())
    }
}

impl Entries {
    fn eviction_of(&mut self, job: &JobId) -> Option<(&CancellationToken, &mut Option<PathBuf>)> {
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
        let key = ImageKey {
            machine: "demo".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
        };
        let cancel = CancellationToken::new();
        let job = BuildJob::new(key, cancel.clone());
        jobs.with(|entries| entries.builds.insert(BuildId(1), job));
        cancel
    }

    #[test]
    fn a_retry_does_not_inherit_the_eviction_of_an_earlier_attempt() {
        let (jobs, build) = (JobTable::default(), JobId::Build(BuildId(1)));
        jobs.evict(&build, "/full".into());
        assert_eq!(jobs.eviction(&build), None, "it does not run");
        let first = start(&jobs);
        jobs.evict(&build, "/full".into());
        assert!(first.is_cancelled());
        assert_eq!(jobs.eviction(&build), Some("/full".into()));
        let second = start(&jobs);
        assert_eq!(jobs.eviction(&build), None);
        assert!(!second.is_cancelled());
    }
}
