//! Forks of running builds: copies of a build's guest continue where it is, each as a build of
//! its own.
//!
//! The copies are admitted together. Then the guest is captured in a fork point, a snapshot of
//! the build's snapshot, and each copy gets a snapshot of that. The fork point is deleted as soon
//! as these exist.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, ForkOrigin, GuestKind, State, Submitter};
use config::{BuildId, ImageKey, Revision};
use guest::fork::{ForkError, ForkSpec};
use jiff::Timestamp;
use records::RecordsError;
use session::{ForkFailure, ForkedGuest};
use store::{Snapshot, StoreError, Volume};
use sys::blocking::blocking;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{Instrument, info, info_span, warn};

use super::build::AttemptKind;
use super::runner::JobError;
use super::{snapshot, spawn_build};
use state::paths::{LIVE_LOG, LOG_TIMES};
use state::{AgentState, ForkJob, ImageFacts};

/// The time for which a fork waits for the scheduler.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(30);

/// The reason for which a build was not forked. It runs on.
#[derive(Debug, thiserror::Error)]
pub enum ForkRefusal {
    /// The build has no guest that works.
    #[error("build {0} is {1}; only a running build can be forked")]
    NotRunning(BuildId, State),
    /// Its guest is a container.
    #[error("build {0} cannot be forked: it runs in a container, which has no checkpoint")]
    Container(BuildId),
    /// Its guest has secrets, which the copies would have as well.
    #[error(
        "build {0} cannot be forked: it has secrets, and those are for one guest; request the \
         build without them, or fork one that does not need them"
    )]
    Secrets(BuildId),
    /// It runs on a revision on trial.
    #[error(
        "build {0} cannot be forked: it runs on revision {1}, which is on trial and may be \
         withdrawn; fork a build on the current revision"
    )]
    Trial(BuildId, Revision),
    /// It has auxiliary guests, which the copies would not have.
    #[error("build {0} cannot be forked: its auxiliary machines would not be copied")]
    Auxiliaries(BuildId),
    /// It is being forked.
    #[error("build {0} is being forked already; try again when its copies run")]
    Busy(BuildId),
    /// The host has no resources for the copies, or is drained.
    #[error("build {0} is not forked: {1}")]
    Rejected(BuildId, String),
    /// The guest is driven by commands.
    #[error(
        "build {0} is not forked: its guest runs commands, whose connections cannot be copied; start more guests"
    )]
    Driven(BuildId),
    /// The guest, its worker or QEMU.
    #[error("build {id} cannot be forked: {reason}")]
    Guest {
        /// The build.
        id: BuildId,
        /// The reason.
        reason: String,
    },
    /// The agent stops.
    #[error("build {0} is not forked: the agent is stopping")]
    Stopping(BuildId),
    /// The snapshots.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The files of the fork point.
    #[error("the fork point cannot be made")]
    Job(#[source] JobError),
}

impl ForkRefusal {
    fn guest(id: BuildId, failure: &(dyn Error + 'static)) -> Self {
        let reason = sys::error_report::chain(failure);
        Self::Guest { id, reason }
    }
}

impl From<JobError> for ForkRefusal {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Store(error) => Self::Store(error),
            error => Self::Job(error),
        }
    }
}

/// Forks a running build into so many copies. Returns their records once they start. The fork
/// is completed even if the caller leaves.
///
/// # Errors
/// When the build cannot be forked. It runs on.
pub async fn fork(
    agent: &Arc<AgentState>,
    build: Build,
    copies: u32,
    submitter: Submitter,
) -> Result<Vec<Build>, ForkRefusal> {
    let id = build.id;
    check(&build)?;
    let (sender, forked) = oneshot::channel();
    let (tasks, agent) = (agent.tasks.clone(), Arc::clone(agent));
    let task = async move {
        let _ = sender.send(run(&agent, &build, copies, submitter).await);
    };
    tasks.spawn(task.instrument(info_span!("fork", build = %id)));
    // A task that panicked sends nothing.
    forked.await.unwrap_or(Err(ForkRefusal::Stopping(id)))
}

/// Checks what the record of a build says.
fn check(build: &Build) -> Result<(), ForkRefusal> {
    let id = build.id;
    if build.state != State::Running {
        return Err(ForkRefusal::NotRunning(id, build.state));
    }
    if build.guest == Some(GuestKind::Nspawn) {
        return Err(ForkRefusal::Container(id));
    }
    if !build.secrets.is_empty() {
        return Err(ForkRefusal::Secrets(id));
    }
    if build.interactive.commands.is_some() {
        return Err(ForkRefusal::Driven(id));
    }
    if build.auxiliaries().next().is_some() {
        return Err(ForkRefusal::Auxiliaries(id));
    }
    if let Some(trial) = build.running_trial() {
        return Err(ForkRefusal::Trial(id, trial.revision));
    }
    if !build.restored {
        return Err(ForkRefusal::guest(id, &ForkError::Cold));
    }
    Ok(())
}

/// The entry of a fork in the job table; removed when this is dropped.
struct SlotGuard<'a> {
    agent: &'a AgentState,
    id: BuildId,
}

impl<'a> SlotGuard<'a> {
    /// Adds an entry that waits for admission. The scheduler sends its answer.
    fn request(
        agent: &'a AgentState,
        build: &Build,
        copies: u32,
    ) -> Result<(Self, oneshot::Receiver<Result<(), String>>), ForkRefusal> {
        let id = build.id;
        let (sender, admission) = oneshot::channel();
        let job = ForkJob {
            key: ImageKey::of(build),
            copies,
            admission: Some(sender),
        };
        let is_new = agent.jobs.with(|jobs| {
            let is_new = !jobs.forks.contains_key(&id);
            if is_new {
                jobs.forks.insert(id, job);
            }
            is_new
        });
        if !is_new {
            return Err(ForkRefusal::Busy(id));
        }
        agent.wake.notify_one();
        Ok((Self { agent, id }, admission))
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let id = self.id;
        self.agent.jobs.with(|jobs| jobs.forks.remove(&id));
        self.agent.wake.notify_one();
    }
}

/// Runs a fork from its admission to the deletion of the fork point.
async fn run(
    agent: &Arc<AgentState>,
    build: &Build,
    copies: u32,
    submitter: Submitter,
) -> Result<Vec<Build>, ForkRefusal> {
    let id = build.id;
    let (slot, admission) = SlotGuard::request(agent, build, copies)?;
    let answer = tokio::select! {
        answer = timeout(ADMISSION_TIMEOUT, admission) => answer,
        () = agent.stopping.cancelled() => return Err(ForkRefusal::Stopping(id)),
    };
    match answer {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(reason))) => return Err(ForkRefusal::Rejected(id, reason)),
        Ok(Err(_)) => return Err(ForkRefusal::Stopping(id)),
        Err(_) => {
            let reason = "the scheduler does not answer".to_owned();
            return Err(ForkRefusal::Rejected(id, reason));
        }
    }
    let volume = snapshot::volume(agent, build).await?;
    let volume = volume.ok_or(ForkRefusal::NotRunning(id, build.state))?;
    let made = make(agent, &volume, build, copies, submitter).await;
    if let Err(error) = snapshot::delete_fork_point(&volume, build).await {
        let error = &error as &dyn Error;
        warn!(error, "cannot delete the fork point of a build");
    }
    let copies = made?;
    let records = copies.iter().map(|(copy, _)| copy.clone()).collect();
    for (copy, snapshot) in copies {
        info!(build = %copy.id, source = %id, "starting a copy of a build");
        spawn_build(agent, volume.clone(), copy, AttemptKind::Copy(snapshot));
    }
    // Only now: the copies are among the jobs.
    drop(slot);
    Ok(records)
}

/// A copy, and the snapshot that its guest continues in.
type PreparedCopy = (Build, Result<Arc<Snapshot>, JobError>);

/// Captures the guest and makes the records, the snapshots and the directories of its copies.
async fn make(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &Build,
    copies: u32,
    submitter: Submitter,
) -> Result<Vec<PreparedCopy>, ForkRefusal> {
    let id = build.id;
    let point = snapshot::take_fork_point(volume, build).await?;
    let path = point.path().to_owned();
    let facts = blocking(move || ImageFacts::read(&path)).await;
    let spec = ForkSpec {
        source: snapshot::directory(volume, build),
        target: point.path().to_owned(),
        machine: facts.machine.map_err(JobError::Manifest)?,
        acceleration: agent.settings().guests.acceleration,
        uefi: agent.settings().guests.uefi.clone(),
    };
    let failed = |failure: ForkFailure| ForkRefusal::guest(id, &failure);
    let handle = agent
        .jobs
        .with(|jobs| jobs.builds.get(&id)?.fork.clone())
        .ok_or_else(|| failed(ForkFailure::Ended))?;
    let log = agent.paths.build(id).join(LIVE_LOG);
    let forked = handle.fork(spec, copies, log).await.map_err(failed)?;
    let ForkedGuest {
        captured,
        log_bytes,
        elapsed,
    } = forked;
    let completed = blocking(move || captured.complete()).await;
    completed.map_err(|error| failed(error.into()))?;
    // What was typed or reported meanwhile belongs to the copies as well.
    let source = agent.records.get(id).await?;
    let source = source.ok_or(ForkRefusal::NotRunning(id, State::Finished))?;
    let now = Timestamp::now();
    let copy = |number| {
        let origin = ForkOrigin {
            build: id,
            number,
            copies,
            seconds: elapsed.as_secs(),
        };
        source.fork(origin, submitter.clone(), now)
    };
    let copies = agent.records.fork((1..=copies).map(copy).collect()).await?;
    let (agent, volume) = (Arc::clone(agent), volume.clone());
    let prepare = move |copy: Build| {
        let prepared = begin_log(&agent, id, copy.id, log_bytes)
            .map_err(JobError::from)
            .and_then(|()| snapshot::take_copy(&volume, &source, &copy));
        (copy, prepared)
    };
    Ok(blocking(move || copies.into_iter().map(prepare).collect()).await)
}

/// Creates the directory of a copy, with the log of the source up to the fork. Blocks.
fn begin_log(agent: &AgentState, source: BuildId, copy: BuildId, bytes: u64) -> io::Result<()> {
    let (from, to) = (agent.paths.build(source), agent.paths.build(copy));
    sys::file::fresh_directory(&to)?;
    sys::file::fresh_directory(&to.join(state::paths::ARTIFACTS))?;
    copy_start(&from, &to, LIVE_LOG, bytes)?;
    copy_start(&from, &to, LOG_TIMES, u64::MAX)
}

/// Copies the first bytes of a file that may be missing.
fn copy_start(from: &Path, to: &Path, name: &str, bytes: u64) -> io::Result<()> {
    let file = match sys::trusted::open(from.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut start = Vec::new();
    file.take(bytes).read_to_end(&mut start)?;
    sys::file::replace(&to.join(name), &start)
}

#[cfg(test)]
mod tests {
    use config::canary::{TrialResult, TrialRun};

    use super::*;

    #[test]
    fn only_a_running_restored_virtual_machine_is_forked() {
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let task = "0".repeat(64).parse().unwrap();
        let toolchain = "default".parse().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let root = Submitter::root();
        let mut build = Build::new(BuildId(7), request, toolchain, task, root, now);
        let message = |build: &Build| check(build).unwrap_err().to_string();
        assert_eq!(
            message(&build),
            "build 7 is queued; only a running build can be forked"
        );
        build.state = State::Running;
        build.guest = Some(GuestKind::Nspawn);
        assert!(message(&build).contains("container"));
        build.guest = Some(GuestKind::Tcg);
        assert!(message(&build).contains("started cold"));
        build.restored = true;
        check(&build).unwrap();
        build.secrets = vec!["deploy-key".parse().unwrap()];
        assert!(message(&build).contains("it has secrets"));
        build.secrets.clear();
        let mut trial = TrialRun {
            revision: Revision(2),
            since: now,
            result: None,
        };
        build.trial = Some(trial.clone());
        assert!(message(&build).contains("revision 2, which is on trial"));
        // The repetition on the current revision is like any other build.
        trial.result = Some(TrialResult::Succeeded);
        build.trial = Some(trial);
        check(&build).unwrap();
    }
}
