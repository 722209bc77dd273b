//! Freezes a guest in an image, at the moment when its worker waits for a task.
//!
//! Whatever goes wrong here, the image can be used without it: builds start cold.

use std::path::Path;
use std::sync::Arc;

use config::machine::{Machine, MachineError};
use store::{Snapshot, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{files, limits};
use crate::scheduler::ImageKey;
use crate::session::log_capture;
use crate::session::{GuestEvent, GuestFailure, Session, SessionError, SessionLimits, SessionSpec};
use crate::state::agent_state::AgentState;
use crate::state::restore_history;
use guest::{self, BootMode};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frozen {
    /// A guest is frozen.
    There,
    /// None can be, or is to be; the image says why.
    Never,
    /// The host failed; it may be tried again.
    NotNow,
}

impl Frozen {
    pub(super) fn is_there(self) -> bool {
        self == Self::There
    }

    /// Whether trying again would bring nothing new.
    pub(super) fn is_settled(self) -> bool {
        self != Self::NotNow
    }
}

/// Why there is no frozen guest.
#[derive(Debug, thiserror::Error)]
enum FreezeError {
    #[error("the worker does not wait for its task")]
    Hasty,
    #[error(
        "{free} MiB of the volume are free, too few for {memory} MiB of memory beside its reserve"
    )]
    Room { free: u64, memory: u64 },
    #[error("cannot look at the volume")]
    Store(#[from] StoreError),
    #[error("cannot read or write a file of the image")]
    File(#[from] std::io::Error),
    #[error("the machine's manifest cannot be used")]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Ended(#[from] GuestFailure),
}

/// Boots the snapshot, in which a toolchain is installed, and freezes the guest
/// when it waits for its task. The snapshot's own disk stays as it is.
///
/// # Errors
/// Only when it was cancelled.
pub(super) async fn freeze(
    agent: &AgentState,
    snapshot: Arc<Snapshot>,
    pair: &ImageKey,
    cancel: &CancellationToken,
) -> Result<Frozen, GuestFailure> {
    let directory = snapshot.path().to_owned();
    let left = guest::forget(&directory);
    if let Some(off) = restore_history::off(&agent.settings.guests, &directory) {
        info!("no guest is frozen in the image, so builds start cold: {off}");
        return Ok(Frozen::Never);
    }
    let tried = match left {
        Ok(()) => attempt(agent, snapshot, pair, cancel).await,
        Err(error) => Err(error.into()),
    };
    let error = match tried {
        Ok(()) => {
            let memory_mib = guest::bytes(&directory).div_ceil(1 << 20);
            info!(memory_mib, "a guest is frozen in the image: builds wake it");
            return Ok(Frozen::There);
        }
        Err(FreezeError::Ended(GuestFailure::Cancelled)) => return Err(GuestFailure::Cancelled),
        Err(error) => error,
    };
    let why = sys::error_report::chain(&error);
    warn!("no guest is frozen in the image, so builds start cold: {why}");
    let settled = guest::forget(&directory).and_then(|()| match error {
        FreezeError::Hasty => guest::set_unfit(&directory, &why).map(|()| Frozen::Never),
        _ => Ok(Frozen::NotNow),
    });
    let frozen = settled.unwrap_or(Frozen::NotNow);
    if frozen == Frozen::NotNow {
        agent.frozen.failed(pair, why);
    }
    Ok(frozen)
}

async fn attempt(
    agent: &AgentState,
    snapshot: Arc<Snapshot>,
    pair: &ImageKey,
    cancel: &CancellationToken,
) -> Result<(), FreezeError> {
    let directory = snapshot.path().to_owned();
    let text = std::fs::read_to_string(directory.join(config::machine::FILE))?;
    let machine = Machine::parse(&text)?;
    room(agent, &directory, &machine)?;
    let files = files(agent, pair);
    std::fs::create_dir_all(&files)?;
    info!("a guest is being frozen in the image");
    let limit = limits(agent, pair, &machine).start;
    let plan = SessionSpec {
        tag: agent.next_bootstrap(),
        snapshot,
        machine,
        map: tftp::server::Namespace::new(0, 0),
        durable: false,
        boot: BootMode::CheckpointSource,
        capture: log_capture::CaptureFiles {
            console: files.join("frozen.console"),
            log: files.join("frozen.log"),
            bytes_max: agent.settings.builds.log_bytes_max,
        },
    };
    let limits = SessionLimits {
        times: config::limits::Limits {
            start: limit,
            idle: limit,
            total: limit,
        },
        result_files: &[],
    };
    let mut session = Session::start(&agent.guests, plan).await?;
    let error = match session.next(&limits, cancel).await {
        Ok(GuestEvent::Ready) => return Ok(session.checkpoint(&directory).await?),
        Ok(_) => FreezeError::Hasty,
        Err(ended) => ended.into(),
    };
    session.kill().await;
    Err(error)
}

/// The memory of a frozen guest lies in the volume, which keeps its reserve.
fn room(agent: &AgentState, directory: &Path, machine: &Machine) -> Result<(), FreezeError> {
    const MIB: u64 = 1 << 20;
    let free = store::space::bytes_free(directory)?;
    let memory = machine.memory_kib.get() * 1024;
    if free.saturating_sub(memory) >= agent.settings.paths.reserve_bytes {
        return Ok(());
    }
    Err(FreezeError::Room {
        free: free / MIB,
        memory: memory.div_ceil(MIB),
    })
}
