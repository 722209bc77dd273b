//! The threads that read the database, each with a connection of its own.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::ServiceError;
use super::cache::Cache;
use crate::row::TaskKey;
use crate::store::{Database, OpenMode, Store, StoreError, TransactionMode};

/// The number of threads. More than one, so that a slow disk does not delay every look-up.
const READERS: usize = 4;

/// The bound of each reader's queue.
const QUEUE_MAX: usize = 1024;

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The readers. Their threads end when this is dropped.
#[derive(Debug)]
pub(super) struct Readers {
    queues: Vec<mpsc::Sender<Job>>,
    next: AtomicUsize,
    cache: Option<Arc<Cache>>,
}

impl Readers {
    /// Opens the connections and starts the threads.
    pub(super) fn start(db: &Database, cache: Option<Arc<Cache>>) -> Result<Self, StoreError> {
        let start = |number| {
            let (queue, jobs) = mpsc::channel(QUEUE_MAX);
            let (sender, opened) = std::sync::mpsc::sync_channel(1);
            let db = db.clone();
            let work = move || match db.open(OpenMode::Read) {
                Ok(store) => {
                    let _ = sender.send(Ok(()));
                    run(store, jobs);
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            };
            thread::Builder::new()
                .name(format!("hash-reader-{number}"))
                .spawn(work)
                .map_err(StoreError::Thread)?;
            let panicked = |_| StoreError::Thread(io::ErrorKind::BrokenPipe.into());
            opened.recv().map_err(panicked)?.map(|()| queue)
        };
        Ok(Self {
            queues: (0..READERS).map(start).collect::<Result<_, StoreError>>()?,
            next: AtomicUsize::new(0),
            cache,
        })
    }

    /// Reads on the thread whose turn it is.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let job = move |store: &mut Store| {
            let read = read(store).map_err(|error| {
                store.rollback();
                tracing::error!(error = &error as &dyn Error, "cannot read the database");
                ServiceError::from(&error)
            });
            let _ = reply.send(read);
        };
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let sent = self.queues[turn].send(Box::new(job)).await;
        sent.map_err(|_| ServiceError::Closed)?;
        answer.await.map_err(|_| ServiceError::Closed)?
    }

    /// Returns the recorded unihash of each task.
    pub(super) async fn unihashes(
        &self,
        tasks: Vec<TaskKey>,
    ) -> Result<Vec<Option<Arc<str>>>, ServiceError> {
        let cache = self.cache.clone();
        self.read(move |store| {
            let generation = cache.as_ref().map(|cache| cache.generation());
            store.begin(TransactionMode::Read)?;
            let mut found = Vec::with_capacity(tasks.len());
            for task in &tasks {
                let unihash = store.unihash_of(&task.method, &task.taskhash)?;
                found.push(unihash.map(|unihash| Arc::from(unihash.as_str())));
            }
            store.commit()?;
            if let (Some(cache), Some(generation)) = (&cache, generation) {
                for (task, unihash) in tasks.iter().zip(&found) {
                    if let Some(unihash) = unihash {
                        cache.insert(task, unihash, generation);
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    /// Returns for each unihash whether it is recorded.
    pub(super) async fn exist(&self, unihashes: Vec<String>) -> Result<Vec<bool>, ServiceError> {
        let cache = self.cache.clone();
        self.read(move |store| {
            let generation = cache.as_ref().map(|cache| cache.generation());
            store.begin(TransactionMode::Read)?;
            let mut exist = Vec::with_capacity(unihashes.len());
            for unihash in &unihashes {
                exist.push(store.unihash_exists(unihash)?);
            }
            store.commit()?;
            if let (Some(cache), Some(generation)) = (&cache, generation) {
                for (unihash, exists) in unihashes.iter().zip(&exist) {
                    if *exists {
                        cache.insert_unihash(&unihash.as_str().into(), generation);
                    }
                }
            }
            Ok(exist)
        })
        .await
    }
}

fn run(mut store: Store, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        job(&mut store);
    }
}
