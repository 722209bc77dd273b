//! The start of bootstraps and checkpoints: the jobs that change images.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use planner::{ImageStart, JobId};
use session::GuestFailure;
use store::Volume;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use super::{JobError, bootstrap};
use state::{AgentState, ImageJob};

/// The kind of a job that changes an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageJobKind {
    /// Makes the image.
    Bootstrap,
    /// Makes a checkpoint in an image that serves already.
    Checkpoint,
}

/// The end of a job that changes an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// The image serves.
    Done,
    /// The job was canceled.
    Cancelled,
    /// The job failed, with this error.
    Failed(String),
}

/// Starts a job that changes an image, unless the host has been drained since the plan.
/// `report` is called with its end before the job leaves the job table.
pub fn start_image(
    agent: &Arc<AgentState>,
    kind: ImageJobKind,
    start: ImageStart,
    report: impl FnOnce(JobEnd) + Send + 'static,
) {
    let Some(volume) = agent.volumes.get(start.volume).cloned() else {
        return;
    };
    let cancel = agent.stopping.child_token();
    if !register(agent, &start, &cancel) {
        return;
    }
    let (machine, toolchain) = (start.key.machine.clone(), start.key.toolchain.clone());
    let span = match kind {
        ImageJobKind::Bootstrap => info_span!("bootstrap", %machine, %toolchain),
        ImageJobKind::Checkpoint => info_span!("freeze", %machine, %toolchain),
    };
    let task_agent = Arc::clone(agent);
    let task = async move {
        let end = run(&task_agent, kind, &volume, &start, &cancel).await;
        report(end);
        task_agent.jobs.with(|jobs| jobs.images.remove(&start.key));
        task_agent.wake.notify_one();
    };
    agent.tasks.spawn(task.instrument(span));
}

/// Adds the job to the job table. Returns `false` if the host is drained.
fn register(agent: &AgentState, start: &ImageStart, cancel: &CancellationToken) -> bool {
    agent.jobs.with(|jobs| {
        if agent.drained().is_some() {
            return false;
        }
        let job = ImageJob {
            inputs: start.inputs.clone(),
            unasked: start.unasked,
            cancel: cancel.clone(),
            evicted: None,
        };
        jobs.images.insert(start.key.clone(), job);
        true
    })
}

async fn run(
    agent: &Arc<AgentState>,
    kind: ImageJobKind,
    volume: &Volume,
    start: &ImageStart,
    cancel: &CancellationToken,
) -> JobEnd {
    match kind {
        ImageJobKind::Bootstrap => info!("starting the bootstrap"),
        ImageJobKind::Checkpoint => info!("starting to make a checkpoint"),
    }
    let began = Instant::now();
    let job = async {
        match kind {
            ImageJobKind::Bootstrap => bootstrap::run(agent, volume, start, cancel).await,
            ImageJobKind::Checkpoint => {
                bootstrap::renew_checkpoint(agent, volume, start, cancel).await
            }
        }
    };
    let result = AssertUnwindSafe(job).catch_unwind().await;
    let result = result.unwrap_or(Err(JobError::Panicked));
    let evicted = agent.jobs.eviction(&JobId::Bootstrap(start.key.clone()));
    let is_evicted = evicted.is_some();
    let result = match evicted {
        Some(disk) => result.map_err(|_| GuestFailure::DiskFull(disk.directory).into()),
        None => result,
    };
    let is_cancelled = cancel.is_cancelled() && !is_evicted;
    if kind == ImageJobKind::Bootstrap && (result.is_ok() || !is_cancelled) {
        let metrics = &agent.telemetry.metrics;
        metrics.bootstrap(result.is_ok(), began.elapsed());
    }
    let error = match result {
        Ok(()) => return JobEnd::Done,
        Err(error) => error,
    };
    let message = sys::error_report::chain(&error);
    if is_cancelled {
        info!(error = message, "the image job was canceled");
        return JobEnd::Cancelled;
    }
    warn!(error = message, "the image job failed");
    if kind == ImageJobKind::Checkpoint {
        agent
            .restores
            .checkpoint_failed(&start.key, message.clone());
    }
    JobEnd::Failed(message)
}
