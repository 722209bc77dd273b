//! The beats of polls, which one task writes in one statement.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farm_core::coordinator::beats::{Beats, split};
use farm_core::operation::{Answer, Unknown};
use farm_core::{HostId, Offer};
use farm_store::Store;
use tokio::sync::oneshot;
use tokio::time::sleep;

type Sender = oneshot::Sender<Result<Answer, Unknown>>;

/// The polls that wait for their beats. One operation is under way at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedBeats(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    beats: Beats<Sender>,
    is_running: bool,
}

impl SharedBeats {
    /// Raises the beat of a host, together with others that come within some time.
    pub(super) async fn raise(
        &self,
        store: &Store,
        host: HostId,
        offer: Offer,
        collect: Duration,
    ) -> Result<Answer, Unknown> {
        let (sender, receiver) = oneshot::channel();
        let is_running = {
            let mut state = self.lock();
            state.beats.add(sender, host, offer);
            std::mem::replace(&mut state.is_running, true)
        };
        if !is_running {
            // A task of its own, because the client of this poll may disappear.
            tokio::spawn(self.clone().run(store.clone(), collect));
        }
        receiver.await.unwrap_or(Err(Unknown))
    }

    async fn run(self, store: Store, collect: Duration) {
        if !collect.is_zero() {
            sleep(collect).await;
        }
        loop {
            let taken = {
                let mut state = self.lock();
                let taken = state.beats.take();
                state.is_running = taken.is_some();
                taken
            };
            let Some((polls, operation)) = taken else {
                return;
            };
            let answer = store.apply(&operation).await;
            for (poll, answer) in split(polls, answer) {
                // The client of a poll may be gone.
                let _ = poll.send(answer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
