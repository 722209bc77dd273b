//! The writer: the only thread that uses the store. It answers queries in batches.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use jiff::Timestamp;
use linerpc::batching;
use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::cache::Cache;
use super::query::Query;
use super::{OpenOptions, ServiceError};
use crate::audit::{AuditLog, Change, Entry};
use crate::forget::{self, Forget, ForgetError};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::store::{ExternalWrites, NewRow, OpenMode, Row, Store, StoreError, TransactionMode};
use crate::value::Value;

/// The maximum number of queries in one transaction.
const BATCH_MAX: usize = 512;

/// The sender of a query's answer.
pub(crate) type Reply = batching::Reply<Result<Option<Value>, ServiceError>>;

/// The sender of the answer to a removal.
pub(crate) type RemovalReply = oneshot::Sender<Result<Removal, ServiceError>>;

/// The removed rows, or the reason for which there are none.
pub(crate) type Removal = Result<Vec<Row>, ForgetError>;

/// A command to the writer.
#[derive(Debug)]
pub(crate) enum WriterCommand {
    /// Answers a query of a peer.
    Answer(Query, Identity, Reply),
    /// Removes rows for a peer.
    Forget(Forget, Identity, RemovalReply),
    /// Closes the store, then notifies the sender.
    Close(oneshot::Sender<()>),
}

/// A query that waits for its answer.
struct Waiting {
    query: Query,
    identity: Identity,
    reply: Reply,
}

/// The owner of the store.
pub(crate) struct StoreWriter {
    store: Box<dyn Store>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    audit_log: Option<AuditLog>,
    read_only: bool,
}

/// Starts the writer's thread and waits until it has opened the store. The thread ends on
/// [`WriterCommand::Close`] or when all senders are dropped.
pub(crate) fn start(
    options: &OpenOptions,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    commands: mpsc::Receiver<WriterCommand>,
) -> Result<(), StoreError> {
    let (sender, opened) = std::sync::mpsc::sync_channel(1);
    let (db, read_only) = (options.db.clone(), options.read_only);
    let audit_log = options.audit_log.as_deref().map(open_audit_log);
    let audit_log = audit_log.transpose()?;
    let mode = if read_only {
        OpenMode::Read
    } else {
        OpenMode::Write
    };
    let work = move || match db.open(mode) {
        Ok(store) => {
            let _ = sender.send(Ok(()));
            StoreWriter {
                store,
                cache,
                metrics,
                audit_log,
                read_only,
            }
            .run(commands);
        }
        Err(error) => {
            let _ = sender.send(Err(error));
        }
    };
    thread::Builder::new()
        .name("pr-writer".into())
        .spawn(work)
        .map_err(|source| StoreError::Thread { source })?;
    let panicked = |_| StoreError::Thread {
        source: io::ErrorKind::BrokenPipe.into(),
    };
    opened.recv().map_err(panicked)?
}

fn open_audit_log(path: &Path) -> Result<AuditLog, StoreError> {
    AuditLog::open(path).map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })
}

impl StoreWriter {
    fn run(mut self, mut commands: mpsc::Receiver<WriterCommand>) {
        let mut received = Vec::with_capacity(BATCH_MAX);
        while commands.blocking_recv_many(&mut received, BATCH_MAX) > 0 {
            let mut queries = Vec::with_capacity(received.len());
            let mut closing = None;
            for command in received.drain(..) {
                match command {
                    WriterCommand::Answer(query, identity, reply) => queries.push(Waiting {
                        query,
                        identity,
                        reply,
                    }),
                    WriterCommand::Forget(request, identity, reply) => {
                        self.answer(std::mem::take(&mut queries));
                        let _ = reply.send(self.forget(&request, &identity));
                    }
                    WriterCommand::Close(done) => closing = Some(done),
                }
            }
            self.answer(queries);
            if let Some(done) = closing {
                drop(self.store);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Answers all queries after one commit. If the transaction fails, nothing has been assigned,
    /// and each query is retried alone: a query that the store rejects must not fail the others.
    fn answer(&mut self, queries: Vec<Waiting>) {
        if queries.is_empty() {
            return;
        }
        match self.transact(&queries) {
            Ok(answers) => {
                // A client that has disconnected in the meantime repeats its request.
                let replies = queries.into_iter().map(|waiting| waiting.reply);
                Reply::send_all(replies.zip(answers.into_iter().map(Ok)));
            }
            Err(error) => {
                self.roll_back();
                self.retry_or_fail(&error, queries);
            }
        }
    }

    fn roll_back(&mut self) {
        self.metrics.record_failure();
        self.store.rollback();
        self.cache.clear();
    }

    fn retry_or_fail(&mut self, error: &StoreError, queries: Vec<Waiting>) {
        tracing::error!(
            error = error as &dyn Error,
            queries = queries.len(),
            "a transaction failed"
        );
        let failure = ServiceError::from(error);
        let can_retry = queries.len() > 1 && !error.is_persistent();
        for waiting in queries {
            if can_retry {
                self.answer(vec![waiting]);
            } else {
                waiting.reply.send(Err(failure.clone()));
            }
        }
    }

    fn transact(&mut self, queries: &[Waiting]) -> Result<Vec<Option<Value>>, StoreError> {
        let start = Instant::now();
        let may_write = !self.read_only && queries.iter().any(|waiting| waiting.query.may_write());
        let mode = if may_write {
            TransactionMode::Write
        } else {
            TransactionMode::Read
        };
        if self.store.begin(mode)? == ExternalWrites::Possible {
            self.cache.clear();
        }
        self.load_missing(queries)?;
        let cache = Arc::clone(&self.cache);
        let mut batch = Batch::new(&cache, self.read_only);
        let answers = queries
            .iter()
            .map(|waiting| batch.answer(&waiting.query, &waiting.identity))
            .collect();
        let (rows, origins) = batch.into_rows();
        self.store.insert(&rows)?;
        let external_writes = self.store.commit()?;
        self.metrics
            .record_batch(queries.len(), rows.len(), start.elapsed());
        match external_writes {
            ExternalWrites::None => self.update_cache(&rows),
            ExternalWrites::Possible => self.cache.clear(),
        }
        let changes = rows.iter().zip(origins);
        self.audit(changes.map(|(row, (change, identity))| Entry {
            change,
            identity,
            tuple: row.tuple,
            value: &row.value,
        }));
        Ok(answers)
    }

    /// Removes rows in a transaction of its own.
    fn forget(&mut self, request: &Forget, identity: &Identity) -> Result<Removal, ServiceError> {
        let removal = self.try_forget(request);
        match &removal {
            Ok(Ok(rows)) => {
                self.cache.clear();
                self.audit(rows.iter().map(|row| Entry {
                    change: Change::Forgotten,
                    identity,
                    tuple: &row.tuple,
                    value: &row.value,
                }));
            }
            Ok(Err(_)) => {}
            Err(error) => {
                let error = error as &dyn Error;
                tracing::error!(error, "a transaction failed");
                self.roll_back();
            }
        }
        removal.map_err(|error| ServiceError::from(&error))
    }

    fn try_forget(&mut self, request: &Forget) -> Result<Removal, StoreError> {
        if self.store.begin(TransactionMode::Write)? == ExternalWrites::Possible {
            self.cache.clear();
        }
        let removal = forget::remove(&mut *self.store, request)?;
        if self.store.commit()? == ExternalWrites::Possible {
            self.cache.clear();
        }
        Ok(removal)
    }

    /// Appends lines to the audit log. A failure is logged: the rows are committed.
    fn audit<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) {
        let Some(log) = &mut self.audit_log else {
            return;
        };
        if let Err(error) = log.append(Timestamp::now(), entries) {
            self.metrics.record_audit_failure();
            let error = &error as &dyn Error;
            tracing::error!(error, path = %log.path().display(), "cannot write to the audit log");
        }
    }

    /// Loads the packages of the batch that are not cached.
    fn load_missing(&mut self, queries: &[Waiting]) -> Result<(), StoreError> {
        let missing: HashSet<_> = queries
            .iter()
            .map(|waiting| waiting.query.package())
            .filter(|package| !self.cache.contains(package))
            .collect();
        let missing: Vec<_> = missing.into_iter().collect();
        for (package, rows) in missing.iter().zip(self.store.load(&missing)?) {
            self.cache.insert(package, rows);
        }
        Ok(())
    }

    fn update_cache(&self, rows: &[NewRow]) {
        for row in rows {
            self.cache.add(row);
        }
        self.cache.evict();
    }
}
