//! The service: answers from its cache and never returns a value before it is on disk.
//!
//! One thread, the writer, owns the store. A query that the cache cannot answer waits for the
//! writer's next batch, which is one transaction and one write to disk for all waiting queries
//! (group commit).

mod query;

mod cache;

mod batch;

mod readers;

mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use linerpc::batching;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use cache::Cache;
pub use query::Import;
use query::Query;
use readers::Readers;
use writer::WriterCommand;

use crate::client::Target;
use crate::forget::{Forget, ForgetError};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::package_rows::PackageRows;
use crate::policy::{self, History, ParentState, ParentUnreachable, TupleRecord};
use crate::store::{self, Counts, Database, Filter, Row, Store, StoreError};
use crate::tuple::{Package, Tuple};
use crate::upstream::Upstream;
use crate::value::Value;

/// The bound of the writer's queue. Senders wait while it is full.
const QUEUE_MAX: usize = 4096;

/// The default of [`OpenOptions::cached_rows_max`].
const CACHED_ROWS_MAX: usize = 150_000;

/// The time in which the store must be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Options for opening a service.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The database. A missing SQLite file is created.
    pub db: Database,
    /// Assigns no values. The database must exist; another server may write to it. A tuple without
    /// a recorded value gets the value that a writing server *would* assign.
    pub read_only: bool,
    /// The parent server. New values lie one level below its values.
    pub upstream: Option<Target>,
    /// The file that gets a line for each changed row, created if missing.
    pub audit_log: Option<PathBuf>,
    /// The approximate number of rows to keep in memory. Evicted rows are loaded again on demand.
    pub cached_rows_max: usize,
}

impl OpenOptions {
    /// Creates options for a service that assigns values.
    pub fn new(db: impl Into<Database>) -> Self {
        Self {
            db: db.into(),
            read_only: false,
            upstream: None,
            audit_log: None,
            cached_rows_max: CACHED_ROWS_MAX,
        }
    }

    /// Sets [`OpenOptions::read_only`].
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}

/// The error of a query.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServiceError {
    /// The store failed and nothing of the batch was recorded. The writer logs the details.
    #[error("the store failed: {0}")]
    Store(String),
    /// The parent does not respond. Answering without it could assign a value twice.
    #[error(transparent)]
    ParentUnreachable(#[from] ParentUnreachable),
    /// The service has been closed.
    #[error("the PR service is closed")]
    Closed,
}

/// A handle to a PR service. Clones share the service.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: OpenOptions,
    cache: Arc<Cache>,
    writer: mpsc::Sender<WriterCommand>,
    readers: Readers,
    upstream: Option<Upstream>,
    metrics: Arc<Metrics>,
    /// The identity of this program for its own requests.
    own_identity: Identity,
}

impl Service {
    /// Opens the store, which blocks briefly, and starts the writer. The writer's thread ends when
    /// the last clone of the service is dropped.
    pub fn open(options: &OpenOptions) -> Result<Self, StoreError> {
        let cache = Arc::new(Cache::new(options.cached_rows_max));
        let metrics = Arc::new(Metrics::default());
        let (writer, commands) = mpsc::channel(QUEUE_MAX);
        writer::start(options, Arc::clone(&cache), Arc::clone(&metrics), commands)?;
        Ok(Self {
            shared: Arc::new(Shared {
                options: options.clone(),
                cache,
                writer,
                readers: Readers::new(options.db.clone()),
                upstream: options.upstream.clone().map(Upstream::new),
                metrics,
                own_identity: Identity::new("this program"),
            }),
        })
    }

    /// Returns the counters of this service.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Returns true if this service assigns no values.
    pub fn is_read_only(&self) -> bool {
        self.shared.options.read_only
    }

    /// Returns the value of a tuple: the recorded one, or a new one that is on disk.
    pub async fn get_pr(&self, tuple: &Tuple, history: History) -> Result<Value, ServiceError> {
        self.get_pr_for(tuple, history, &self.shared.own_identity)
            .await
    }

    /// Returns the value of a tuple as [`Service::get_pr`] does, for a peer.
    pub async fn get_pr_for(
        &self,
        tuple: &Tuple,
        history: History,
        identity: &Identity,
    ) -> Result<Value, ServiceError> {
        if self.shared.upstream.is_none()
            && let Some(value) = self.cached_value(tuple, history)
        {
            return Ok(value);
        }
        // In a box, because its state is large, and recorded tuples need none.
        Box::pin(self.get_uncached(tuple, history, identity)).await
    }

    async fn get_uncached(
        &self,
        tuple: &Tuple,
        history: History,
        identity: &Identity,
    ) -> Result<Value, ServiceError> {
        let parent = match &self.shared.upstream {
            None => ParentState::PackageUnknown,
            Some(upstream) if history == History::Ignore => upstream.state_of(tuple).await,
            Some(upstream) => match self.test_pr(tuple, history).await? {
                Some(value) => return Ok(value),
                None => upstream.state_of(tuple).await,
            },
        };
        if parent == ParentState::PackageUnknown
            && let Some(value) = self.cached_value(tuple, history)
        {
            return Ok(value);
        }
        let query = Query::Get(tuple.clone(), history, parent);
        let value = self.query(query, identity).await?;
        Ok(value.ok_or(ParentUnreachable)?)
    }

    /// Returns the recorded value of a tuple without assigning one.
    pub async fn test_pr(
        &self,
        tuple: &Tuple,
        history: History,
    ) -> Result<Option<Value>, ServiceError> {
        if let Some(record) = self.cached_record(&tuple.package, &tuple.checksum) {
            return Ok(policy::recorded(&record, history));
        }
        let query = Query::Test(tuple.clone(), history);
        self.query(query, &self.shared.own_identity).await
    }

    /// Returns the greatest value of a package.
    pub async fn max_package_pr(&self, package: &Package) -> Result<Option<Value>, ServiceError> {
        if let Some(record) = self.cached_record(package, "") {
            return Ok(record.max);
        }
        let query = Query::Max(package.clone());
        self.query(query, &self.shared.own_identity).await
    }

    /// Records a value that another server assigned. Returns `None` if this service is read-only.
    pub async fn import_one(
        &self,
        tuple: &Tuple,
        value: &Value,
    ) -> Result<Option<Value>, ServiceError> {
        self.import_for(tuple, value, Import::Always, &self.shared.own_identity)
            .await
    }

    /// Records a value for a peer. Returns the recorded value, or `None` if this service is
    /// read-only.
    pub async fn import_for(
        &self,
        tuple: &Tuple,
        value: &Value,
        import: Import,
        identity: &Identity,
    ) -> Result<Option<Value>, ServiceError> {
        let query = Query::Import(tuple.clone(), value.clone(), import);
        self.query(query, identity).await
    }

    /// Removes rows of a package for a peer. Returns them, or the reason for which nothing was
    /// removed.
    pub async fn forget_for(
        &self,
        request: &Forget,
        identity: &Identity,
    ) -> Result<Result<Vec<Row>, ForgetError>, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let command = WriterCommand::Forget(request.clone(), identity.clone(), reply);
        self.send(command).await?;
        answer.await.map_err(|_| ServiceError::Closed)?
    }

    /// Returns the rows that match: all of them with history, and only those with the greatest
    /// value of their package without.
    pub async fn export(&self, filter: Filter, history: History) -> Result<Vec<Row>, ServiceError> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let export = |store: &mut dyn Store| store::export(store, &filter, history);
            shared.readers.read(export)
        };
        let rows: Result<_, StoreError> = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| ServiceError::Closed)?;
        rows.map_err(|error| ServiceError::from(&error))
    }

    /// Returns the first packages whose version contains a text, each with its rows, and the numbers
    /// of all packages and rows.
    pub async fn search(
        &self,
        text: &str,
        most: u32,
    ) -> Result<(Vec<(Package, PackageRows)>, Counts), ServiceError> {
        let (shared, text) = (Arc::clone(&self.shared), text.to_owned());
        let search = move |store: &mut dyn Store| {
            let packages = store.packages(&text, most)?;
            let rows = store.load(&packages.iter().collect::<Vec<_>>())?;
            Ok((packages.into_iter().zip(rows).collect(), store.counts()?))
        };
        let found = tokio::task::spawn_blocking(move || shared.readers.read(search));
        let found: Result<_, StoreError> = found.await.map_err(|_| ServiceError::Closed)?;
        found.map_err(|error| ServiceError::from(&error))
    }

    /// Commits the queued queries and closes the store. Later queries fail with
    /// [`ServiceError::Closed`]. Gives up on a store that does not answer in time: it has answered
    /// no query, so clients repeat theirs.
    pub async fn close(&self) {
        self.shared.readers.close();
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

    fn cached_value(&self, tuple: &Tuple, history: History) -> Option<Value> {
        let current = |rows: &PackageRows| {
            policy::current(rows.max(), rows.range(&tuple.checksum), history).cloned()
        };
        self.valid_cache()?.read(&tuple.package, current)?
    }

    fn cached_record(&self, package: &Package, checksum: &str) -> Option<TupleRecord> {
        self.valid_cache()?.record(package, checksum)
    }

    /// Returns the cache unless other processes may write to the store at any time.
    fn valid_cache(&self) -> Option<&Cache> {
        let options = &self.shared.options;
        let is_only_writer = !options.read_only && options.db.has_one_writer();
        is_only_writer.then_some(&*self.shared.cache)
    }

    async fn query(
        &self,
        query: Query,
        identity: &Identity,
    ) -> Result<Option<Value>, ServiceError> {
        let (reply, answer) = batching::reply();
        let command = WriterCommand::Answer(query, identity.clone(), reply);
        // In a box, because its state is large, and most queries are answered by the cache.
        Box::pin(self.send(command)).await?;
        answer.receive().await.ok_or(ServiceError::Closed)?
    }

    async fn send(&self, command: WriterCommand) -> Result<(), ServiceError> {
        let sent = self.shared.writer.send(command).await;
        sent.map_err(|_| ServiceError::Closed)
    }
}

impl From<&StoreError> for ServiceError {
    fn from(error: &StoreError) -> Self {
        let source = std::error::Error::source(error);
        Self::Store(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}
