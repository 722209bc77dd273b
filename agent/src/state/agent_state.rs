//! What all parts of a running agent share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use config::BuildId;
use config::builds::Status;
use config::queue::Drained;
use config::settings::Settings;
use store::Volume;
use store::toolchains::Toolchains;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::records::Records;
use crate::scheduler::{ImageKey, QueueSnapshot};
use crate::session::{self, GuestServices};
use crate::state::guest_tag::{CopyTag, GuestTag};
use config::task::Provenance;

/// What all parts of a running agent share.
#[derive(Debug)]
pub struct AgentState {
    /// The settings.
    pub settings: Settings,
    /// The volumes, in the order of the settings.
    pub volumes: Vec<Volume>,
    /// The toolchains.
    pub toolchains: Toolchains,
    /// The records of builds.
    pub records: Records,
    /// The PR service.
    pub pr: prserv::Service,
    /// The parts that guests share.
    pub guests: Arc<GuestServices>,
    /// Wakes the reconciler: something has changed.
    pub wake: Notify,
    /// Wakes it a little later: a directory has changed, and may not be done yet.
    pub stirred: Notify,
    /// What runs.
    pub jobs: Mutex<Jobs>,
    /// The tasks of what runs.
    pub tasks: TaskTracker,
    /// Says that the agent stops: nothing new is begun, and what runs is ended.
    pub stopping: CancellationToken,
    /// Says, besides, that the guests of builds run on for the next agent.
    pub leaving: CancellationToken,
    /// Held by whoever takes a build out of the queue.
    pub queue: tokio::sync::Mutex<()>,
    /// What the reconciler last found.
    pub status: Mutex<Option<Status>>,
    /// What it last found of the queue.
    outlook: Mutex<QueueSnapshot>,
    /// Whether nothing is to start.
    drained: Mutex<Option<Drained>>,
    /// What is remembered of frozen guests.
    pub frozen: crate::state::restore_history::Memory,
    /// The list of finished builds, as Toaster's readers get it.
    pub finished: crate::api::toaster::Finished,
    /// The guests that wait for a person.
    pub held: crate::jobs::hold::Desk,
    /// How many bootstraps were begun.
    pub bootstraps: AtomicU64,
    /// How many copies of builds were made.
    pub copies: AtomicU64,
}

/// What runs, and how to end each.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Builds.
    pub builds: BTreeMap<BuildId, (ImageKey, CancellationToken)>,
    /// Bootstraps, and what each is to make.
    pub bootstraps: BTreeMap<ImageKey, (Provenance, CancellationToken)>,
    /// The volumes whose old revisions are being deleted.
    pub pruning: BTreeSet<usize>,
    /// What is being ended because this place is nearly full.
    pub full: BTreeMap<Job, PathBuf>,
    /// What is held of builds that have failed.
    pub held: BTreeMap<BuildId, crate::jobs::hold::Job>,
    /// The copies of that which people look into.
    pub attached: BTreeMap<CopyTag, crate::jobs::debug_session::Attached>,
}

/// Something that runs a guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// A build.
    Build(BuildId),
    /// A bootstrap, or the freezing of an image's guest.
    Bootstrap(ImageKey),
    /// A copy that somebody looks into.
    Copy(CopyTag),
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => write!(f, "build {id}"),
            Self::Copy(tag) => write!(f, "the copy {tag} that somebody is attached to"),
            Self::Bootstrap(pair) => {
                write!(
                    f,
                    "the bootstrap of {} with {}",
                    pair.machine, pair.toolchain
                )
            }
        }
    }
}

impl AgentState {
    /// A host on which nothing runs yet.
    pub fn new(
        settings: Settings,
        volumes: Vec<Volume>,
        toolchains: Toolchains,
        records: Records,
        pr: prserv::Service,
        guest_user: (u32, u32),
    ) -> Self {
        let guests = GuestServices {
            name: settings.name.clone(),
            run_dir: session::guests_directory(&settings.paths.run),
            settings: settings.guests.clone(),
            pr_settings: settings.pr.clone(),
            prserv: pr.clone(),
            guest_user: guest_user.into(),
            consoles: session::console::ConsoleRegistry::default(),
            metrics: Arc::clone(records.metrics()),
        };
        Self {
            settings,
            volumes,
            toolchains,
            records,
            pr,
            guests: Arc::new(guests),
            wake: Notify::new(),
            stirred: Notify::new(),
            jobs: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            leaving: CancellationToken::new(),
            queue: tokio::sync::Mutex::default(),
            status: Mutex::default(),
            outlook: Mutex::default(),
            drained: Mutex::default(),
            frozen: crate::state::restore_history::Memory::default(),
            finished: crate::api::toaster::Finished::default(),
            held: crate::jobs::hold::Desk::default(),
            bootstraps: AtomicU64::new(0),
            copies: AtomicU64::new(0),
        }
    }

    /// Lets go of all that is held of a build; whether there was anything.
    pub fn release(&self, id: BuildId) -> bool {
        let job = self.with_jobs(|jobs| jobs.held.get(&id).cloned());
        if let Some(job) = &job {
            job.release.cancel();
        }
        job.is_some()
    }

    /// Looks at or changes what runs. Not held across a wait.
    pub fn with_jobs<T>(&self, work: impl FnOnce(&mut Jobs) -> T) -> T {
        work(&mut self.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends a job because `place` is nearly full.
    pub fn end_for_room(&self, job: Job, place: PathBuf) {
        self.with_jobs(|jobs| {
            let cancel = match &job {
                Job::Build(id) => jobs.builds.get(id).map(|(_, cancel)| cancel),
                Job::Bootstrap(pair) => jobs.bootstraps.get(pair).map(|(_, cancel)| cancel),
                Job::Copy(tag) => jobs.attached.get(tag).map(|attached| &attached.end),
            };
            if let Some(cancel) = cancel {
                cancel.cancel();
                jobs.full.insert(job, place);
            }
        });
    }

    /// The place that was nearly full, if a job was ended for that. Asked once.
    pub fn was_ended_for_room(&self, job: &Job) -> Option<PathBuf> {
        self.with_jobs(|jobs| jobs.full.remove(job))
    }

    /// The directory with a directory for each build.
    pub fn builds_directory(&self) -> PathBuf {
        self.settings.paths.state.join("builds")
    }

    /// The directory of a build: its log, its artifacts, its result.
    pub fn build_directory(&self, id: BuildId) -> PathBuf {
        self.builds_directory().join(id.to_string())
    }

    /// The directory with the sources of builds, each named by its hash.
    pub fn sources_directory(&self) -> PathBuf {
        self.settings.paths.state.join("sources")
    }

    /// The directory with the consoles and logs of bootstraps.
    pub fn bootstraps_directory(&self) -> PathBuf {
        self.settings.paths.state.join("bootstraps")
    }

    /// What the reconciler last found; nothing before its first round.
    pub fn status(&self) -> Option<Status> {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets everybody see what the reconciler found.
    pub fn publish(&self, status: Status) {
        let mut last = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        self.records.events().status(last.as_ref(), &status);
        *last = Some(status);
    }

    /// What the reconciler last found of the queue.
    pub fn outlook(&self) -> QueueSnapshot {
        self.outlook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets everybody see what the reconciler found of the queue.
    pub fn show_queue(&self, outlook: QueueSnapshot) {
        *self.outlook.lock().unwrap_or_else(PoisonError::into_inner) = outlook;
    }

    /// Whether nothing is to start, since when and why.
    pub fn drained(&self) -> Option<Drained> {
        self.drained
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says whether anything is to start; [`crate::state::maintenance`] keeps it.
    pub(crate) fn set_drained(&self, drained: Option<Drained>) {
        // Held, so that no bootstrap begins that was decided on before.
        let _jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner) = drained;
    }

    /// A short name for the next copy of what is held of a build.
    pub fn next_copy(&self, build: BuildId) -> CopyTag {
        let number = self.copies.fetch_add(1, Ordering::Relaxed) + 1;
        CopyTag { build, number }
    }

    /// A short name for the next bootstrap's guest.
    pub fn next_bootstrap(&self) -> String {
        let number = self.bootstraps.fetch_add(1, Ordering::Relaxed) + 1;
        GuestTag::Bootstrap(number).to_string()
    }
}
