//! The service: answers from memory, and gives nothing away before it is on disk.
//!
//! What a package has is remembered once it was asked for. One thread, the clerk, owns the store;
//! what memory cannot answer waits for the clerk's next batch, which is one transaction and one
//! write to the disk for all who wait ("group commit").

mod ask;

mod memory;

mod batch;

mod clerk;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use ask::Ask;
use clerk::Job;
use memory::Memory;

use crate::client::Target;
use crate::metrics::Metrics;
use crate::policy::{self, Facts, History, Parent, ParentDown};
use crate::rows::Rows;
use crate::store::{Database, Filter, Mode, Row, StoreError, select};
use crate::tuple::{Package, Tuple};
use crate::upstream::Upstream;
use crate::value::Value;

/// As many may wait for the clerk; the next ones wait to be let in.
const WAITING_MAX: usize = 4096;

/// How many rows are remembered unless told otherwise.
const REMEMBERED_ROWS: usize = 150_000;

/// How a service is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The database. A SQLite file is made when it is missing.
    pub db: Database,
    /// Look only: the file must exist, and another server may be writing to it. A tuple that is
    /// not recorded is told the value it *would* get.
    pub read_only: bool,
    /// The parent server: what it knows comes from it, and new values lie below its own.
    pub upstream: Option<Target>,
    /// How many rows to keep in memory; the others are read again when they are asked for.
    pub remembered_rows: usize,
}

impl OpenOptions {
    /// The options for giving values from a file.
    pub fn new(db: impl Into<Database>) -> Self {
        Self {
            db: db.into(),
            read_only: false,
            upstream: None,
            remembered_rows: REMEMBERED_ROWS,
        }
    }

    /// The same, to look only.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}

/// Why an ask has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServiceError {
    /// The store failed; nothing of the batch was recorded. Its log line has the details.
    #[error("the store failed: {0}")]
    Store(String),
    /// The parent does not answer, and without it a value could be given twice.
    #[error(transparent)]
    ParentDown(#[from] ParentDown),
    /// The service has been closed.
    #[error("the PR service is closed")]
    Closed,
}

/// A PR service. Clones are the same service.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: OpenOptions,
    memory: Arc<Memory>,
    clerk: mpsc::Sender<Job>,
    upstream: Option<Upstream>,
    metrics: Arc<Metrics>,
}

impl Service {
    /// Opens the store, which blocks for a moment, and starts the clerk. Its thread ends with the
    /// last clone of the service.
    pub fn open(options: &OpenOptions) -> Result<Self, StoreError> {
        let memory = Arc::new(Memory::new(options.remembered_rows));
        let metrics = Arc::new(Metrics::default());
        let (clerk, jobs) = mpsc::channel(WAITING_MAX);
        clerk::start(options, Arc::clone(&memory), Arc::clone(&metrics), jobs)?;
        let upstream = options.upstream.clone().map(Upstream::new);
        let options = options.clone();
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                memory,
                clerk,
                upstream,
                metrics,
            }),
        })
    }

    /// What this service counts.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether this service looks only.
    pub fn is_read_only(&self) -> bool {
        self.shared.options.read_only
    }

    /// The value of a tuple: the recorded one, or a new one, which is on disk when this returns.
    pub async fn get_pr(&self, tuple: &Tuple, history: History) -> Result<Value, ServiceError> {
        let parent = match &self.shared.upstream {
            None => Parent::Unaware,
            Some(upstream) if history == History::Ignore => upstream.parent_of(tuple).await,
            Some(upstream) => match self.test_pr(tuple, history).await? {
                Some(value) => return Ok(value),
                None => upstream.parent_of(tuple).await,
            },
        };
        if parent == Parent::Unaware
            && let Some(value) = self.current(tuple, history)
        {
            return Ok(value);
        }
        let value = self.ask(Ask::Get(tuple.clone(), history, parent)).await?;
        Ok(value.ok_or(ParentDown)?)
    }

    /// The recorded value of a tuple, giving none.
    pub async fn test_pr(
        &self,
        tuple: &Tuple,
        history: History,
    ) -> Result<Option<Value>, ServiceError> {
        match self.remembered(&tuple.package, &tuple.checksum) {
            Some(facts) => Ok(policy::recorded(&facts, history)),
            None => self.ask(Ask::Test(tuple.clone(), history)).await,
        }
    }

    /// The greatest value of a package.
    pub async fn max_package_pr(&self, package: &Package) -> Result<Option<Value>, ServiceError> {
        match self.remembered(package, "") {
            Some(facts) => Ok(facts.max),
            None => self.ask(Ask::Max(package.clone())).await,
        }
    }

    /// Whether anything is recorded of a package.
    pub async fn test_package(&self, package: &Package) -> Result<bool, ServiceError> {
        Ok(self.max_package_pr(package).await?.is_some())
    }

    /// Records a value given elsewhere. `None` when this service looks only.
    pub async fn import_one(
        &self,
        tuple: &Tuple,
        value: &Value,
    ) -> Result<Option<Value>, ServiceError> {
        self.ask(Ask::Import(tuple.clone(), value.clone())).await
    }

    /// The rows that match: with history all of them, without only those that hold their
    /// package's greatest value.
    pub async fn export(&self, filter: Filter, history: History) -> Result<Vec<Row>, ServiceError> {
        let options = self.shared.options.clone();
        let read = move || {
            let rows = options.db.open(Mode::Read)?.rows(&filter)?;
            Ok(select(rows, filter.checksum.as_deref(), history))
        };
        let rows: Result<_, StoreError> = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| ServiceError::Closed)?;
        rows.map_err(|error| ServiceError::from(&error))
    }

    /// Commits what waits and closes the store. Later asks fail with [`ServiceError::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.shared.clerk.send(Job::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// The value that memory knows to be current.
    fn current(&self, tuple: &Tuple, history: History) -> Option<Value> {
        let look =
            |rows: &Rows| policy::current(rows.max(), rows.span(&tuple.checksum), history).cloned();
        self.memory()?.look(&tuple.package, look)?
    }

    /// What memory knows.
    fn remembered(&self, package: &Package, checksum: &str) -> Option<Facts> {
        self.memory()?.facts(package, checksum)
    }

    /// The memory, unless others may write to the store.
    fn memory(&self) -> Option<&Memory> {
        let options = &self.shared.options;
        let is_sure = !options.read_only && options.db.has_one_writer();
        is_sure.then_some(&*self.shared.memory)
    }

    async fn ask(&self, ask: Ask) -> Result<Option<Value>, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Ask(ask, reply);
        self.shared
            .clerk
            .send(job)
            .await
            .map_err(|_| ServiceError::Closed)?;
        answer.await.map_err(|_| ServiceError::Closed)?
    }
}

impl From<&StoreError> for ServiceError {
    fn from(error: &StoreError) -> Self {
        let source = std::error::Error::source(error);
        Self::Store(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
    }
}
