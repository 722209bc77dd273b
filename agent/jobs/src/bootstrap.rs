//! The bootstrap of an image: a guest installs a toolchain in a clone of the machine's
//! current revision, a checkpoint is made in it, and the clone replaces the old image.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::task::{self, Preload, TaskResult};
use config::{ImageKey, Tag};
use guest::BootMode;
use planner::ImageStart;
use session::{GuestEvent, Session, log_capture};
use store::toolchains::Toolchain;
use store::{Snapshot, SnapshotSource, Volume};
use sys::blocking::blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::checkpoint::{self, Checkpoint};
use super::limits;
use super::runner::{self, Bounds, GuestJob, GuestSource, JobError};
use state::paths::{CONSOLE, LIVE_LOG, LOG_TIMES};
use state::{AgentState, ImageFacts};

/// The size limit of a manifest that a guest puts, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;

/// Makes an image.
pub(super) async fn run(
    agent: &AgentState,
    volume: &Volume,
    start: &ImageStart,
    cancel: &CancellationToken,
) -> Result<(), JobError> {
    let snapshot = take_snapshot_of_revision(volume, start).await?;
    let change = async {
        let typed_on = install(agent, Arc::clone(&snapshot), start, cancel).await?;
        let checkpoint = checkpoint::make(agent, Arc::clone(&snapshot), &start.key, cancel).await?;
        Ok(Some(Change {
            has_checkpoint: checkpoint == Checkpoint::Made,
            has_manifest: !typed_on,
        }))
    };
    let change = change.await;
    publish(agent, volume, start, snapshot, change).await
}

/// Makes a checkpoint in a copy of an image, and replaces the image by the copy.
pub(super) async fn renew_checkpoint(
    agent: &AgentState,
    volume: &Volume,
    start: &ImageStart,
    cancel: &CancellationToken,
) -> Result<(), JobError> {
    let snapshot = take_snapshot_of_image(volume, start).await?;
    let change = async {
        let checkpoint = checkpoint::make(agent, Arc::clone(&snapshot), &start.key, cancel).await?;
        let path = Arc::clone(&snapshot);
        let has_manifest = blocking(move || path.has_image_manifest()).await;
        let has_checkpoint = match checkpoint {
            Checkpoint::Made => true,
            Checkpoint::Unsupported => false,
            Checkpoint::HostFailed => return Ok(None),
        };
        Ok(Some(Change {
            has_checkpoint,
            has_manifest,
        }))
    };
    let change = change.await;
    publish(agent, volume, start, snapshot, change).await
}

/// A change of a snapshot that is to replace the image.
struct Change {
    /// Set if the snapshot has a checkpoint.
    has_checkpoint: bool,
    /// Set if the snapshot gets a manifest of its content: nobody typed while it was made.
    has_manifest: bool,
}

/// Replaces the image by a changed snapshot, or deletes the snapshot if nothing has
/// changed in it.
async fn publish(
    agent: &AgentState,
    volume: &Volume,
    start: &ImageStart,
    snapshot: Arc<Snapshot>,
    change: Result<Option<Change>, JobError>,
) -> Result<(), JobError> {
    let (volume, of, inputs) = (volume.clone(), start.key.clone(), start.inputs.clone());
    let candidate = start.candidate;
    let has_checkpoint = blocking(move || {
        let snapshot = Arc::into_inner(snapshot);
        match (change, snapshot) {
            (Ok(Some(change)), Some(snapshot)) => {
                if change.has_manifest {
                    snapshot.write_image_manifest()?;
                } else {
                    warn!("a person typed while the image was made: it has no content manifest");
                }
                match candidate {
                    Some(revision) => volume.publish_trial_image(snapshot, revision, &inputs)?,
                    None => volume.publish_image(snapshot, &inputs)?,
                }
                Ok(Some(change.has_checkpoint))
            }
            (change, snapshot) => {
                drop(snapshot);
                volume.delete_snapshot(&of.machine, &of.toolchain, &Tag::bootstrap())?;
                change.map(|_| None)
            }
        }
    });
    if let Some(has_checkpoint) = has_checkpoint.await? {
        if let Some(revision) = candidate {
            info!(%revision, "the image of a revision on trial is made");
            return Ok(());
        }
        info!("the changed image serves");
        agent.restores.image_replaced(&start.key, has_checkpoint);
    }
    Ok(())
}

/// Takes a snapshot of the machine's current revision, or of the one on trial.
async fn take_snapshot_of_revision(
    volume: &Volume,
    start: &ImageStart,
) -> Result<Arc<Snapshot>, JobError> {
    let (volume, start) = (volume.clone(), start.clone());
    let ImageStart {
        key,
        inputs,
        candidate,
        ..
    } = start;
    blocking(move || {
        let source = candidate.map_or(SnapshotSource::Current, SnapshotSource::Candidate);
        let snapshot = take_snapshot(&volume, &key, &source)?;
        let revision = snapshot
            .source_revision()
            .map(|taken| taken.uuid.to_string());
        if revision.as_ref() == Some(&inputs.revision_uuid) {
            return Ok(Arc::new(snapshot));
        }
        drop(snapshot);
        volume.delete_snapshot(&key.machine, &key.toolchain, &Tag::bootstrap())?;
        Err(JobError::Changed)
    })
    .await
}

/// Takes a snapshot of the image.
async fn take_snapshot_of_image(
    volume: &Volume,
    start: &ImageStart,
) -> Result<Arc<Snapshot>, JobError> {
    let (volume, ImageStart { key, inputs, .. }) = (volume.clone(), start.clone());
    blocking(move || {
        let image = SnapshotSource::Image(key.toolchain.clone());
        let snapshot = take_snapshot(&volume, &key, &image)?;
        if store::image_provenance(snapshot.path())?.as_ref() == Some(&inputs) {
            return Ok(Arc::new(snapshot));
        }
        drop(snapshot);
        volume.delete_snapshot(&key.machine, &key.toolchain, &Tag::bootstrap())?;
        Err(JobError::Changed)
    })
    .await
}

fn take_snapshot(
    volume: &Volume,
    key: &ImageKey,
    origin: &SnapshotSource,
) -> Result<Snapshot, JobError> {
    let (machine, toolchain) = (&key.machine, &key.toolchain);
    volume.delete_snapshot(machine, toolchain, &Tag::bootstrap())?;
    Ok(volume.snapshot(machine, origin, toolchain, &Tag::bootstrap())?)
}

/// Installs the toolchain in the snapshot: boots it, and waits until its guest has put
/// its result and has shut itself down. Returns true if a person typed on its console.
async fn install(
    agent: &AgentState,
    snapshot: Arc<Snapshot>,
    start: &ImageStart,
    cancel: &CancellationToken,
) -> Result<bool, JobError> {
    let files = agent.paths.bootstrap(&start.key);
    let (toolchains, wanted) = (agent.toolchains.clone(), start.clone());
    let (directory, fresh) = (snapshot.path().to_owned(), files.clone());
    let (toolchain, machine) = blocking(move || {
        let toolchain = toolchains.load(&wanted.key.toolchain)?;
        if toolchain.id != wanted.inputs.toolchain_id {
            return Err(JobError::Changed);
        }
        sys::file::fresh_directory(&fresh)?;
        let machine = ImageFacts::read(&directory).machine;
        Ok((toolchain, machine.map_err(JobError::Manifest)?))
    })
    .await?;
    let bounds = Bounds {
        limits: limits::of_bootstrap(&agent.settings(), &start.key, &machine),
        result_files: &[task::BOOTSTRAP],
        cancel,
    };
    let shutdown_limit = limits::shutdown_of_bootstrap(&agent.settings(), &start.key, &machine);
    let log_bytes_max = agent.settings().builds.log_bytes_max;
    let spec = session::SessionSpec {
        tag: agent.next_bootstrap(),
        snapshot,
        machine,
        files: namespace(&toolchain, &files, log_bytes_max),
        durable: true,
        boot: BootMode::Cold,
        shared_memory: None,
        capture: log_capture::CaptureFiles {
            console: files.join(CONSOLE),
            log: files.join(LIVE_LOG),
            log_times: files.join(LOG_TIMES),
            bytes_max: log_bytes_max,
        },
        secrets: session::GuestSecrets::default(),
        cache: None,
        preload: Preload::default(),
        hashserv: None,
        commands: None,
        deadline: None,
        copy: None,
    };
    let job = Installation {
        files,
        shutdown_limit,
    };
    runner::run(agent, GuestSource::Start(Box::new(spec)), bounds, job).await
}

/// Returns the files of a guest that is bootstrapped: it fetches those of the toolchain
/// by their names, and puts its log and its result.
fn namespace(
    toolchain: &Toolchain,
    files: &std::path::Path,
    log_bytes_max: u64,
) -> tftp::server::Namespace {
    let mut map = tftp::server::Namespace::new(0, 0);
    for (name, file) in &toolchain.files {
        map.offer(name.as_str(), Arc::clone(file));
    }
    map.accept(task::LOG, files.join(task::LOG), log_bytes_max);
    map.accept(
        task::BOOTSTRAP,
        files.join(task::BOOTSTRAP),
        MANIFEST_BYTES_MAX,
    );
    map
}

/// The installation of a toolchain by a guest.
struct Installation {
    files: PathBuf,
    /// The time in which the guest must shut down after its result.
    shutdown_limit: Duration,
}

impl GuestJob for Installation {
    type Output = bool;

    async fn on_event(
        &mut self,
        _session: &mut Session,
        event: GuestEvent,
    ) -> Result<ControlFlow<()>, JobError> {
        Ok(match event {
            GuestEvent::FirstContact => {
                info!("the guest has requested its toolchain");
                ControlFlow::Continue(())
            }
            GuestEvent::ResultReceived => ControlFlow::Break(()),
            GuestEvent::Ready | GuestEvent::Breakpoint | GuestEvent::PauseExpired => {
                ControlFlow::Continue(())
            }
        })
    }

    async fn on_end(self, session: Session, ended: Result<(), JobError>) -> Result<bool, JobError> {
        if let Err(error) = ended {
            session.kill().await;
            return Err(error);
        }
        let console = session.console();
        let limit = self.shutdown_limit;
        let end = session.shut_down(limit).await;
        let files = self.files;
        let text = blocking(move || {
            sys::untrusted::read_text(&files, task::BOOTSTRAP, MANIFEST_BYTES_MAX)
        })
        .await?;
        let result = TaskResult::parse_bootstrap(&text)?;
        match (result.status.is_good(), end) {
            (false, _) => Err(JobError::Toolchain {
                status: result.status,
                message: result.message,
            }),
            (true, None) => Err(JobError::ShutdownTimeout(limit)),
            (true, Some(end)) if !end.is_clean() => Err(JobError::UncleanShutdown(end)),
            (true, Some(_)) => Ok(console.is_some_and(|it| it.was_typed_on())),
        }
    }
}
