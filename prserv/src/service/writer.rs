//! The writer: the only thread that uses the store. It answers queries in batches.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::cache::Cache;
use super::query::Query;
use super::{OpenOptions, ServiceError};
use crate::metrics::Metrics;
use crate::store::{ExternalWrites, NewRow, OpenMode, Store, StoreError, TransactionMode};
use crate::value::Value;

/// The maximum number of queries in one transaction.
const BATCH_MAX: usize = 512;

/// The sender of a query's answer.
pub(crate) type Reply = oneshot::Sender<Result<Option<Value>, ServiceError>>;

/// A command to the writer.
#[derive(Debug)]
pub(crate) enum WriterCommand {
    /// Answers a query.
    Answer(Query, Reply),
    /// Closes the store, then notifies the sender.
    Close(oneshot::Sender<()>),
}

/// The owner of the store.
pub(crate) struct StoreWriter {
    store: Box<dyn Store>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
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

impl StoreWriter {
    fn run(mut self, mut commands: mpsc::Receiver<WriterCommand>) {
        let mut received = Vec::with_capacity(BATCH_MAX);
        while commands.blocking_recv_many(&mut received, BATCH_MAX) > 0 {
            let mut queries = Vec::with_capacity(received.len());
            let mut closing = None;
            for command in received.drain(..) {
                match command {
                    WriterCommand::Answer(query, reply) => queries.push((query, reply)),
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
    fn answer(&mut self, queries: Vec<(Query, Reply)>) {
        if queries.is_empty() {
            return;
        }
        match self.transact(&queries) {
            Ok(answers) => {
                for ((_, reply), answer) in queries.into_iter().zip(answers) {
                    // A client that has disconnected in the meantime repeats its request.
                    let _ = reply.send(Ok(answer));
                }
            }
            Err(error) => {
                self.metrics.record_failure();
                self.store.rollback();
                self.cache.clear();
                self.retry_or_fail(&error, queries);
            }
        }
    }

    fn retry_or_fail(&mut self, error: &StoreError, queries: Vec<(Query, Reply)>) {
        tracing::error!(
            error = error as &dyn Error,
            queries = queries.len(),
            "a transaction failed"
        );
        let failure = ServiceError::from(error);
        let can_retry = queries.len() > 1 && !error.is_persistent();
        for (query, reply) in queries {
            if can_retry {
                self.answer(vec![(query, reply)]);
            } else {
                let _ = reply.send(Err(failure.clone()));
            }
        }
    }

    fn transact(&mut self, queries: &[(Query, Reply)]) -> Result<Vec<Option<Value>>, StoreError> {
        let start = Instant::now();
        let may_write = !self.read_only && queries.iter().any(|(query, _)| query.may_write());
        let mode = if may_write {
            TransactionMode::Write
        } else {
            TransactionMode::Read
        };
        if self.store.begin(mode)? == ExternalWrites::Possible {
            self.cache.clear();
        }
        self.load_missing(queries)?;
        let mut batch = Batch::new(&self.cache, self.read_only);
        let answers = queries
            .iter()
            .map(|(query, _)| batch.answer(query))
            .collect();
        let rows = batch.into_rows();
        self.store.insert(&rows)?;
        self.store.commit()?;
        self.metrics
            .record_batch(queries.len(), rows.len(), start.elapsed());
        self.update_cache(&rows);
        Ok(answers)
    }

    /// Loads the packages of the batch that are not cached.
    fn load_missing(&mut self, queries: &[(Query, Reply)]) -> Result<(), StoreError> {
        let missing: HashSet<_> = queries
            .iter()
            .map(|(query, _)| query.package())
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
