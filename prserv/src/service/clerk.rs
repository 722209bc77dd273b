//! The clerk: the one thread that owns the store, and works in batches.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::ask::Ask;
use super::batch::Batch;
use super::memory::Memory;
use super::{OpenOptions, ServiceError};
use crate::metrics::Metrics;
use crate::store::{Mode, NewRow, Others, Purpose, Store, StoreError};
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
    store: Box<dyn Store>,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    read_only: bool,
}

/// Starts the thread, which opens the store; returns when it is open. The thread ends when the
/// senders are gone, or on [`Job::Close`].
pub(crate) fn start(
    options: &OpenOptions,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    jobs: mpsc::Receiver<Job>,
) -> Result<(), StoreError> {
    let (tell, opened) = std::sync::mpsc::sync_channel(1);
    let (db, read_only) = (options.db.clone(), options.read_only);
    let mode = if read_only { Mode::Read } else { Mode::Write };
    let work = move || match db.open(mode) {
        Ok(store) => {
            let _ = tell.send(Ok(()));
            Clerk {
                store,
                memory,
                metrics,
                read_only,
            }
            .work(jobs);
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    };
    thread::Builder::new()
        .name("pr-clerk".into())
        .spawn(work)
        .map_err(|source| StoreError::Thread { source })?;
    let ended = |_| StoreError::Thread {
        source: io::ErrorKind::BrokenPipe.into(),
    };
    opened.recv().map_err(ended)?
}

impl Clerk {
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

    /// Answers all, after one commit. When that fails nobody has been given anything, and each
    /// is tried alone: what the store refuses for one must not stop the others.
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
                self.answer_after(&error, asks);
            }
        }
    }

    fn answer_after(&mut self, error: &StoreError, asks: Vec<(Ask, Reply)>) {
        let failure = ServiceError::from(error);
        tracing::error!(error = %failure, asks = asks.len(), "a transaction failed");
        let is_worth_trying = asks.len() > 1 && !error.is_lasting();
        for (ask, reply) in asks {
            if is_worth_trying {
                self.answer(vec![(ask, reply)]);
            } else {
                let _ = reply.send(Err(failure.clone()));
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

    fn publish(&self, rows: &[NewRow]) {
        for row in rows {
            self.memory.add(row);
        }
        self.memory.trim();
    }
}
