//! The upstream server, which is asked for unknown hashes. It is only read.
//!
//! A server that does not respond counts as one that knows nothing, because an unknown hash only
//! costs time: then it is not asked again for a while.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::client::{Address, Client, ClientError};
use crate::protocol::{StreamMode, is_unihash};
use crate::row::{Origin, RecordedReport, RecordedUnihash, TaskKey};

/// The time limit of each reply. Clients give up after 30 seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for which a server is not asked after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// The time for which a client is kept waiting. Clients give up after 30 seconds.
const BACKFILL_WAIT_MAX: Duration = Duration::from_secs(25);

const CONNECTIONS_MAX: usize = 16;

/// The attempts of a request: one on an idle connection and one on a new connection.
const ATTEMPTS: usize = 2;

/// An upstream server and a pool of connections to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: Address,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
    failed_at: Mutex<Option<Instant>>,
    /// The number of records that were looked up and are not on disk yet.
    pending: Arc<watch::Sender<u64>>,
}

/// A connection in use.
struct Lease {
    client: Client,
    is_new: bool,
}

/// A record that is not on disk yet; counted until this is dropped.
#[derive(Debug)]
pub(crate) struct BackfillGuard(Arc<watch::Sender<u64>>);

impl Drop for BackfillGuard {
    fn drop(&mut self) {
        self.0.send_modify(|pending| *pending -= 1);
    }
}

impl Upstream {
    /// Creates a pool. The first connection is opened by the first request.
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            permits: Semaphore::new(CONNECTIONS_MAX),
            failed_at: Mutex::default(),
            pending: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Returns the unihash of each task.
    pub(crate) async fn unihashes(&self, tasks: &[TaskKey]) -> Vec<Option<String>> {
        let line = |task: &TaskKey| format!("{} {}", task.method, task.taskhash);
        let lines: Vec<String> = tasks.iter().map(line).collect();
        let answers = self
            .stream(StreamMode::Get, &lines)
            .await
            .unwrap_or_default();
        let unihash = |answer: String| is_unihash(&answer).then_some(answer);
        let mut found: Vec<_> = answers.into_iter().map(unihash).collect();
        found.resize(tasks.len(), None);
        found
    }

    /// Returns for each unihash whether it is recorded.
    pub(crate) async fn exist(&self, unihashes: &[&str]) -> Vec<bool> {
        let lines: Vec<String> = unihashes
            .iter()
            .map(|unihash| (*unihash).to_owned())
            .collect();
        let answers = self
            .stream(StreamMode::Exists, &lines)
            .await
            .unwrap_or_default();
        let mut found: Vec<bool> = answers.iter().map(|answer| answer == "true").collect();
        found.resize(unihashes.len(), false);
        found
    }

    /// Returns the first report of a task.
    pub(crate) async fn report_of(&self, task: &TaskKey) -> Option<RecordedReport> {
        let request = json!({"get": {
            "method": task.method, "taskhash": task.taskhash, "all": true,
        }});
        self.report(&request).await
    }

    /// Returns the first report with an outhash.
    pub(crate) async fn report_with(
        &self,
        task: &TaskKey,
        outhash: &str,
    ) -> Option<RecordedReport> {
        let request = json!({"get-outhash": {
            "method": task.method, "taskhash": task.taskhash, "outhash": outhash,
            "with_unihash": true,
        }});
        self.report(&request).await
    }

    /// Counts a record that is to be made.
    pub(crate) fn begin_backfill(&self) -> BackfillGuard {
        self.pending.send_modify(|pending| *pending += 1);
        BackfillGuard(Arc::clone(&self.pending))
    }

    /// Waits until all records are made, but not longer than a client waits. Returns the number of
    /// those that were missing.
    pub(crate) async fn wait_for_backfill(&self) -> u64 {
        let mut pending = self.pending.subscribe();
        let missing = *pending.borrow();
        let all_made = pending.wait_for(|pending| *pending == 0);
        let _ = timeout(BACKFILL_WAIT_MAX, all_made).await;
        missing
    }

    async fn report(&self, request: &Json) -> Option<RecordedReport> {
        let _permit = self.permits.acquire().await.ok()?;
        for _ in 0..ATTEMPTS {
            let mut lease = self.lease().await?;
            let reply = lease.client.request(request).await;
            if let Some(reply) = self.keep(lease, reply) {
                return recorded_report(&reply);
            }
        }
        None
    }

    async fn stream(&self, mode: StreamMode, lines: &[String]) -> Option<Vec<String>> {
        if lines
            .iter()
            .any(|line| line.is_empty() || line.contains(['\n', '\r']))
        {
            return None;
        }
        let _permit = self.permits.acquire().await.ok()?;
        for _ in 0..ATTEMPTS {
            let mut lease = self.lease().await?;
            let answers = lease.client.stream(mode, lines).await;
            if let Some(answers) = self.keep(lease, answers) {
                return Some(answers);
            }
        }
        None
    }

    /// Returns a connection, or `None` while the server is not asked.
    async fn lease(&self) -> Option<Lease> {
        let has_failed = lock(&self.failed_at).is_some_and(|failed| failed.elapsed() < PAUSE);
        if has_failed {
            return None;
        }
        if let Some(client) = lock(&self.idle).pop() {
            return Some(Lease {
                client,
                is_new: false,
            });
        }
        match Client::connect(&self.address, REPLY_TIMEOUT).await {
            Ok(client) => Some(Lease {
                client,
                is_new: true,
            }),
            Err(error) => {
                self.pause(&error);
                None
            }
        }
    }

    /// Keeps a connection for the next request unless it has failed. A new one that fails is the
    /// server's fault; an older one may have been closed while it was idle, as the others then.
    fn keep<T>(&self, lease: Lease, reply: Result<T, ClientError>) -> Option<T> {
        match reply {
            Ok(reply) => {
                lock(&self.idle).push(lease.client);
                return Some(reply);
            }
            Err(error) if lease.is_new => self.pause(&error),
            Err(_) => lock(&self.idle).clear(),
        }
        None
    }

    fn pause(&self, error: &ClientError) {
        *lock(&self.failed_at) = Some(Instant::now());
        let error = error as &dyn Error;
        tracing::warn!(error, upstream = %self.address, "cannot ask the upstream server");
    }
}

/// Reads a report of the server. `None` if it has none or is malformed.
fn recorded_report(reply: &Json) -> Option<RecordedReport> {
    let text = |name: &str| Some(reply.get(name)?.as_str()?.to_owned());
    let unihash = text("unihash").filter(|unihash| is_unihash(unihash))?;
    Some(RecordedReport {
        id: reply.get("id")?.as_i64()?,
        method: text("method")?,
        taskhash: text("taskhash")?,
        outhash: text("outhash")?,
        created: text("created"),
        origin: Origin {
            owner: text("owner"),
            pn: text("PN"),
            pv: text("PV"),
            pr: text("PR"),
            task: text("task"),
            outhash_siginfo: text("outhash_siginfo"),
        },
        unihash: Some(RecordedUnihash {
            unihash,
            gc_mark: text("gc_mark").unwrap_or_default(),
        }),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
