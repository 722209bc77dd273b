//! The polls that are held: the last one of each host, which can be answered before its time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farm_core::HostId;
use tokio::sync::Notify;

/// The last poll of each host.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<BTreeMap<HostId, Arc<Notify>>>);

/// The place of a poll among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    held: &'a Held,
    host: HostId,
    called: Arc<Notify>,
}

impl Held {
    /// Adds a poll. An earlier one of the same host is answered, because nobody waits for it.
    pub(super) fn add(&self, host: HostId) -> Place<'_> {
        let called = Arc::new(Notify::new());
        let last = self.lock().insert(host, Arc::clone(&called));
        if let Some(last) = last {
            last.notify_one();
        }
        Place {
            held: self,
            host,
            called,
        }
    }

    /// Calls the poll of a host.
    pub(super) fn call(&self, host: HostId) {
        if let Some(called) = self.lock().get(&host) {
            called.notify_one();
        }
    }

    /// Calls all polls.
    pub(super) fn call_all(&self) {
        self.lock().values().for_each(|it| it.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Returns the host.
    pub(super) fn host(&self) -> HostId {
        self.host
    }

    /// Waits until the poll is called.
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if held
            .get(&self.host)
            .is_some_and(|it| Arc::ptr_eq(it, &self.called))
        {
            held.remove(&self.host);
        }
    }
}
