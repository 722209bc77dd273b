//! The writer: the only thread of the service that changes the database.
//!
//! Everything that waits is one transaction. Changes of many rows follow in slices, as many as fit
//! into a short time, so that later changes soon get their turn.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use linerpc::batching;
use tokio::sync::mpsc::{self, WeakSender};
use tokio::sync::oneshot;

use super::cache::Cache;
use super::change::{Answer, Change};
use super::maintenance::{Progress, Step, StepError};
use super::{Maintenance, OpenOptions, Retention, ServiceError};
use crate::metrics::Metrics;
use crate::store::{OpenMode, Store, StoreError, TransactionMode};
use crate::upstream::BackfillGuard;

/// The maximum number of changes in one transaction.
const BATCH_MAX: usize = 512;

/// The time for slices in one transaction.
const SLICES_TIME: Duration = Duration::from_millis(10);

/// The interval of checks for writes by others, which the cache does not contain.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The interval of deletions by age.
const RETENTION_INTERVAL: Duration = Duration::from_hours(1);

type Reply<T> = batching::Reply<Result<T, ServiceError>>;

/// A command to the writer.
#[derive(Debug)]
pub(super) enum WriterCommand {
    /// Makes a change.
    Change(Change, Reply<Answer>),
    /// Records something of the upstream server, for which nobody waits.
    Backfill(Change, BackfillGuard),
    /// Changes many rows.
    Maintain(Maintenance, Reply<u64>),
    /// Checks for writes by others.
    Check,
    /// Deletes by age.
    Expire(Vec<Maintenance>),
    /// Closes the store, then notifies the sender.
    Close(oneshot::Sender<()>),
}

/// A change and the one who waits for it.
#[derive(Debug)]
struct Waiting {
    change: Change,
    reply: Option<Reply<Answer>>,
    _backfill: Option<BackfillGuard>,
}

/// A maintenance and those who wait for it: the client, which repeats its request on a timeout.
#[derive(Debug)]
struct Job {
    progress: Progress,
    replies: Vec<Reply<u64>>,
}

/// The owner of the connection that writes.
struct Writer {
    store: Store,
    cache: Option<Arc<Cache>>,
    metrics: Arc<Metrics>,
    jobs: VecDeque<Job>,
}

/// Starts the writer's thread and waits until it has opened the database.
pub(super) fn start(
    options: &OpenOptions,
    cache: Option<Arc<Cache>>,
    metrics: Arc<Metrics>,
    commands: mpsc::Receiver<WriterCommand>,
) -> Result<(), StoreError> {
    let (sender, opened) = std::sync::mpsc::sync_channel(1);
    let mode = if options.read_only {
        OpenMode::Read
    } else {
        OpenMode::Write
    };
    let db = options.db.clone();
    let work = move || match db.open(mode) {
        Ok(store) => {
            let _ = sender.send(Ok(()));
            Writer {
                store,
                cache,
                metrics,
                jobs: VecDeque::new(),
            }
            .run(commands);
        }
        Err(error) => {
            let _ = sender.send(Err(error));
        }
    };
    thread::Builder::new()
        .name("hash-writer".into())
        .spawn(work)
        .map_err(StoreError::Thread)?;
    let panicked = |_| StoreError::Thread(io::ErrorKind::BrokenPipe.into());
    opened.recv().map_err(panicked)?
}

/// Starts the thread that sends the regular commands. It ends with the service.
pub(super) fn start_clock(
    writer: WeakSender<WriterCommand>,
    retention: Retention,
) -> Result<(), StoreError> {
    let run = move || {
        let mut next_retention = Instant::now();
        loop {
            thread::sleep(CHECK_INTERVAL);
            let Some(writer) = writer.upgrade() else {
                return;
            };
            // A full queue means that the writer is busy; the next check is soon enough.
            let _ = writer.try_send(WriterCommand::Check);
            if Instant::now() >= next_retention {
                next_retention = Instant::now() + RETENTION_INTERVAL;
                let due = retention.due(Timestamp::now());
                if !due.is_empty() {
                    let _ = writer.blocking_send(WriterCommand::Expire(due));
                }
            }
        }
    };
    thread::Builder::new()
        .name("hash-clock".into())
        .spawn(run)
        .map_err(StoreError::Thread)?;
    Ok(())
}

impl Writer {
    fn run(mut self, mut commands: mpsc::Receiver<WriterCommand>) {
        let mut received = Vec::with_capacity(BATCH_MAX);
        loop {
            if self.jobs.is_empty() {
                if commands.blocking_recv_many(&mut received, BATCH_MAX) == 0 {
                    return;
                }
            } else {
                let now = std::iter::from_fn(|| commands.try_recv().ok());
                received.extend(now.take(BATCH_MAX));
            }
            let (changes, closing) = self.sort(&mut received);
            self.transact(changes);
            if let Some(done) = closing {
                drop(self.store);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Returns the changes among commands, and the one who waits until the store is closed.
    fn sort(
        &mut self,
        commands: &mut Vec<WriterCommand>,
    ) -> (Vec<Waiting>, Option<oneshot::Sender<()>>) {
        let mut changes = Vec::with_capacity(commands.len());
        let mut closing = None;
        for command in commands.drain(..) {
            match command {
                WriterCommand::Change(change, reply) => changes.push(Waiting {
                    change,
                    reply: Some(reply),
                    _backfill: None,
                }),
                WriterCommand::Backfill(change, guard) => changes.push(Waiting {
                    change,
                    reply: None,
                    _backfill: Some(guard),
                }),
                WriterCommand::Maintain(maintenance, reply) => {
                    self.add_job(maintenance, Some(reply));
                }
                WriterCommand::Expire(all) => {
                    for maintenance in all {
                        self.add_job(maintenance, None);
                    }
                }
                WriterCommand::Check => self.check(),
                WriterCommand::Close(done) => closing = Some(done),
            }
        }
        (changes, closing)
    }

    /// Adds a job. A repeated request waits for the job of the first one.
    fn add_job(&mut self, maintenance: Maintenance, reply: Option<Reply<u64>>) {
        let is_sweep = matches!(maintenance, Maintenance::Sweep { .. });
        let mut same = self.jobs.iter_mut();
        match same.find(|job| is_sweep && job.progress.maintenance == maintenance) {
            Some(job) => job.replies.extend(reply),
            None => self.jobs.push_back(Job {
                progress: Progress::new(maintenance),
                replies: reply.into_iter().collect(),
            }),
        }
    }

    /// Clears the cache if others have written to the database.
    fn check(&mut self) {
        match self.store.has_external_writes() {
            Ok(false) => {}
            Ok(true) => self.clear_cache(),
            Err(error) => {
                self.clear_cache();
                let error = &error as &dyn Error;
                tracing::error!(error, "cannot check for writes by others");
            }
        }
    }

    fn clear_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    /// Makes changes and some slices, and answers after the commit. If the transaction fails,
    /// nothing was changed, and each change is retried alone: one that the database rejects must
    /// not fail the others.
    fn transact(&mut self, changes: Vec<Waiting>) {
        if changes.is_empty() && self.jobs.is_empty() {
            return;
        }
        let mut finished = Vec::new();
        match self.try_transact(&changes, &mut finished) {
            Ok(answers) => {
                let answered = changes.into_iter().zip(answers);
                batching::Reply::send_all(
                    answered.filter_map(|(waiting, answer)| Some((waiting.reply?, Ok(answer)))),
                );
                for (job, outcome) in finished {
                    job.end(&outcome);
                }
            }
            Err(error) => {
                self.metrics.record_failure();
                self.store.rollback();
                self.clear_cache();
                let jobs: Vec<Job> = finished.into_iter().map(|(job, _)| job).collect();
                self.retry_or_fail(&error, changes, jobs);
            }
        }
    }

    fn try_transact(
        &mut self,
        changes: &[Waiting],
        finished: &mut Vec<(Job, Result<(), ServiceError>)>,
    ) -> Result<Vec<Answer>, StoreError> {
        let start = Instant::now();
        self.store.begin(TransactionMode::Write)?;
        let generation = self.cache.as_ref().map(|cache| cache.generation());
        let mut answers = Vec::with_capacity(changes.len());
        for waiting in changes {
            answers.push(waiting.change.make(&mut self.store)?);
        }
        let mut deleted = Vec::new();
        let slices_start = Instant::now();
        while slices_start.elapsed() < SLICES_TIME
            && let Some(job) = self.jobs.front_mut()
        {
            let outcome = match job.progress.make_slice(&mut self.store, &mut deleted) {
                Ok(Step::Unfinished) => continue,
                Ok(Step::Finished) => Ok(()),
                Err(StepError::Refused(error)) => Err(error),
                Err(StepError::Store(error)) => return Err(error),
            };
            finished.extend(self.jobs.pop_front().map(|job| (job, outcome)));
        }
        self.store.commit()?;
        self.metrics.record_batch(changes.len(), start.elapsed());
        if let (Some(cache), Some(generation)) = (&self.cache, generation) {
            for (waiting, answer) in changes.iter().zip(&answers) {
                if let (Some(task), Answer::Unihash(decision)) = (waiting.change.task(), answer)
                    && decision.is_recorded
                {
                    cache.insert(task, &decision.unihash.as_str().into(), generation);
                }
            }
            if !deleted.is_empty() {
                cache.remove(&deleted);
            }
        }
        self.metrics.deleted.inc_by(deleted.len() as u64);
        Ok(answers)
    }

    /// Retries each change alone. Jobs that took part in the failed transaction have lost their
    /// place and are ended.
    fn retry_or_fail(&mut self, error: &StoreError, changes: Vec<Waiting>, finished: Vec<Job>) {
        let jobs = finished.len() + self.jobs.len();
        let can_retry = changes.len() > 1 || jobs > 0;
        tracing::error!(
            error = error as &dyn Error,
            changes = changes.len(),
            jobs,
            "a transaction failed"
        );
        let failure = ServiceError::from(error);
        for job in finished.into_iter().chain(self.jobs.drain(..)) {
            job.end(&Err(failure.clone()));
        }
        for waiting in changes {
            if can_retry {
                self.transact(vec![waiting]);
            } else if let Some(reply) = waiting.reply {
                reply.send(Err(failure.clone()));
            }
        }
    }
}

impl Job {
    fn end(self, outcome: &Result<(), ServiceError>) {
        let count = self.progress.count;
        for reply in self.replies {
            reply.send(outcome.clone().map(|()| count));
        }
    }
}
