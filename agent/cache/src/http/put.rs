//! The entries that a guest puts.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use blake3::Hasher;
use config::cache::CachePath;
use http_body_util::BodyExt;
use sys::blocking::blocking;
use sys::error_report::is_full;
use telemetry::metrics::{CacheResult, TransferDirection};
use tempfile::NamedTempFile;

use super::{Guest, text};
use crate::CacheError;
use crate::cache::Cache;
use crate::journal::Content;
use crate::rules::{self, Put, ReadOnly};
use crate::staging::{Reservation, Staging, StagingError};

/// The size of a refused body that is read, because many clients read no answer while they send.
const REFUSED_BYTES_MAX: usize = 16 << 20;

/// The reason for which an entry is not taken.
#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error(transparent)]
    ReadOnly(#[from] ReadOnly),
    #[error("an entry of this cache has at most {0} bytes; its `mib_max` in the settings says so")]
    TooLarge(u64),
    #[error("the entry {0} has another content, which stays: its name stands for one content")]
    Conflict(CachePath),
    #[error("the disk of the host is full, or has only its reserve free; nothing was stored")]
    DiskFull,
    #[error("the content ended early; nothing was stored")]
    Incomplete,
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        Self::Staging(error.into())
    }
}

impl IntoResponse for PutError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::ReadOnly(_) => StatusCode::FORBIDDEN,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Incomplete => StatusCode::BAD_REQUEST,
            Self::DiskFull | Self::Staging(StagingError::Bytes(_) | StagingError::Entries) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Staging(StagingError::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Staging(StagingError::File(error)) if is_full(error.kind()) => {
                return Self::DiskFull.into_response();
            }
            Self::Staging(StagingError::File(error)) => {
                return super::failed(error).into_response();
            }
            Self::Cache(error) => return super::failed(error).into_response(),
        };
        text(status, &self.to_string())
    }
}

/// Takes an entry, or reads what is refused.
pub(super) async fn put(guest: Arc<Guest>, path: CachePath, request: Request) -> Response {
    let length = content_length(request.headers());
    let mut body = request.into_body();
    let taken = take(&guest, path, length, &mut body).await;
    let result = match &taken {
        Ok(Put::Store) => CacheResult::Put,
        Ok(Put::Same) => CacheResult::Same,
        Ok(Put::Conflict) | Err(_) => CacheResult::Refused,
    };
    guest.metrics().caches.request(guest.name(), result);
    match taken {
        Ok(Put::Store) => StatusCode::CREATED.into_response(),
        Ok(Put::Same | Put::Conflict) => StatusCode::OK.into_response(),
        Err(error) => {
            drain(&mut body).await;
            error.into_response()
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Takes an entry into the staging directory of the build.
async fn take(
    guest: &Arc<Guest>,
    path: CachePath,
    length: Option<u64>,
    body: &mut Body,
) -> Result<Put, PutError> {
    let cache = &guest.access.cache;
    let staging = guest.access.staging.as_ref().map_err(Clone::clone)?;
    let bytes_max = cache.rules().bytes_max;
    if length.is_some_and(|length| length > bytes_max) {
        return Err(PutError::TooLarge(bytes_max));
    }
    let mut incoming = {
        let (cache, staging) = (Arc::clone(cache), Arc::clone(staging));
        let begin = move || Incoming::begin(&cache, &staging, length.unwrap_or_default());
        blocking(begin).await?
    };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| PutError::Incomplete)?.into_data() else {
            continue;
        };
        guest.observer.observe();
        let bytes = data.len() as u64;
        incoming = blocking(move || incoming.write(&data)).await?;
        let (name, caches) = (guest.name(), &guest.metrics().caches);
        caches.bytes(name, TransferDirection::Written, bytes);
    }
    blocking(move || incoming.finish(path)).await
}

/// Reads the rest of a body up to a limit.
async fn drain(body: &mut Body) {
    let mut bytes = 0;
    while bytes < REFUSED_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// An entry that arrives.
struct Incoming {
    cache: Arc<Cache>,
    staging: Arc<Staging>,
    space: Reservation,
    file: NamedTempFile,
    hasher: Hasher,
}

impl Incoming {
    fn begin(cache: &Arc<Cache>, staging: &Arc<Staging>, length: u64) -> Result<Self, PutError> {
        check_space(cache, length)?;
        let (space, file) = staging.begin()?;
        Ok(Self {
            cache: Arc::clone(cache),
            staging: Arc::clone(staging),
            space,
            file,
            hasher: Hasher::new(),
        })
    }

    fn write(mut self, data: &[u8]) -> Result<Self, PutError> {
        self.space.grow(data.len() as u64)?;
        check_space(&self.cache, data.len() as u64)?;
        self.file.write_all(data)?;
        self.hasher.update(data);
        Ok(self)
    }

    /// Adds the entry to those of the build, unless the entry of this name stays.
    fn finish(self, path: CachePath) -> Result<Put, PutError> {
        let content = Content {
            hash: self.hasher.finalize().into(),
            bytes: self.hasher.count(),
        };
        let own = self.staging.find(&path).map(|(_, content)| content.hash);
        let known = match own {
            Some(own) => Some(own),
            None => self.cache.hash_of(&path)?,
        };
        match rules::put(path.area(), known, content.hash) {
            Put::Store => {
                let staging = Arc::clone(&self.staging);
                staging.commit(self.space, self.file, path, content)?;
                Ok(Put::Store)
            }
            Put::Same => Ok(Put::Same),
            Put::Conflict => Err(PutError::Conflict(path)),
        }
    }
}

fn check_space(cache: &Cache, bytes: u64) -> Result<(), PutError> {
    if cache.has_space_for(bytes)? {
        Ok(())
    } else {
        Err(PutError::DiskFull)
    }
}
