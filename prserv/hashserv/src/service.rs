//! The service: answers from its cache and acknowledges nothing before it is on disk.
//!
//! Look-ups that the cache cannot answer go to a few threads with a connection each. One thread,
//! the writer, makes all changes: those that wait are one transaction and one write to disk (group
//! commit), and changes of many rows are made in slices between them.

mod cache;
mod change;
mod look_ups;
mod maintenance;
mod readers;
mod retention;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use linerpc::batching;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use change::{Change, UserChange};
pub use maintenance::Maintenance;
pub use retention::Retention;

use cache::Cache;
use change::Answer;
use readers::Readers;
use writer::WriterCommand;

use crate::client::Address;
use crate::metrics::Metrics;
use crate::row::{Mapping, Report};
use crate::statistics::Statistics;
use crate::store::{Database, GcStatus, OpenMode, Store, StoreError, User};
use crate::upstream::Upstream;

/// The bound of the writer's queue. Senders wait while it is full.
const QUEUE_MAX: usize = 4096;

/// The default of [`OpenOptions::cached_hashes_max`].
const CACHED_HASHES_MAX: usize = 400_000;

/// The time in which the store must be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Options for opening a service.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The database. Missing tables are created unless the service is read-only.
    pub db: Database,
    /// Records nothing. The database must exist; another server may write to it.
    pub read_only: bool,
    /// The server that is asked for unknown hashes, and whose answers are recorded. A read-only
    /// service asks none.
    pub upstream: Option<Address>,
    /// The approximate number of hashes to keep in memory.
    pub cached_hashes_max: usize,
    /// The limits by which old rows are deleted.
    pub retention: Retention,
}

impl OpenOptions {
    /// Creates options for a service that records reports.
    pub fn new(db: impl Into<Database>) -> Self {
        Self {
            db: db.into(),
            read_only: false,
            upstream: None,
            cached_hashes_max: CACHED_HASHES_MAX,
            retention: Retention::default(),
        }
    }
}

/// The error of a query.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServiceError {
    /// The store failed and nothing was recorded. The log has the details.
    #[error("the database failed: {0}")]
    Store(String),
    /// The service has been closed.
    #[error("the hash equivalence service is closed")]
    Closed,
    /// The service records nothing.
    #[error("this hash equivalence service is read-only")]
    ReadOnly,
    /// A garbage collection has another mark.
    #[error("'{0}' is not the current mark. Refusing to sweep")]
    NotCurrentMark(String),
}

impl From<&StoreError> for ServiceError {
    fn from(error: &StoreError) -> Self {
        let source = std::error::Error::source(error);
        Self::Store(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}

/// A handle to a service. Clones share the service.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    db: Database,
    read_only: bool,
    cache: Option<Arc<Cache>>,
    readers: Readers,
    writer: mpsc::Sender<WriterCommand>,
    upstream: Option<Upstream>,
    metrics: Arc<Metrics>,
    statistics: Mutex<Statistics>,
}

impl Service {
    /// Opens the database, which blocks briefly, and starts the threads. They end when the last
    /// clone of the service is dropped.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub fn open(options: &OpenOptions) -> Result<Self, StoreError> {
        let cache = options
            .db
            .notices_external_writes()
            .then(|| Arc::new(Cache::new(options.cached_hashes_max)));
        let metrics = Arc::new(Metrics::default());
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        let weak = sender.downgrade();
        writer::start(options, cache.clone(), Arc::clone(&metrics), commands)?;
        writer::start_clock(weak, options.retention)?;
        Ok(Self {
            shared: Arc::new(Shared {
                db: options.db.clone(),
                read_only: options.read_only,
                readers: Readers::start(&options.db, cache.clone())?,
                cache,
                writer: sender,
                upstream: options
                    .upstream
                    .clone()
                    .filter(|_| !options.read_only)
                    .map(Upstream::new),
                metrics,
                statistics: Mutex::default(),
            }),
        })
    }

    /// Returns the counters of this service.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Returns true if this service records nothing.
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only
    }

    /// Records a report and returns the unihash of its task.
    ///
    /// # Errors
    /// The database failed, or the service is read-only.
    pub async fn report(&self, report: Report) -> Result<String, ServiceError> {
        self.metrics().reports.inc();
        let upstream = self.upstream_unihash(&report).await?;
        self.text(Change::Report(Box::new(report), upstream)).await
    }

    /// Records the unihash of a task unless it has one, and returns the recorded one.
    ///
    /// # Errors
    /// The database failed, or the service is read-only.
    pub async fn equate(&self, mapping: Mapping) -> Result<String, ServiceError> {
        self.metrics().reports.inc();
        self.text(Change::Equate(mapping)).await
    }

    /// Changes many rows and returns their number. Others need not wait for it.
    ///
    /// # Errors
    /// The database failed, the service is read-only, or the mark to sweep is not the current one.
    pub async fn maintain(&self, maintenance: Maintenance) -> Result<u64, ServiceError> {
        let (reply, answer) = batching::reply();
        self.send(WriterCommand::Maintain(maintenance, reply))
            .await?;
        answer.receive().await.ok_or(ServiceError::Closed)?
    }

    /// Marks rows for each line of a stream and returns their numbers.
    ///
    /// # Errors
    /// As [`Service::maintain`].
    pub async fn maintain_all(&self, all: Vec<Maintenance>) -> Result<Vec<u64>, ServiceError> {
        let mut answers = Vec::with_capacity(all.len());
        for maintenance in all {
            let (reply, answer) = batching::reply();
            self.send(WriterCommand::Maintain(maintenance, reply))
                .await?;
            answers.push(answer);
        }
        let mut counts = Vec::with_capacity(answers.len());
        for answer in answers {
            counts.push(answer.receive().await.ok_or(ServiceError::Closed)??);
        }
        Ok(counts)
    }

    /// Counts the rows with the current mark and without it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn gc_status(&self) -> Result<GcStatus, ServiceError> {
        self.read_slowly(Store::gc_status).await
    }

    /// Counts the rows of each table.
    ///
    /// # Errors
    /// The database failed.
    pub async fn usage(&self) -> Result<Vec<(&'static str, u64)>, ServiceError> {
        self.read_slowly(Store::usage).await
    }

    /// Returns a user and the hash of the token.
    ///
    /// # Errors
    /// The database failed.
    pub async fn user(&self, username: &str) -> Result<Option<(User, String)>, ServiceError> {
        let username = username.to_owned();
        self.read(move |store| store.user(&username)).await
    }

    /// Returns all users.
    ///
    /// # Errors
    /// The database failed.
    pub async fn users(&self) -> Result<Vec<User>, ServiceError> {
        self.read(Store::users).await
    }

    /// Changes the users. Returns false if the user does not exist, or exists already.
    ///
    /// # Errors
    /// The database failed, or the service is read-only.
    pub async fn change_users(&self, change: UserChange) -> Result<bool, ServiceError> {
        match self.change(Change::User(change)).await? {
            Answer::Done(done) => Ok(done),
            Answer::Unihash(_) => Ok(true),
        }
    }

    /// Waits until everything is recorded that was looked up at the upstream server. Returns the
    /// number of records that were missing.
    pub async fn backfilled(&self) -> u64 {
        match &self.shared.upstream {
            Some(upstream) => upstream.wait_for_backfill().await,
            None => 0,
        }
    }

    /// Adds requests to the statistics.
    pub(crate) fn count_requests(&self, number: u64, since: Instant) {
        let each = since.elapsed() / u32::try_from(number.max(1)).unwrap_or(u32::MAX);
        self.statistics(|statistics| statistics.add(number, each));
    }

    /// Reads or changes the statistics of requests.
    pub(crate) fn statistics<T>(&self, access: impl FnOnce(&mut Statistics) -> T) -> T {
        let statistics = &self.shared.statistics;
        access(&mut statistics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Commits what waits and closes the database. Later queries fail with
    /// [`ServiceError::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let close = async {
            let command = WriterCommand::Close(done);
            if self.shared.writer.send(command).await.is_ok() {
                let _ = closed.await;
            }
        };
        if timeout(CLOSE_TIMEOUT, close).await.is_err() {
            tracing::warn!("the database was not closed in time");
        }
    }

    async fn text(&self, change: Change) -> Result<String, ServiceError> {
        match self.change(change).await? {
            Answer::Unihash(decision) => Ok(decision.unihash),
            Answer::Done(_) => Err(ServiceError::Closed),
        }
    }

    async fn change(&self, change: Change) -> Result<Answer, ServiceError> {
        let (reply, answer) = batching::reply();
        self.send(WriterCommand::Change(change, reply)).await?;
        answer.receive().await.ok_or(ServiceError::Closed)?
    }

    async fn send(&self, command: WriterCommand) -> Result<(), ServiceError> {
        if self.shared.read_only {
            return Err(ServiceError::ReadOnly);
        }
        self.shared
            .writer
            .send(command)
            .await
            .map_err(|_| ServiceError::Closed)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.shared.readers.read(read).await
    }

    /// Reads on a connection of its own, because it takes long.
    async fn read_slowly<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let db = self.shared.db.clone();
        let work = move || read(&mut db.open(OpenMode::Read)?);
        let read: Result<T, StoreError> = tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| ServiceError::Closed)?;
        read.map_err(|error| ServiceError::from(&error))
    }
}
