//! Makes bootstrapped images: boots a clone of a machine's current revision, lets
//! it install a toolchain, freezes a guest in it that waits for its task, and puts
//! the clone in place of the old image.

mod checkpoint;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Tag;
use config::limits::Limits;
use config::machine::{Machine, MachineError};
use config::task::{self, Provenance, TaskError, TaskResult};
use store::toolchains::Toolchain;
use store::{Origin, Snapshot, StoreError, Volume};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::blocking;
use crate::scheduler::ImageKey;
use crate::session::log_capture;
use crate::session::{self, GuestEvent, GuestFailure, Session, SessionError};
use crate::state::agent_state::AgentState;
use guest::BootMode;

/// The size of a manifest that a guest may put.
pub const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// How many files a guest may put in a bootstrap: more than it needs, so that it
/// may try again.
const FILES_MAX: usize = 16;

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The machine's directory, or the toolchain.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine or the toolchain is another one than was wanted.
    #[error("it has changed since the bootstrap was planned")]
    Changed,
    /// A file of ours.
    #[error("cannot read or write a file of the bootstrap: {0}")]
    File(#[from] std::io::Error),
    /// The machine's manifest.
    #[error("its manifest cannot be used: {0}")]
    Machine(#[from] MachineError),
    /// The guest could not be brought up.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The guest ended too early.
    #[error(transparent)]
    Ended(#[from] GuestFailure),
    /// What the guest put is no result.
    #[error("the guest's bootstrap.manifest cannot be used: {0}")]
    Result(#[from] TaskError),
    /// The toolchain's own `bootstrap` failed.
    #[error("the toolchain's bootstrap ended with {status}: {message}")]
    Toolset {
        /// What it ended with.
        status: task::Outcome,
        /// Why.
        message: String,
    },
    /// We fell over.
    #[error("the agent itself failed; its log says where")]
    Panicked,
    /// The guest did not write its disk out.
    #[error("the guest did not shut itself down, so its disk cannot be trusted")]
    Unclean,
}

/// Makes the image of `pair` from `wanted`.
pub async fn run(
    agent: &AgentState,
    volume: &Volume,
    pair: &ImageKey,
    wanted: Provenance,
    cancel: &CancellationToken,
) -> Result<(), BootstrapError> {
    let snapshot = take(volume, pair, &wanted).await?;
    let done = async {
        install(agent, Arc::clone(&snapshot), pair, &wanted, cancel).await?;
        let frozen = checkpoint::freeze(agent, Arc::clone(&snapshot), pair, cancel).await?;
        Ok(Some(frozen.is_there()))
    };
    let done = done.await;
    settle(agent, volume, pair, wanted, snapshot, done).await
}

/// Freezes a guest anew in the image of `pair`, which serves on meanwhile.
pub async fn freeze_anew(
    agent: &AgentState,
    volume: &Volume,
    pair: &ImageKey,
    made: Provenance,
    cancel: &CancellationToken,
) -> Result<(), BootstrapError> {
    let (from, of) = (volume.clone(), pair.clone());
    let snapshot = blocking(move || {
        from.drop_snapshot(&of.machine, &of.toolchain, &Tag::bootstrap())?;
        let image = Origin::Image(of.toolchain.clone());
        from.snapshot(&of.machine, &image, &of.toolchain, &Tag::bootstrap())
    });
    let snapshot = Arc::new(snapshot.await?);
    let done = async {
        let found = std::fs::read_to_string(snapshot.path().join(task::BOOTSTRAP))?;
        if Provenance::parse(&found).as_ref() != Ok(&made) {
            return Err(BootstrapError::Changed);
        }
        let frozen = checkpoint::freeze(agent, Arc::clone(&snapshot), pair, cancel).await?;
        Ok(frozen.is_settled().then(|| frozen.is_there()))
    };
    let done = done.await;
    settle(agent, volume, pair, made, snapshot, done).await
}

/// Puts a snapshot in place of the image when something is done in it, or drops it.
/// What is done: whether a guest is frozen in it.
async fn settle(
    agent: &AgentState,
    volume: &Volume,
    pair: &ImageKey,
    provenance: Provenance,
    snapshot: Arc<Snapshot>,
    done: Result<Option<bool>, BootstrapError>,
) -> Result<(), BootstrapError> {
    let (volume, of) = (volume.clone(), pair.clone());
    let frozen = blocking(move || {
        let snapshot = Arc::into_inner(snapshot);
        match (done, snapshot) {
            (Ok(Some(frozen)), Some(snapshot)) => {
                volume.publish_image(snapshot, &provenance)?;
                Ok(Some(frozen))
            }
            (done, snapshot) => {
                drop(snapshot);
                volume.drop_snapshot(&of.machine, &of.toolchain, &Tag::bootstrap())?;
                done
            }
        }
    });
    if let Some(frozen) = frozen.await? {
        agent.frozen.renewed(pair, frozen);
    }
    Ok(())
}

async fn take(
    volume: &Volume,
    pair: &ImageKey,
    wanted: &Provenance,
) -> Result<Arc<Snapshot>, BootstrapError> {
    let (volume, pair, uuid) = (volume.clone(), pair.clone(), wanted.revision_uuid.clone());
    blocking(move || {
        volume.drop_snapshot(&pair.machine, &pair.toolchain, &Tag::bootstrap())?;
        let snapshot = volume.snapshot(
            &pair.machine,
            &Origin::Current,
            &pair.toolchain,
            &Tag::bootstrap(),
        )?;
        if snapshot
            .taken()
            .is_some_and(|taken| taken.uuid.to_string() == uuid)
        {
            return Ok(Arc::new(snapshot));
        }
        drop(snapshot);
        volume.drop_snapshot(&pair.machine, &pair.toolchain, &Tag::bootstrap())?;
        Err(BootstrapError::Changed)
    })
    .await
}

/// Boots the snapshot and waits until the toolchain is installed in it and it has
/// shut itself down.
async fn install(
    agent: &AgentState,
    snapshot: Arc<Snapshot>,
    pair: &ImageKey,
    wanted: &Provenance,
    cancel: &CancellationToken,
) -> Result<(), BootstrapError> {
    let toolchain = agent.toolchains.load(&pair.toolchain)?;
    if toolchain.id != wanted.toolchain_id {
        return Err(BootstrapError::Changed);
    }
    let machine = Machine::parse(&std::fs::read_to_string(
        snapshot.path().join(config::machine::FILE),
    )?)?;
    let limits = limits(agent, pair, &machine);
    let files = files(agent, pair);
    sys::file::fresh_directory(&files)?;
    let plan = session::SessionSpec {
        tag: agent.next_bootstrap(),
        snapshot,
        machine,
        map: map(&toolchain, &files, agent.settings.builds.log_bytes_max),
        durable: true,
        boot: BootMode::Cold,
        capture: log_capture::CaptureFiles {
            console: files.join("console"),
            log: files.join("log.live"),
            bytes_max: agent.settings.builds.log_bytes_max,
        },
    };
    let limits = session::SessionLimits {
        times: limits,
        result_files: &[task::BOOTSTRAP],
    };
    let mut session = Session::start(&agent.guests, plan).await?;
    if let Err(ended) = wait(&mut session, &limits, cancel).await {
        session.kill().await;
        return Err(ended.into());
    }
    let clean = session.shut_down().await;
    let result = TaskResult::parse(&std::fs::read_to_string(files.join(task::BOOTSTRAP))?)?;
    match (result.status.is_good(), clean) {
        (false, _) => Err(BootstrapError::Toolset {
            status: result.status,
            message: result.message,
        }),
        (true, false) => Err(BootstrapError::Unclean),
        (true, true) => Ok(()),
    }
}

/// How long a guest of a bootstrap may take.
fn limits(agent: &AgentState, pair: &ImageKey, machine: &Machine) -> Limits {
    let settings = &agent.settings;
    let all = settings.bootstrap.limits;
    all.of(&pair.machine, machine.limits, &settings.guests.limits)
}

/// The directory with what the guests of a bootstrap print.
fn files(agent: &AgentState, pair: &ImageKey) -> PathBuf {
    let name = format!("{}-{}", pair.machine, pair.toolchain);
    agent.bootstraps_directory().join(name)
}

async fn wait(
    session: &mut Session,
    limits: &session::SessionLimits<'_>,
    cancel: &CancellationToken,
) -> Result<(), GuestFailure> {
    loop {
        match session.next(limits, cancel).await? {
            GuestEvent::FirstContact => info!("the guest has asked for its toolchain"),
            GuestEvent::ResultReceived => return Ok(()),
            GuestEvent::Ready | GuestEvent::Breakpoint | GuestEvent::PauseExpired => {}
        }
    }
}

/// A guest that is bootstrapped fetches the toolchain's files by their names.
fn map(toolchain: &Toolchain, files: &Path, log_bytes_max: u64) -> tftp::server::Namespace {
    let mut map = tftp::server::Namespace::new(log_bytes_max + MANIFEST_BYTES_MAX, FILES_MAX);
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
