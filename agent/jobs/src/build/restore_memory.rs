//! The memory of a build's guest that is restored: its own, or that of a hot image.

use std::sync::Arc;
use std::time::Instant;

use guest::SealedMemory;
use state::{AgentState, RestoreMemory};
use store::{Snapshot, Uuid};
use sys::blocking::blocking;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// The memory that a guest gets, and the load of the memory that later guests share.
#[derive(Default)]
pub(super) struct GuestMemory {
    /// The shared memory; `None` if the guest has its own.
    pub(super) shared: Option<SealedMemory>,
    load: Option<JoinHandle<()>>,
}

impl GuestMemory {
    /// Returns the memory of a guest that is restored in a snapshot.
    pub(super) fn of(agent: &Arc<AgentState>, snapshot: &Arc<Snapshot>) -> Self {
        let Some(image) = snapshot.source_uuid() else {
            return Self::default();
        };
        let mut memory = Self::default();
        match agent.hot_images.restore(image, Instant::now()) {
            RestoreMemory::Own => {}
            RestoreMemory::OwnAndLoad => {
                let load = load(Arc::clone(agent), Arc::clone(snapshot), image);
                memory.load = Some(tokio::spawn(load));
            }
            RestoreMemory::Shared(shared) => memory.shared = Some(shared),
        }
        memory
    }

    /// Waits for the load, which reads the guest's snapshot: it must not be deleted before.
    pub(super) async fn settle(self) {
        if let Some(load) = self.load {
            // Its failure is logged, and costs the later guests only memory.
            let _ = load.await;
        }
    }
}

/// Loads the memory that the later guests of an image share.
async fn load(agent: Arc<AgentState>, snapshot: Arc<Snapshot>, image: Uuid) {
    let began = Instant::now();
    let loaded = blocking(move || SealedMemory::load(snapshot.path())).await;
    let memory = match loaded {
        Ok(memory) => {
            let milliseconds = began.elapsed().as_millis();
            info!(bytes = memory.bytes(), %milliseconds, "loaded the memory of a hot image");
            Some(memory)
        }
        Err(error) => {
            warn!(%error, "cannot load the memory of a hot image: its guests share none");
            None
        }
    };
    agent.hot_images.loaded(image, memory);
}
