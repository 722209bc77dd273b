//! Transfers that this coordinator waits for, and those that hosts are told of.
//!
//! Hosts have no open ports. A transfer is a row in the database with the host that sends and the address
//! of the coordinator that waits; the host finds it in the answer to a poll, at any coordinator, and
//! connects to that address. The content is never stored: bytes are passed on as the receiver takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use farm_core::HostId;
use farm_core::transfers::{TransferId, TransferOrder, Wanted};
use farm_store::{Store, StoreError};
use futures_util::stream::{BoxStream, Stream, StreamExt, unfold};
use hyper::upgrade::OnUpgrade;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use crate::secret;

/// The time within which a host must come. It is longer than a poll is held, twice.
const COME_MAX: Duration = Duration::from_secs(20);
/// The most transfers of one coordinator at a time.
const TRANSFERS_MAX: usize = 256;
/// The time without a byte after which a transfer ends. The log of a running build can be silent for long.
const SILENCE_MAX: Duration = Duration::from_mins(30);
/// The time for which a host that has failed is asked last.
const FAILED_FOR: Duration = Duration::from_mins(2);

/// The sending end of a transfer, which has come.
#[derive(Debug)]
pub enum Sender {
    /// It sends the content of a file.
    File {
        /// The status of its answer.
        status: u16,
        /// The headers.
        headers: HeaderMap,
        /// The content.
        body: Body,
        /// Dropped when the receiver has everything, or has gone.
        done: oneshot::Sender<()>,
    },
    /// It speaks the dialogue of an image.
    Dialogue(OnUpgrade),
}

/// The reason for which a transfer does not begin.
#[derive(Debug)]
pub enum OpenError {
    /// Too many are under way.
    Full,
    /// The database fails.
    Database(StoreError),
    /// The host has not come.
    Absent,
}

/// A transfer whose sender has not come yet.
#[derive(Debug)]
struct Waiting {
    host: HostId,
    sender: oneshot::Sender<Sender>,
}

/// The transfers that the hosts are told of.
type Board = BTreeMap<HostId, Vec<TransferOrder>>;

/// The transfers of a coordinator.
#[derive(Debug)]
pub struct Transfers {
    store: Store,
    /// The address at which hosts reach this coordinator.
    url: String,
    waiting: Mutex<BTreeMap<TransferId, Waiting>>,
    board: watch::Sender<Board>,
    told: Mutex<BTreeSet<TransferId>>,
    failed: Mutex<BTreeMap<HostId, Instant>>,
    busy: Arc<Mutex<BTreeMap<HostId, usize>>>,
    permits: Arc<Semaphore>,
}

/// A transfer whose sender has come.
#[derive(Debug)]
pub struct Opened {
    /// The sending end.
    pub sender: Sender,
    /// Its place, until it ends.
    pub place: Place,
}

/// A file that a host sends.
pub struct SentFile {
    /// The status of its answer.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The content.
    pub content: BoxStream<'static, Result<Bytes, String>>,
}

impl Opened {
    /// Returns the file that the host sends; `None` if it sends something else.
    pub fn into_file(self) -> Option<SentFile> {
        let Sender::File {
            status,
            headers,
            body,
            done,
        } = self.sender
        else {
            return None;
        };
        Some(SentFile {
            status,
            headers,
            content: passed_on(body, done, self.place).boxed(),
        })
    }
}

/// Passes a body on. It ends with an error if it was cut, so that the receiver notices.
fn passed_on(
    body: Body,
    done: oneshot::Sender<()>,
    place: Place,
) -> impl Stream<Item = Result<Bytes, String>> {
    let state = Some((body.into_data_stream(), done, place));
    unfold(state, |state| async {
        let (mut stream, done, place) = state?;
        match timeout(SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some((stream, done, place)))),
            Ok(Some(Err(error))) => Some((Err(error.to_string()), None)),
            Err(_) => Some((Err("the host is silent".to_owned()), None)),
            Ok(None) => None,
        }
    })
}

/// The place of a transfer among those of this coordinator and of its host.
#[derive(Debug)]
pub struct Place {
    host: HostId,
    busy: Arc<Mutex<BTreeMap<HostId, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut busy = locked(&self.busy);
        if let Some(count) = busy.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.host);
            }
        }
    }
}

impl Transfers {
    /// Creates the transfers of a coordinator that hosts reach at an address.
    pub fn new(store: Store, url: String) -> Self {
        Self {
            store,
            url,
            waiting: Mutex::default(),
            board: watch::Sender::default(),
            told: Mutex::default(),
            failed: Mutex::default(),
            busy: Arc::default(),
            permits: Arc::new(Semaphore::new(TRANSFERS_MAX)),
        }
    }

    /// Asks a host to send something, and waits until it has come.
    ///
    /// # Errors
    /// It does not come, or cannot be asked.
    pub async fn open(&self, host: HostId, wanted: Wanted) -> Result<Opened, OpenError> {
        let place = self.place(host)?;
        let id = secret::random().map_err(|_| OpenError::Full)?;
        let id = TransferId(id);
        let (sender, come) = oneshot::channel();
        locked(&self.waiting).insert(id.clone(), Waiting { host, sender });
        let _waiting = Withdrawn(self, &id);
        let order = TransferOrder {
            id: id.clone(),
            coordinator: self.url.clone(),
            wanted,
        };
        let opened = self.store.open_transfer(host, &order).await;
        opened.map_err(OpenError::Database)?;
        self.refresh().await;
        let come = timeout(COME_MAX, come).await;
        // A row that stays is forgotten by all coordinators after a minute.
        let _ = self.store.close_transfer(&id).await;
        self.refresh().await;
        if let Ok(Ok(sender)) = come {
            locked(&self.failed).remove(&host);
            return Ok(Opened { sender, place });
        }
        locked(&self.failed).insert(host, Instant::now());
        Err(OpenError::Absent)
    }

    fn place(&self, host: HostId) -> Result<Place, OpenError> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.try_acquire_owned().map_err(|_| OpenError::Full)?;
        *locked(&self.busy).entry(host).or_default() += 1;
        Ok(Place {
            host,
            busy: Arc::clone(&self.busy),
            _permit: permit,
        })
    }

    /// Takes a transfer for the host that has come to send it. Returns `None` if nobody waits for it, or
    /// if it is not the host's.
    pub fn take(&self, id: &TransferId, host: HostId) -> Option<oneshot::Sender<Sender>> {
        let mut waiting = locked(&self.waiting);
        if waiting.get(id)?.host != host {
            warn!(host = host.0, "refused a transfer of another host");
            return None;
        }
        waiting.remove(id).map(|it| it.sender)
    }

    /// Reads the transfers that coordinators wait for.
    pub async fn refresh(&self) {
        let Ok(rows) = self.store.transfers().await else {
            return;
        };
        let ids: BTreeSet<_> = rows.iter().map(|(_, it)| it.id.clone()).collect();
        locked(&self.told).retain(|it| ids.contains(it));
        let mut board = Board::new();
        for (host, order) in rows {
            board.entry(host).or_default().push(order);
        }
        self.board.send_if_modified(|known| {
            let changed = *known != board;
            *known = board;
            changed
        });
    }

    /// Waits until there is a transfer that a host was not told of here.
    pub async fn news(&self, host: HostId) {
        let mut board = self.board.subscribe();
        let is_news = |board: &Board| {
            let told = locked(&self.told);
            let orders = board.get(&host);
            orders.is_some_and(|orders| orders.iter().any(|it| !told.contains(&it.id)))
        };
        // The sender lives as long as this object.
        let _ = board.wait_for(is_news).await;
    }

    /// Returns the transfers that a host is told of.
    pub fn orders(&self, host: HostId) -> Vec<TransferOrder> {
        let orders = self.board.borrow().get(&host).cloned().unwrap_or_default();
        let ids = orders.iter().map(|it| it.id.clone());
        locked(&self.told).extend(ids);
        orders
    }

    /// Returns the hosts that have not come lately.
    pub fn failed(&self) -> BTreeSet<HostId> {
        let mut failed = locked(&self.failed);
        failed.retain(|_, since| since.elapsed() < FAILED_FOR);
        failed.keys().copied().collect()
    }

    /// Returns the numbers of transfers from hosts to this coordinator.
    pub fn sending(&self) -> BTreeMap<HostId, usize> {
        locked(&self.busy).clone()
    }
}

/// Removes a transfer when nobody waits for its sender any more.
struct Withdrawn<'a>(&'a Transfers, &'a TransferId);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        locked(&self.0.waiting).remove(self.1);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
