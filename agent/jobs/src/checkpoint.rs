//! The making of a checkpoint: a guest is frozen in an image at the moment when its worker
//! waits for a task.
//!
//! Whatever fails here, the image serves without a checkpoint: its builds start cold.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::limits::Limits;
use config::machine::Machine;
use config::task::Preload;
use config::{ImageKey, MIB};
use guest::BootMode;
use session::{GuestEvent, Session, SessionSpec, log_capture};
use store::Snapshot;
use sys::blocking::blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::limits;
use super::runner::{self, Bounds, GuestJob, GuestSource, JobError};
use state::restore_history::checkpoints_disabled;
use state::{AgentState, ImageFacts};

/// The outcome of making a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// The image has a checkpoint.
    Made,
    /// No checkpoint can or shall be made of this image.
    Unsupported,
    /// The host failed; a retry may succeed.
    HostFailed,
}

/// Boots the snapshot, in which a toolchain is installed, and makes a checkpoint when its
/// guest waits for a task. The machine's own disk in the snapshot stays as it is.
///
/// # Errors
/// Only when it was canceled.
pub(super) async fn make(
    agent: &AgentState,
    snapshot: Arc<Snapshot>,
    key: &ImageKey,
    cancel: &CancellationToken,
) -> Result<Checkpoint, JobError> {
    let directory = snapshot.path().to_owned();
    let path = directory.clone();
    let (discarded, facts) =
        blocking(move || (guest::checkpoint::discard(&path), ImageFacts::read(&path))).await;
    if let Some(reason) = checkpoints_disabled(&agent.settings().guests, &facts) {
        info!(reason, "no checkpoint is made: builds start cold");
        return Ok(Checkpoint::Unsupported);
    }
    let made = async {
        discarded?;
        let machine = facts.machine.map_err(JobError::Manifest)?;
        boot(agent, snapshot, machine, key, cancel).await
    };
    let error = match made.await {
        Ok(()) => {
            let path = directory.clone();
            let memory_mib = blocking(move || guest::checkpoint::memory_bytes(&path))
                .await
                .div_ceil(MIB);
            info!(memory_mib, "made a checkpoint in the image");
            return Ok(Checkpoint::Made);
        }
        Err(error) if error.is_cancelled() => return Err(error),
        Err(error) => error,
    };
    warn!(
        error = &error as &dyn Error,
        "cannot make a checkpoint: builds start cold"
    );
    let message = sys::error_report::chain(&error);
    let unsupported = matches!(error, JobError::CheckpointUnsupported).then(|| message.clone());
    let outcome = blocking(move || discard(&directory, unsupported)).await;
    if outcome == Checkpoint::HostFailed {
        agent.restores.checkpoint_failed(key, message);
    }
    Ok(outcome)
}

/// Discards a checkpoint that was half made, and marks the image if none can be made.
fn discard(directory: &Path, unsupported: Option<String>) -> Checkpoint {
    let marked = guest::checkpoint::discard(directory).and_then(|()| match unsupported {
        Some(reason) => guest::checkpoint::mark_unsupported(directory, &reason)
            .map(|()| Checkpoint::Unsupported),
        None => Ok(Checkpoint::HostFailed),
    });
    marked.unwrap_or(Checkpoint::HostFailed)
}

async fn boot(
    agent: &AgentState,
    snapshot: Arc<Snapshot>,
    machine: Machine,
    key: &ImageKey,
    cancel: &CancellationToken,
) -> Result<(), JobError> {
    let directory = snapshot.path().to_owned();
    let files = agent.paths.bootstrap(key);
    let memory = machine.memory_kib.get() * 1024;
    let reserve = agent.settings().paths.reserve_bytes;
    let (checked, made) = (directory.clone(), files.clone());
    blocking(move || {
        check_space(&checked, memory, reserve)?;
        Ok::<_, JobError>(std::fs::create_dir_all(made)?)
    })
    .await?;
    info!("booting a guest for a checkpoint");
    let settings = agent.settings();
    let limits = limits::of_bootstrap(&settings, key, &machine);
    // The toolchain may preload, which takes as long as a bootstrap may be silent.
    let limit = limits.start + limits.idle;
    let spec = SessionSpec {
        tag: agent.next_bootstrap(),
        snapshot,
        machine,
        files: tftp::server::Namespace::new(0, 0),
        durable: false,
        boot: BootMode::CheckpointSource,
        shared_memory: None,
        capture: log_capture::CaptureFiles {
            console: files.join("frozen.console"),
            log: files.join("frozen.log"),
            log_times: files.join("frozen.log.times"),
            bytes_max: settings.builds.log_bytes_max,
        },
        secrets: session::GuestSecrets::default(),
        cache: None,
        preload: Preload {
            cache: settings.cache_of(&key.machine, &key.toolchain).is_some(),
            hashserv: settings.hashserv.serves(&key.machine, &key.toolchain),
        },
        hashserv: None,
        commands: None,
        deadline: None,
        copy: None,
    };
    let bounds = Bounds {
        limits: Limits {
            start: limit,
            idle: limit,
            total: limit,
        },
        result_files: &[],
        cancel,
    };
    let job = CheckpointJob { directory };
    runner::run(agent, GuestSource::Start(Box::new(spec)), bounds, job).await
}

/// Checks that the volume keeps its reserve beside the memory of a checkpoint.
fn check_space(directory: &Path, memory: u64, reserve: u64) -> Result<(), JobError> {
    let free = store::space::bytes_free(directory)?;
    if free.saturating_sub(memory) >= reserve {
        return Ok(());
    }
    Err(JobError::CheckpointSpace {
        free: free / MIB,
        memory: memory.div_ceil(MIB),
    })
}

/// A guest that is frozen when it is ready.
struct CheckpointJob {
    directory: PathBuf,
}

impl GuestJob for CheckpointJob {
    type Output = ();

    async fn on_event(
        &mut self,
        _session: &mut Session,
        event: GuestEvent,
    ) -> Result<ControlFlow<()>, JobError> {
        match event {
            GuestEvent::Ready => Ok(ControlFlow::Break(())),
            _ => Err(JobError::CheckpointUnsupported),
        }
    }

    async fn on_end(self, session: Session, ended: Result<(), JobError>) -> Result<(), JobError> {
        if let Err(error) = ended {
            session.kill().await;
            return Err(error);
        }
        let console = session.console();
        session.checkpoint(&self.directory).await?;
        if console.is_some_and(|console| console.was_typed_on()) {
            return Err(JobError::CheckpointTyped);
        }
        Ok(())
    }
}
