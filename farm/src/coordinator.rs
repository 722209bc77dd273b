//! The coordinator: one task per request, which asks the store, and one that watches the hosts.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use farm_core::coordinator::{FarmView, Handling, Step};
use farm_core::messages::{Reply, Request};
use farm_core::operation::{Answer, Operation, Unknown};
use farm_core::watch::Watch;
use farm_core::{HostId, Moment, Terms};
use farm_store::Store;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::transfers::Transfers;

/// The time between two looks at the hosts and the queue.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after the queue has changed before held polls look at it.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The looks between two checks of the partitions: an hour.
const LOOKS_MAX: u32 = 3_600;

/// A coordinator.
#[derive(Debug)]
pub struct Coordinator {
    store: Store,
    /// The transfers that it waits for, and those that its polls tell of.
    transfers: Transfers,
    terms: Terms,
    started: Instant,
    view: RwLock<Arc<FarmView>>,
    /// Held from the read of the queue to the claim, so that polls do not choose the same builds.
    placing: Mutex<()>,
    added: Notify,
    /// A number that rises when the queue may have grown.
    queue: watch::Sender<u64>,
}

impl Coordinator {
    /// Creates a coordinator. [`Self::watch`] must run beside its requests.
    pub fn new(store: Store, terms: Terms) -> Self {
        Self {
            transfers: Transfers::new(store.clone(), String::new()),
            store,
            terms,
            started: Instant::now(),
            view: RwLock::default(),
            placing: Mutex::new(()),
            added: Notify::new(),
            queue: watch::Sender::new(0),
        }
    }

    /// Sets the address at which hosts reach this coordinator, which transfers need.
    #[must_use]
    pub fn reached_at(self, url: String) -> Self {
        let transfers = Transfers::new(self.store.clone(), url);
        Self { transfers, ..self }
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the time limits of the farm.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Returns the transfers.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Returns the hosts that are alive, as they were read last.
    pub fn alive(&self) -> Arc<FarmView> {
        self.view()
    }

    /// Handles a request.
    pub async fn handle(&self, request: Request) -> Reply {
        let poller = match &request {
            Request::Poll(host, _) => Some(*host),
            _ => None,
        };
        let (mut handling, mut step) = Handling::begin(request, self.terms, self.now());
        let mut queue = self.queue.subscribe();
        let mut placing: Option<MutexGuard<'_, ()>> = None;
        loop {
            match step {
                Step::Ask(operation) => {
                    if matches!(operation, Operation::Candidates { .. }) {
                        placing = Some(self.placing.lock().await);
                        queue.mark_unchanged();
                    }
                    let answer = self.store.apply(&operation).await;
                    self.note(&operation, &answer);
                    let view = self.view();
                    step = handling.answered(self.now(), &view, answer);
                    if !matches!(step, Step::Ask(Operation::Claim { .. })) {
                        placing = None;
                    }
                }
                Step::Wait(until) => {
                    let left = Duration::from_millis(until.since(self.now()));
                    step = tokio::select! {
                        // The time is over or the queue has changed: it is looked at in both cases.
                        _ = timeout(left, queue.changed()) => handling.waited(),
                        () = self.news(poller) => handling.hurried(),
                    };
                }
                Step::Reply(reply) => {
                    drop(placing);
                    return self.with_orders(poller, reply);
                }
            }
        }
    }

    /// Watches the hosts and the queue until the future is dropped.
    pub async fn watch(&self) {
        let (mut hosts_watch, mut newest, mut looks) = (Watch::default(), 0, 0);
        loop {
            if let Ok(Answer::Hosts(rows)) = self.store.apply(&Operation::Hosts).await {
                let now = self.now();
                let lost = hosts_watch.observe(now, &rows, self.terms.lease_ms);
                let alive = rows
                    .into_iter()
                    .filter(|row| hosts_watch.is_alive(row.host, now, self.terms.lease_ms));
                let hosts = alive.map(|row| (row.host, row)).collect();
                *self.view.write().unwrap_or_else(PoisonError::into_inner) =
                    Arc::new(FarmView { hosts });
                for (host, beat) in lost {
                    self.rescue(host, beat).await;
                }
            }
            if let Ok(found) = self.store.newest_build().await
                && found != newest
            {
                newest = found;
                self.queue.send_modify(|it| *it += 1);
            }
            self.transfers.refresh().await;
            looks = (looks + 1) % LOOKS_MAX;
            if looks == 0
                && let Err(error) = self.store.maintain().await
            {
                let error = &error as &dyn std::error::Error;
                warn!(error, "cannot create the partitions of the next months");
            }
            if timeout(LOOK, self.added.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
                self.queue.send_modify(|it| *it += 1);
            }
        }
    }

    async fn rescue(&self, host: HostId, beat: u64) {
        let rescue = Operation::Rescue {
            host,
            beat,
            attempts_max: self.terms.attempts_max,
        };
        if let Ok(Answer::Rescued(leases)) = self.store.apply(&rescue).await
            && !leases.is_empty()
        {
            let (host, builds) = (host.0, leases.len());
            warn!(
                host,
                builds, "a host gave no sign of life and has lost its builds"
            );
            self.queue.send_modify(|it| *it += 1);
        }
    }

    /// Waits for transfers of a host that polls.
    async fn news(&self, poller: Option<HostId>) {
        match poller {
            Some(host) => self.transfers.news(host).await,
            None => std::future::pending().await,
        }
    }

    /// Adds the transfers that are wanted from a host to the answer to its poll.
    fn with_orders(&self, poller: Option<HostId>, mut reply: Reply) -> Reply {
        if let (Some(host), Reply::Leases(answer)) = (poller, &mut reply) {
            answer.transfers = self.transfers.orders(host);
        }
        reply
    }

    /// Wakes the watch, which wakes held polls, if an operation has added to the queue.
    fn note(&self, operation: &Operation, answer: &Result<Answer, Unknown>) {
        if matches!(
            (operation, answer),
            (Operation::Submit(_) | Operation::Release { .. }, Ok(_))
        ) {
            self.added.notify_one();
        }
    }

    fn view(&self) -> Arc<FarmView> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&view)
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
