//! The uploads of a coordinator: it asks hosts for the files of builds that have ended, and puts them into
//! the object store.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use config::builds::Artifact;
use farm_core::archive::{Archive, ArchivedFile, Attempt, BuildFile, TAKEN_MS, Upload};
use farm_core::operation::{Answer, Operation};
use farm_objects::{Objects, PutError};
use futures_util::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use tokio::time::{interval, sleep};
use tracing::{info, warn};

use super::Coordinator;
use crate::transfers::{OpenError, SentFile};

/// The most uploads of one coordinator at a time.
const UPLOADS_MAX: usize = 4;
/// The time between two looks for uploads.
const LOOK: Duration = Duration::from_secs(1);
/// The largest list of artifacts.
const LIST_MAX: usize = 16 << 20;

/// The reason for which files are not in the object store.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The host does not have the build any more.
    #[error("the host does not have the build any more")]
    Gone,
    /// The host does not send in time.
    #[error("the host {0}")]
    Host(&'static str),
    /// The host refuses.
    #[error("the host answers with status {0}")]
    Status(u16),
    /// The list of artifacts is not understood.
    #[error("the list of artifacts cannot be read: {0}")]
    List(String),
    /// An artifact is another one than the list has.
    #[error("the host has sent something else than artifact {0}")]
    Differs(config::FileName),
    /// The store fails, or the content was cut.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl Coordinator {
    /// Puts the files of builds that have ended into the object store, until the future is dropped. Without
    /// an object store it does nothing.
    pub async fn archive(&self) {
        let Some(objects) = &self.objects else {
            return std::future::pending().await;
        };
        let mut running = FuturesUnordered::new();
        loop {
            if running.len() < UPLOADS_MAX {
                for upload in self.take_uploads(UPLOADS_MAX - running.len()).await {
                    running.push(self.upload(objects, upload));
                }
            }
            tokio::select! {
                Some(()) = running.next() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn take_uploads(&self, most: usize) -> Vec<Upload> {
        let take = Operation::TakeUploads {
            most: most as u64,
            taken_ms: TAKEN_MS,
        };
        match self.ask(&take).await {
            Some(Answer::Uploads(uploads)) => uploads,
            _ => Vec::new(),
        }
    }

    async fn ask(&self, operation: &Operation) -> Option<Answer> {
        let answer = self.store.apply(operation).await;
        self.counters.count(operation, &answer);
        answer.ok()
    }

    /// Makes one attempt, and records how it ended. What is not recorded is repeated.
    async fn upload(&self, objects: &Objects, upload: Upload) {
        let put = tokio::select! {
            put = self.put_files(objects, upload) => put,
            never = self.keep(upload) => never,
        };
        let (build, host) = (upload.lease.build, upload.host.0);
        let attempt = match put {
            Ok(archive) => Attempt::Stored(archive),
            Err(Failure::Gone) => {
                warn!(%build, host, "the files of a build are lost: its host does not have them any more");
                Attempt::Gone
            }
            Err(failure) => {
                let ms = upload.pause_ms();
                let error = &failure as &dyn std::error::Error;
                warn!(%build, host, attempt = upload.attempt, pause_ms = ms, error,
                    "cannot put the files of a build into the object store; trying again");
                Attempt::Failed
            }
        };
        let has_failed = attempt == Attempt::Failed;
        self.ask(&Operation::after(upload, attempt)).await;
        if has_failed {
            self.counters.upload_failed();
        }
    }

    /// Keeps an upload from being taken by others while it is under way.
    async fn keep(&self, upload: Upload) -> Result<Archive, Failure> {
        let mut ticks = interval(Duration::from_millis(TAKEN_MS / 3));
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let ms = TAKEN_MS;
            self.ask(&Operation::DeferUpload { upload, ms }).await;
        }
    }

    async fn put_files(&self, objects: &Objects, upload: Upload) -> Result<Archive, Failure> {
        let folder = upload.folder();
        let mut files = BTreeMap::new();
        let transfer = async |file: &BuildFile| {
            let sent = self.file(upload, file).await?;
            put(objects, &folder, file, sent).await
        };
        files.insert(BuildFile::Log.name(), transfer(&BuildFile::Log).await?);
        let list = self.file(upload, &BuildFile::List).await?;
        let (list, artifacts) = read_list(list).await?;
        let list = put(objects, &folder, &BuildFile::List, list).await?;
        files.insert(BuildFile::List.name(), list);
        for artifact in artifacts {
            let file = BuildFile::Artifact(artifact.name.clone());
            let stored = transfer(&file).await?;
            if (stored.bytes, &stored.sha256) != (artifact.bytes, &artifact.sha256) {
                return Err(Failure::Differs(artifact.name));
            }
            files.insert(file.name(), stored);
        }
        info!(build = %upload.lease.build, files = files.len(), "the files of a build are in the object store");
        Ok(Archive { folder, files })
    }

    /// Asks the host for a file.
    async fn file(&self, upload: Upload, file: &BuildFile) -> Result<SentFile, Failure> {
        if !self.alive().hosts.contains_key(&upload.host) {
            return Err(Failure::Host("gives no sign of life"));
        }
        let opened = self.transfers.open(upload.host, file.wanted(upload.lease));
        let opened = opened.await.map_err(|error| match error {
            OpenError::Full => Failure::Host("cannot be asked: too many transfers are under way"),
            OpenError::Database(_) => Failure::Host("cannot be asked: the database fails"),
            OpenError::Absent => Failure::Host("did not send in time"),
        })?;
        let sent = opened.into_file();
        let sent = sent.ok_or(Failure::Host("has sent something else"))?;
        match (sent.status, file) {
            (200, _) => Ok(sent),
            (404, BuildFile::Log) => Err(Failure::Gone),
            (status, _) => Err(Failure::Status(status)),
        }
    }
}

async fn put(
    objects: &Objects,
    folder: &str,
    file: &BuildFile,
    sent: SentFile,
) -> Result<ArchivedFile, Failure> {
    let media_type = media_type(&sent);
    let name = format!("{folder}/{}", file.name());
    let stored = objects.put(&name, sent.content).await?;
    Ok(ArchivedFile {
        bytes: stored.bytes,
        sha256: stored.sha256,
        media_type,
    })
}

/// Reads the list of artifacts.
async fn read_list(sent: SentFile) -> Result<(SentFile, Vec<Artifact>), Failure> {
    let SentFile {
        status,
        headers,
        mut content,
    } = sent;
    let mut text = Vec::new();
    while let Some(piece) = content.try_next().await.map_err(PutError::Content)? {
        text.extend_from_slice(&piece);
        if text.len() > LIST_MAX {
            return Err(Failure::List("it is too long".to_owned()));
        }
    }
    let artifacts = serde_json::from_slice(&text);
    let artifacts = artifacts.map_err(|error| Failure::List(error.to_string()))?;
    let content = futures_util::stream::iter([Ok(text.into())]).boxed();
    let list = SentFile {
        status,
        headers,
        content,
    };
    Ok((list, artifacts))
}

fn media_type(sent: &SentFile) -> String {
    let value = sent.headers.get(CONTENT_TYPE);
    value
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}
