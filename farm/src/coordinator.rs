//! The coordinator: one task per request, which asks the store, and one that watches the hosts.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use config::MachineName;
use farm_core::coordinator::beats::collect_ms;
use farm_core::coordinator::queue::Queue;
use farm_core::coordinator::{FarmView, Handling, Step};
use farm_core::copies::Copying;
use farm_core::messages::{Reply, Request};
use farm_core::operation::{Answer, Operation, Unknown};
use farm_core::{HostId, Moment, Terms};
use farm_objects::Objects;
use farm_store::Store;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::metrics::Counters;
use crate::sources::Sources;
use crate::transfers::Transfers;

mod archiving;
mod beats;
mod held;
mod scheduling;
mod telling;
mod watching;

use beats::SharedBeats;
use held::{Held, Place};
pub use telling::{Telling, attempt};

/// A coordinator.
#[derive(Debug)]
pub struct Coordinator {
    store: Store,
    /// The transfers that it waits for, and those that its polls tell of.
    transfers: Transfers,
    /// The sources that it keeps; `None` if it has no part in them.
    sources: Option<Sources>,
    /// The object store for the files of builds that have ended.
    objects: Option<Objects>,
    /// The rules for notifications.
    telling: Option<Telling>,
    counters: Counters,
    terms: Terms,
    /// The months for which results are kept; 0 for ever.
    keep_months: u32,
    started: Instant,
    view: RwLock<Arc<FarmView>>,
    beats: SharedBeats,
    queue: Mutex<Queue>,
    /// Held while the queue is read, so that many polls read it once.
    reading: tokio::sync::Mutex<()>,
    held: Held,
    /// Tells the watch that the queue has grown.
    added: Notify,
    /// Tells the watch that there are orders for hosts.
    ordered: Notify,
    /// A number that rises when held polls should look at the queue.
    builds: watch::Sender<u64>,
    /// True when the coordinator ends: polls are no longer held.
    ending: watch::Sender<bool>,
}

/// The reason for which a held poll continues.
#[derive(Debug)]
enum Woken {
    /// Its time is over, or the queue has builds.
    Look,
    /// It is answered at once.
    Called,
}

impl Coordinator {
    /// Creates a coordinator. [`Self::watch`] must run beside its requests.
    pub fn new(store: Store, terms: Terms) -> Self {
        // Any number will do that other coordinators probably do not have.
        let number = RandomState::new().build_hasher().finish();
        Self {
            transfers: Transfers::new(store.clone(), String::new()),
            sources: None,
            objects: None,
            telling: None,
            counters: Counters::default(),
            store,
            terms,
            keep_months: 0,
            started: Instant::now(),
            view: RwLock::default(),
            beats: SharedBeats::default(),
            queue: Mutex::new(Queue::new(number)),
            reading: tokio::sync::Mutex::new(()),
            held: Held::default(),
            added: Notify::new(),
            ordered: Notify::new(),
            builds: watch::Sender::new(0),
            ending: watch::Sender::new(false),
        }
    }

    /// Sets the address at which hosts reach this coordinator, which transfers need.
    #[must_use]
    pub fn reached_at(self, url: String) -> Self {
        let transfers = Transfers::new(self.store.clone(), url);
        Self { transfers, ..self }
    }

    /// Gives it sources.
    #[must_use]
    pub fn with_sources(mut self, sources: Sources) -> Self {
        let view = FarmView {
            keepers: sources.keepers(self.now()),
            ..FarmView::default()
        };
        self.view = RwLock::new(Arc::new(view));
        self.sources = Some(sources);
        self
    }

    /// Deletes results when the month of their end is longer ago than so many months; 0 keeps all.
    #[must_use]
    pub fn keeping(mut self, months: u32) -> Self {
        self.keep_months = months;
        self
    }

    /// Puts the files of builds that have ended into an object store. [`Self::archive`] must run beside the
    /// requests then.
    #[must_use]
    pub fn archiving_to(mut self, objects: Objects) -> Self {
        self.store = self.store.archiving(true);
        self.objects = Some(objects);
        self
    }

    /// Returns the object store, if there is one.
    pub fn objects(&self) -> Option<&Objects> {
        self.objects.as_ref()
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

    /// Returns the sources.
    pub fn sources(&self) -> Option<&Sources> {
        self.sources.as_ref()
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the hosts that are alive, as they were read last.
    pub fn alive(&self) -> Arc<FarmView> {
        self.view()
    }

    /// Answers all held polls, and holds no more. Hosts go to another coordinator.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Handles a request.
    pub async fn handle(&self, request: Request) -> Reply {
        let (mut handling, mut step) = Handling::begin(request, self.terms, self.now());
        let poller = handling.polling();
        let mut builds = self.builds.subscribe();
        let place = poller.map(|host| self.held.add(host));
        loop {
            step = match step {
                Step::Ask(Operation::Beat(host, offer)) => {
                    let collect = Duration::from_millis(collect_ms(self.queue().is_empty()));
                    let beat = self.beats.raise(&self.store, host, offer, collect);
                    let answer = beat.await;
                    handling.answered(self.now(), &self.view(), answer)
                }
                Step::Ask(reading @ Operation::Candidates { .. }) => {
                    builds.mark_unchanged();
                    self.place(&mut handling, &reading).await
                }
                Step::Ask(operation) => {
                    let answer = self.store.apply(&operation).await;
                    self.note(&operation, &answer);
                    handling.answered(self.now(), &self.view(), answer)
                }
                Step::Wait(until) => match self.wait(until, &mut builds, place.as_ref()).await {
                    Woken::Look => handling.waited(self.now()),
                    Woken::Called => handling.hurried(),
                },
                Step::Copy(copying) => {
                    let copied = self.copy(&copying).await;
                    handling.copied(copying, copied)
                }
                Step::Reply(reply) => return self.with_orders(poller, reply),
            };
        }
    }

    /// Makes a copy of a source.
    async fn copy(&self, copying: &Copying) -> Result<(), String> {
        match &self.sources {
            Some(sources) => sources.copy(copying).await,
            None => Err("this coordinator has no part in sources".to_owned()),
        }
    }

    /// Gives a poll the queue, which is read if that is necessary.
    async fn place(&self, handling: &mut Handling, wanted: &Operation) -> Step {
        let Operation::Candidates { machines, most } = wanted else {
            return handling.answered(self.now(), &self.view(), Err(Unknown));
        };
        if let Some(step) = self.choose(handling, machines, *most) {
            return step;
        }
        {
            let _reading = self.reading.lock().await;
            // Another poll may have read it meanwhile.
            if let Some(step) = self.choose(handling, machines, *most) {
                return step;
            }
            let reading = self.queue().reading(machines, *most);
            if let Err(unknown) = self.read_queue(&reading).await {
                return handling.answered(self.now(), &self.view(), Err(unknown));
            }
        }
        let step = self.choose(handling, machines, *most);
        step.unwrap_or_else(|| handling.answered(self.now(), &self.view(), Ok(nothing())))
    }

    /// Gives a poll the queue as it was read, and notes its choice before another poll looks.
    fn choose(&self, handling: &mut Handling, machines: &[MachineName], most: u64) -> Option<Step> {
        let (now, view) = (self.now(), self.view());
        let mut queue = self.queue();
        let answer = queue.answer(now, machines, most)?;
        let step = handling.answered(now, &view, Ok(answer));
        if let Step::Ask(Operation::Claim { picks, .. }) = &step {
            queue.claiming(now, picks);
        }
        Some(step)
    }

    async fn read_queue(&self, reading: &Operation) -> Result<(), Unknown> {
        let asked = self.now();
        let answer = self.store.apply(reading).await;
        self.counters.count(reading, &answer);
        let answer = answer?;
        self.queue().note(asked, reading, &answer);
        Ok(())
    }

    /// Waits while a poll is held.
    async fn wait(
        &self,
        until: Moment,
        builds: &mut watch::Receiver<u64>,
        place: Option<&Place<'_>>,
    ) -> Woken {
        let poller = place.map(Place::host);
        let left = Duration::from_millis(until.since(self.now()));
        let mut ending = self.ending.subscribe();
        let called = async {
            match place {
                Some(place) => place.called().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ending.wait_for(|it| *it) => Woken::Called,
            () = called => Woken::Called,
            () = self.news(poller) => Woken::Called,
            _ = timeout(left, builds.changed()) => Woken::Look,
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

    /// Notes the effect of an operation on held polls and on the queue.
    fn note(&self, operation: &Operation, answer: &Result<Answer, Unknown>) {
        self.counters.count(operation, answer);
        match (operation, answer) {
            (
                Operation::Cancel(_)
                | Operation::Drain(..)
                | Operation::Publish(..)
                | Operation::BeginTrial(..)
                | Operation::EndTrial { .. }
                | Operation::AddWindow(..)
                | Operation::RemoveWindow(..),
                Ok(_),
            ) => self.ordered.notify_one(),
            (
                Operation::Submit(_) | Operation::Release { .. } | Operation::RunSchedule(..),
                Ok(_),
            ) => self.added.notify_one(),
            (Operation::Claim { picks, .. }, Ok(answer)) => self.queue().claimed(picks, answer),
            _ => {}
        }
    }

    fn view(&self) -> Arc<FarmView> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&view)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Returns an empty queue.
fn nothing() -> Answer {
    Answer::Candidates {
        builds: Vec::new(),
        used_ms: BTreeMap::new(),
        vacancies: BTreeMap::new(),
    }
}
