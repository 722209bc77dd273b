//! The clerk: the one thread that owns the store, and works in batches.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::ServiceError;
use super::ask::Ask;
use super::batch::Batch;
use super::memory::Memory;
use crate::metrics::Metrics;
use crate::store::{Others, Purpose, Row, Store, StoreError};
use crate::value::Value;

/// As many asks share one transaction at most.
const BATCH_MAX: usize = 512;

/// Where an answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Option<Value>, ServiceError>>;

/// What the clerk finds on the desk.
#[derive(Debug)]
pub(crate) enum Job {
    /// An ask, and where its answer goes.
    Ask(Ask, Reply),
    /// Close the store, then say so.
    Close(oneshot::Sender<()>),
}

/// Owns the store.
pub(crate) struct Clerk {
    pub(crate) store: Box<dyn Store>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) read_only: bool,
}

impl Clerk {
    /// Starts the thread. It ends when the senders are gone, or on [`Job::Close`].
    pub(crate) fn start(self, jobs: mpsc::Receiver<Job>) -> Result<(), StoreError> {
        thread::Builder::new()
            .name("pr-clerk".into())
            .spawn(move || self.work(jobs))
            .map_err(|source: io::Error| StoreError::Thread { source })?;
        Ok(())
    }

    fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut desk = Vec::with_capacity(BATCH_MAX);
        while jobs.blocking_recv_many(&mut desk, BATCH_MAX) > 0 {
            let mut asks = Vec::with_capacity(desk.len());
            let mut closing = None;
            for job in desk.drain(..) {
                match job {
                    Job::Ask(ask, reply) => asks.push((ask, reply)),
                    Job::Close(done) => closing = Some(done),
                }
            }
            self.answer(asks);
            if let Some(done) = closing {
                drop(self.store);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Answers all, after one commit. When anything fails nobody has been given anything.
    fn answer(&mut self, asks: Vec<(Ask, Reply)>) {
        if asks.is_empty() {
            return;
        }
        match self.transact(&asks) {
            Ok(answers) => {
                for ((_, reply), answer) in asks.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer)); // who left meanwhile asks again
                }
            }
            Err(error) => {
                self.metrics.note_failure();
                self.store.rollback();
                self.memory.clear();
                let error = ServiceError::from(&error);
                tracing::error!(%error, asks = asks.len(), "a batch failed");
                for (_, reply) in asks {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn transact(&mut self, asks: &[(Ask, Reply)]) -> Result<Vec<Option<Value>>, StoreError> {
        let start = Instant::now();
        let may_write = !self.read_only && asks.iter().any(|(ask, _)| ask.may_write());
        let purpose = if may_write {
            Purpose::Write
        } else {
            Purpose::Read
        };
        if self.store.begin(purpose)? == Others::Wrote {
            self.memory.clear();
        }
        self.remember(asks)?;
        let mut batch = Batch::new(&self.memory, self.read_only);
        let answers = asks.iter().map(|(ask, _)| batch.answer(ask)).collect();
        let rows = batch.into_rows();
        self.store.insert(&rows)?;
        self.store.commit()?;
        self.metrics
            .note_batch(asks.len(), rows.len(), start.elapsed());
        self.publish(&rows);
        Ok(answers)
    }

    /// Loads the packages of the batch that memory lacks.
    fn remember(&mut self, asks: &[(Ask, Reply)]) -> Result<(), StoreError> {
        let packages: HashSet<_> = asks
            .iter()
            .map(|(ask, _)| ask.package())
            .filter(|package| !self.memory.has(package))
            .collect();
        let packages: Vec<_> = packages.into_iter().collect();
        for (package, rows) in packages.iter().zip(self.store.load(&packages)?) {
            self.memory.put(package, rows);
        }
        Ok(())
    }

    fn publish(&self, rows: &[Row]) {
        for row in rows {
            self.memory.add(row);
        }
        self.memory.trim();
    }
}
