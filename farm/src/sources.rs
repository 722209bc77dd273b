//! The sources of builds: this coordinator keeps files, gets them from others, and forgets them.
//!
//! The rules are those of [`farm_core::copies`]; the database says which coordinators have which.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use config::task::Digest;
use farm_core::Moment;
use farm_core::copies::{Attendance, CoordinatorName, Copying, Keepers};
use farm_core::operation::{Answer, Operation};
use farm_store::{Store, StoreError};
use futures_util::stream::Stream;
use tokio_util::io::ReaderStream;
use tracing::{error, info, warn};

mod peers;
mod shelf;

use peers::Peers;
pub use shelf::PutError;
use shelf::Shelf;

/// The time without a beat after which another coordinator counts as dead.
const PATIENCE_MS: u64 = 10_000;
/// The size of a part of a file that is sent.
const PART: usize = 64 * 1024;
/// The milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The settings of a coordinator's sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The directory; `None` if this coordinator keeps none.
    pub directory: Option<PathBuf>,
    /// The largest source, in bytes.
    pub bytes_max: u64,
    /// The days for which a source is kept that no unfinished build names.
    pub keep_days: u32,
    /// A file with certificates by which other coordinators are checked.
    pub ca: Option<PathBuf>,
}

impl Rules {
    /// Checks that the directory can be written to, and has room for the largest source. One that does not
    /// exist is made when the coordinator starts, below a directory that exists.
    ///
    /// # Errors
    /// It cannot be used.
    pub async fn check(&self) -> Result<(), PutError> {
        let Some(directory) = self.directory.clone() else {
            return Ok(());
        };
        shelf::check(directory, self.bytes_max).await
    }
}

/// A reason not to keep sources at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] PutError),
    /// The other coordinators cannot be asked.
    #[error("{0}")]
    Peers(String),
    /// The database cannot be told which files are there.
    #[error(transparent)]
    Files(#[from] SourceError),
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A failure of a request for a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// This coordinator keeps none.
    #[error("coordinator {0} keeps no sources; the setting `sources.directory` makes it keep them")]
    NotKept(CoordinatorName),
    /// It cannot be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// No coordinator has it.
    #[error("source {0} is on no coordinator that is alive")]
    Nowhere(Digest),
    /// The coordinators that have it did not send it.
    #[error("source {0} could not be fetched: {1}")]
    NotSent(Digest, String),
    /// The database does not answer.
    #[error("the database of the farm does not answer; repeat the request")]
    Unavailable,
}

fn note_failure(digest: &Digest, from: &CoordinatorName, error: &SourceError) {
    let error = error as &dyn std::error::Error;
    warn!(%digest, %from, error, "cannot get a source");
}

/// The content of a source.
#[derive(Debug)]
pub struct Content {
    /// Its size, if it is known.
    pub length: Option<HeaderValue>,
    /// The bytes.
    pub body: Body,
}

/// The sources of a coordinator.
#[derive(Debug)]
pub struct Sources {
    store: Store,
    own: CoordinatorName,
    shelf: Option<Shelf>,
    peers: Peers,
    keep_days: u32,
    attendance: Mutex<Attendance>,
    /// Held while a file and its row change together.
    placing: tokio::sync::Mutex<()>,
}

impl Sources {
    /// Registers a coordinator, and tells the database which files it has.
    ///
    /// # Errors
    /// The directory or the certificates cannot be used, or the database fails.
    pub async fn open(store: Store, url: String, rules: Rules) -> Result<Self, OpenError> {
        let shelf = match rules.directory {
            Some(directory) => Some(Shelf::open(directory, rules.bytes_max).await?),
            None => None,
        };
        let peers = Peers::new(rules.ca.as_deref()).map_err(OpenError::Peers)?;
        let own = CoordinatorName(url);
        store
            .register(&own, peers.key_hash(), shelf.is_some())
            .await?;
        let sources = Self {
            store,
            own,
            shelf,
            peers,
            keep_days: rules.keep_days,
            attendance: Mutex::default(),
            placing: tokio::sync::Mutex::default(),
        };
        sources.compare().await?;
        sources.attend(Moment(0)).await;
        Ok(sources)
    }

    /// Makes the rows of this coordinator those of its files.
    async fn compare(&self) -> Result<(), SourceError> {
        let files = match &self.shelf {
            Some(disk) => disk.list().await?,
            None => Vec::new(),
        };
        let kept = self.store.kept(&self.own).await;
        let kept = kept.map_err(|_| SourceError::Unavailable)?;
        for digest in files.iter().filter(|it| !kept.contains_key(*it)) {
            let keep = Operation::Keep(digest.clone(), self.own.clone());
            self.tell(keep).await?;
        }
        for digest in kept.keys().filter(|it| !files.contains(it)) {
            let lose = Operation::Lose(digest.clone(), self.own.clone());
            self.tell(lose).await?;
        }
        Ok(())
    }

    async fn tell(&self, operation: Operation) -> Result<Answer, SourceError> {
        let answer = self.store.apply(&operation).await;
        answer.map_err(|_| SourceError::Unavailable)
    }

    fn shelf(&self) -> Result<&Shelf, SourceError> {
        let none = || SourceError::NotKept(self.own.clone());
        self.shelf.as_ref().ok_or_else(none)
    }

    /// Stores a source that a client uploads, or that comes from another coordinator.
    ///
    /// # Errors
    /// It is not the source, or cannot be stored.
    pub async fn put<E: std::fmt::Display>(
        &self,
        digest: &Digest,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), SourceError> {
        let disk = self.shelf()?;
        let arrived = disk.receive(digest.clone(), content).await?;
        let _placing = self.placing.lock().await;
        disk.publish(arrived).await?;
        // Without an answer the file is found by the next start, or by a repetition.
        self.tell(Operation::Keep(digest.clone(), self.own.clone()))
            .await?;
        Ok(())
    }

    /// Returns true if a client that has a source of some size uploads it here: no coordinator that is alive
    /// has it.
    ///
    /// # Errors
    /// There is no room for it, or the database fails.
    pub async fn is_wanted(&self, digest: &Digest, bytes: u64) -> Result<bool, SourceError> {
        if !self.holders(digest).await?.is_empty() {
            return Ok(false);
        }
        self.shelf()?.check_room(bytes).await?;
        Ok(true)
    }

    /// Returns the coordinators that have a source and were seen lately, this one first.
    async fn holders(&self, digest: &Digest) -> Result<Vec<CoordinatorName>, SourceError> {
        let shelves = self.store.shelves(std::slice::from_ref(digest)).await;
        let shelves = shelves.map_err(|_| SourceError::Unavailable)?;
        let holders = shelves.copies.into_values().flatten();
        let mut alive: Vec<_> = holders.filter(|it| shelves.alive.contains(it)).collect();
        alive.sort_by_key(|it| *it != self.own);
        Ok(alive)
    }

    /// Returns the content of this coordinator's own file of a source.
    ///
    /// # Errors
    /// It has none.
    pub async fn own(&self, digest: &Digest) -> Result<Content, SourceError> {
        let disk = self.shelf()?;
        let Some((file, bytes)) = disk.get(digest).await? else {
            self.miss(disk, digest).await?;
            return Err(SourceError::Nowhere(digest.clone()));
        };
        let (file, is_whole) = disk.verify(file, digest).await?;
        if !is_whole {
            error!(%digest, "the file of a source has changed on the disk; deleted it");
            disk.remove(digest).await?;
            self.miss(disk, digest).await?;
            return Err(SourceError::Nowhere(digest.clone()));
        }
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PART);
        Ok(Content {
            length: Some(HeaderValue::from(bytes)),
            body: Body::from_stream(stream),
        })
    }

    /// Notes that this coordinator lacks a source, in case that the database believes otherwise: its client
    /// is asked to upload it again then.
    async fn miss(&self, disk: &Shelf, digest: &Digest) -> Result<(), SourceError> {
        let _placing = self.placing.lock().await;
        if disk.get(digest).await?.is_none() {
            self.tell(Operation::Lose(digest.clone(), self.own.clone()))
                .await?;
        }
        Ok(())
    }

    /// Returns the content of a source, from this coordinator or through it from another one.
    ///
    /// # Errors
    /// No coordinator that is alive has it.
    pub async fn get(&self, digest: &Digest) -> Result<Content, SourceError> {
        match self.own(digest).await {
            Ok(content) => return Ok(content),
            Err(SourceError::Nowhere(_) | SourceError::NotKept(_)) => {}
            Err(error) => note_failure(digest, &self.own, &error),
        }
        match self.fetch(digest).await {
            Ok(()) => self.own(digest).await,
            // What cannot be kept here is passed on.
            Err(
                SourceError::NotKept(_)
                | SourceError::Put(PutError::Full(_) | PutError::TooLarge(_) | PutError::Disk { .. }),
            ) => self.pass_on(digest).await,
            Err(error) => Err(error),
        }
    }

    /// Gets a source from another coordinator, unless this one has it.
    ///
    /// # Errors
    /// None has it, or it cannot be stored here.
    pub async fn fetch(&self, digest: &Digest) -> Result<(), SourceError> {
        let disk = self.shelf()?;
        if disk.get(digest).await?.is_some() {
            return Ok(());
        }
        let mut failure = None;
        for holder in self.holders(digest).await? {
            if holder == self.own {
                self.miss(disk, digest).await?;
                continue;
            }
            let sent = match self.peers.get(&holder, digest).await {
                Ok(answer) => self.put(digest, peers::content(answer)).await,
                Err(reason) => Err(SourceError::NotSent(digest.clone(), reason)),
            };
            match sent {
                Ok(()) => {
                    info!(%digest, from = %holder, "got a source from another coordinator");
                    return Ok(());
                }
                Err(error) => {
                    note_failure(digest, &holder, &error);
                    if matches!(error, SourceError::Put(PutError::Wrong { .. })) {
                        self.tell(Operation::Lose(digest.clone(), holder)).await?;
                    }
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| SourceError::Nowhere(digest.clone())))
    }

    async fn pass_on(&self, digest: &Digest) -> Result<Content, SourceError> {
        let mut failure = SourceError::Nowhere(digest.clone());
        for holder in self.holders(digest).await? {
            match self.peers.get(&holder, digest).await {
                Ok(answer) => {
                    return Ok(Content {
                        length: peers::length(&answer),
                        body: Body::from_stream(peers::content(answer)),
                    });
                }
                Err(reason) => failure = SourceError::NotSent(digest.clone(), reason),
            }
        }
        Err(failure)
    }

    /// Makes a copy that a submission needs.
    ///
    /// # Errors
    /// The reason for which it could not be made.
    pub async fn copy(&self, copying: &Copying) -> Result<(), String> {
        let Copying { digest, to, .. } = copying;
        if *to == self.own {
            return self.fetch(digest).await.map_err(|it| it.to_string());
        }
        self.peers.order(to, digest).await
    }

    /// Returns the size of the files of this coordinator, in bytes; 0 if it keeps none.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn bytes(&self) -> Result<u64, PutError> {
        match &self.shelf {
            Some(disk) => disk.bytes().await,
            None => Ok(0),
        }
    }

    /// Gives a sign of life, and notes those of the others.
    pub async fn attend(&self, now: Moment) {
        let attend = Operation::Attend(self.own.clone());
        if let Ok(Answer::Attending(beats)) = self.store.apply(&attend).await {
            self.attendance().observe(now, &beats);
        }
    }

    /// Returns the coordinators that keep sources, as this one sees them.
    pub fn keepers(&self, now: Moment) -> Keepers {
        let mut alive = self.attendance().alive(now, PATIENCE_MS);
        if self.shelf.is_some() {
            alive.insert(self.own.clone());
        }
        Keepers {
            own: Some(self.own.clone()),
            alive,
        }
    }

    /// Forgets the sources that were not needed for the days of the settings, and deletes the files of
    /// those that are forgotten.
    ///
    /// # Errors
    /// The database or the disk fails. The next round continues.
    pub async fn clean(&self) -> Result<(), SourceError> {
        let age_ms = u64::from(self.keep_days).saturating_mul(DAY_MS);
        self.tell(Operation::Expire(age_ms)).await?;
        let Some(disk) = &self.shelf else {
            return Ok(());
        };
        let kept = self.store.kept(&self.own).await;
        let kept = kept.map_err(|_| SourceError::Unavailable)?;
        for digest in kept.into_iter().filter(|(_, is_known)| !is_known) {
            let digest = digest.0;
            // No upload gives the file its name meanwhile.
            let _placing = self.placing.lock().await;
            let discard = Operation::Discard(digest.clone(), self.own.clone());
            if self.tell(discard).await? == Answer::Done {
                disk.remove(&digest).await?;
                info!(%digest, "deleted a source that no build needs");
            }
        }
        Ok(())
    }

    fn attendance(&self) -> MutexGuard<'_, Attendance> {
        self.attendance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
