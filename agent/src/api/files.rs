//! Uploads of sources, and downloads of logs, artifacts and provenance.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::builds::{
    Build, LogPosition, LogTime, PROVENANCE, SIGNED_PROVENANCE, State as BuildState,
};
use config::task::Digest;
use config::text::join_and;
use config::{BuildId, FileName};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde::Deserialize;
use session::line_times;
use signer::statement;
use sys::blocking::blocking;
use sys::file::Hasher;
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;

use super::builds::find;
use super::console::auxiliary_tag;
use super::error::ApiError;
use state::AgentState;
use state::paths::{
    ARTIFACTS, CONSOLE, LOG_TIMES, attempt_directory, attempts, auxiliary_directory, log_in,
};

/// The interval at which a followed log is read.
pub(super) const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// The media type of an envelope.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The size of a piece of a file that is sent.
const PIECE: usize = 64 * 1024;

/// Stores a source under its hash.
pub(super) async fn put_source(
    State(agent): State<Arc<AgentState>>,
    digest: Result<Path<Digest>, PathRejection>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let Path(digest) = digest?;
    let directory = agent.paths.sources();
    let path = directory.join(digest.as_str());
    let (file, exists) = {
        let path = path.clone();
        blocking(move || NamedTempFile::new_in(directory).map(|file| (file, path.exists()))).await?
    };
    // The body of a known source is read, too: a client reads no response while it sends.
    let bytes_max = agent.settings().builds.sources_bytes_max;
    let (file, found) = receive(file, body, bytes_max).await?;
    if found != digest {
        return Err(ApiError::bad_request(format!(
            "the content has the hash {found}, not {digest}; nothing was stored"
        )));
    }
    // A known source is replaced, too, so that its age says when it was last needed.
    blocking(move || sys::file::publish(file, &path)).await?;
    Ok(if exists {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    })
}

/// Returns the content of a source.
pub(super) async fn source(
    State(agent): State<Arc<AgentState>>,
    digest: Result<Path<Digest>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(digest) = digest?;
    let (directory, name) = (agent.paths.sources(), digest.to_string());
    match blocking(move || open_source(&directory, &name)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ApiError::not_found(format!(
            "the source {digest} is not here: sources are deleted a day after the last build that names them"
        ))),
        opened => {
            let (file, bytes) = opened?;
            Ok(download(file, bytes))
        }
    }
}

/// Opens a source, and returns its size as well. Blocks.
fn open_source(directory: &std::path::Path, name: &str) -> io::Result<(std::fs::File, u64)> {
    let file = sys::untrusted::open(directory, name)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Returns the content of a file, with its size, so that a client notices an early end.
fn download(file: std::fs::File, bytes: u64) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    let stream = ReaderStream::with_capacity(File::from_std(file), PIECE);
    (headers, Body::from_stream(stream)).into_response()
}

async fn receive(
    mut file: NamedTempFile,
    mut body: Body,
    bytes_max: u64,
) -> Result<(NamedTempFile, Digest), ApiError> {
    let mut hash = Hasher::default();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("the content ended early: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        bytes += data.len() as u64;
        if bytes > bytes_max {
            return Err(ApiError::payload_too_large(format!(
                "a source may have at most {bytes_max} bytes"
            )));
        }
        hash.update(&data);
        file = blocking(move || file.write_all(&data).map(|()| file)).await?;
    }
    Ok((file, hash.finish()))
}

/// The requested part of a log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// The first byte.
    #[serde(default)]
    offset: u64,
    /// Waits for more until the build has finished.
    #[serde(default)]
    follow: bool,
    /// An earlier attempt instead of the last one.
    attempt: Option<u32>,
    /// The output of the console instead of the log.
    #[serde(default)]
    console: bool,
    /// The output of the console of an auxiliary guest, by its number, instead of the log.
    auxiliary: Option<u8>,
}

impl LogQuery {
    fn selected(&self) -> Selected {
        match self.auxiliary {
            Some(number) => Selected::Auxiliary(number),
            None if self.console => Selected::Console,
            None => Selected::Log,
        }
    }
}

/// An output of the guests of a build.
#[derive(Debug, Clone, Copy)]
enum Selected {
    Log,
    Console,
    Auxiliary(u8),
}

/// The attempt whose times are requested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptQuery {
    /// An earlier attempt instead of the last one.
    attempt: Option<u32>,
}

/// Returns the times at which the parts of a log arrived.
pub(super) async fn log_times(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<AttemptQuery>, QueryRejection>,
) -> Result<Json<Vec<LogTime>>, ApiError> {
    let (Path(id), Query(query)) = (id?, query?);
    let path = log_directory(&agent, id, query.attempt)
        .await?
        .join(LOG_TIMES);
    let text = match blocking(move || sys::trusted::read_text(path)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let times = line_times::parse(&text).filter_map(|(offset, milliseconds)| {
        let at = Timestamp::from_millisecond(milliseconds).ok()?;
        Some(LogTime { offset, at })
    });
    Ok(Json(times.collect()))
}

/// Returns the directory with the log of an attempt, the last one if `attempt` is `None`.
pub(super) async fn log_directory(
    agent: &AgentState,
    id: BuildId,
    attempt: Option<u32>,
) -> Result<PathBuf, ApiError> {
    let build = find(agent, id).await?;
    let directory = agent.paths.build(id);
    let Some(attempt) = attempt else {
        return Ok(directory);
    };
    let found = blocking(move || directory_of_attempt(&directory, build.attempts, attempt)).await;
    let kept = match found {
        Ok(directory) => return Ok(directory),
        Err(kept) => kept,
    };
    let detail = if kept.is_empty() {
        format!("build {id} has no logs of earlier attempts")
    } else {
        let kept = join_and(&kept);
        format!("build {id} has no log of attempt {attempt}; it has those of {kept}")
    };
    Err(ApiError::not_found(detail))
}

/// Returns the directory with the log of an attempt at a build of which `counted` were counted. If
/// it has none, returns the attempts whose logs are kept. Blocks.
fn directory_of_attempt(
    build: &std::path::Path,
    counted: u32,
    attempt: u32,
) -> Result<PathBuf, Vec<u32>> {
    let kept = attempts(build).unwrap_or_default();
    // After an interruption, which is not counted, the last log is that of another attempt.
    if kept.contains(&attempt) {
        Ok(attempt_directory(build, attempt))
    } else if attempt == counted {
        Ok(build.to_owned())
    } else {
        Err(kept)
    }
}

/// Returns the log of a build from an offset on; with `follow`, until the build has finished.
pub(super) async fn log(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(id), Query(query)) = (id?, query?);
    log_directory(&agent, id, query.attempt).await?;
    if let Some(number) = query.auxiliary {
        auxiliary_tag(&find(&agent, id).await?, number)?;
    }
    let (reader, writer) = tokio::io::duplex(PIECE);
    let sent = tokio::spawn(send_log(agent, id, query, writer));
    // If the log cannot be read, the body ends with the error: one that is cut is no short log.
    let end = stream::once(sent).filter_map(async |sent| match sent {
        Ok(sent) => sent.err().map(Err),
        Err(error) => Some(Err(io::Error::other(error))),
    });
    let body = Body::from_stream(ReaderStream::new(reader).chain(end));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

async fn send_log(
    agent: Arc<AgentState>,
    id: BuildId,
    query: LogQuery,
    mut to: DuplexStream,
) -> io::Result<()> {
    let directory = agent.paths.build(id);
    let mut position = LogPosition::new(query.offset);
    loop {
        // The state is read before the log, so that the last output is not missed.
        let build = agent.records.get(id).await.map_err(io::Error::other)?;
        let is_over = build.as_ref().is_none_or(|it| is_over(it, query.attempt));
        // The log of a certain attempt stays the same when another one runs.
        let is_own = |build: &Build| query.attempt.is_none_or(|own| build.attempts <= own);
        if let Some(build) = build.filter(is_own) {
            position.follow(&build);
        }
        if let Some(log) = open_log(directory.clone(), query.attempt, query.selected()).await? {
            position.offset += copy(log, position.offset, &mut to).await?;
        }
        if is_over || !query.follow || agent.stopping.is_cancelled() {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// Returns true if the log of an attempt is complete; without a number, that of the whole build.
pub(super) fn is_over(build: &Build, attempt: Option<u32>) -> bool {
    let has_ended = |attempt: u32| match build.attempts.cmp(&attempt) {
        // An interrupted attempt is not counted, and is repeated under its number.
        Ordering::Less => false,
        Ordering::Equal => build.state == BuildState::Queued,
        Ordering::Greater => true,
    };
    build.state == BuildState::Finished || attempt.is_some_and(has_ended)
}

/// Opens the log or the console in a directory. Blocks.
fn open_log_in(
    directory: &std::path::Path,
    selected: Selected,
) -> io::Result<Option<std::fs::File>> {
    let path = match selected {
        Selected::Log => log_in(directory),
        Selected::Console => directory.join(CONSOLE),
        Selected::Auxiliary(number) => auxiliary_directory(directory, number).join(CONSOLE),
    };
    match sys::trusted::open(path) {
        Ok(log) => Ok(Some(log)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the log of an attempt, or of the last one, in the directory of a build.
async fn open_log(
    build: PathBuf,
    attempt: Option<u32>,
    selected: Selected,
) -> io::Result<Option<File>> {
    let log = blocking(move || {
        let last = open_log_in(&build, selected)?;
        // The log may have moved since, and another one taken its place.
        match attempt.map(|attempt| attempt_directory(&build, attempt)) {
            Some(own) if own.exists() => open_log_in(&own, selected),
            _ => Ok(last),
        }
    });
    Ok(log.await?.map(File::from_std))
}

/// Copies a file from an offset on and returns the number of bytes.
async fn copy(mut file: File, offset: u64, to: &mut DuplexStream) -> io::Result<u64> {
    file.seek(io::SeekFrom::Start(offset)).await?;
    let mut buffer = vec![0; PIECE];
    let mut copied = 0;
    loop {
        let count = file.read(&mut buffer).await?;
        if count == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..count]).await?;
        copied += count as u64;
    }
}

/// Returns an artifact of a build.
pub(super) async fn artifact(
    State(agent): State<Arc<AgentState>>,
    path: Result<Path<(BuildId, FileName)>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path((id, name)) = path?;
    let build = find(&agent, id).await?;
    let Some(artifact) = build
        .artifacts
        .iter()
        .find(|artifact| artifact.name == name)
    else {
        return Err(ApiError::not_found(format!(
            "build {id} has no artifact {name}"
        )));
    };
    let directory = agent.paths.build(id).join(ARTIFACTS);
    let file = blocking(move || sys::untrusted::open(&directory, &name)).await?;
    Ok(download(file, artifact.bytes))
}

/// Returns the provenance of a build's artifacts.
pub(super) async fn provenance(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let missing = "has no provenance: it has not succeeded, or has no artifacts";
    document(&agent, id, PROVENANCE, statement::TYPE, missing).await
}

/// Returns the signed provenance of a build's artifacts.
pub(super) async fn signed_provenance(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let missing = "has no signed provenance: it has not succeeded, has no artifacts, or the host had no usable key (setting provenance.keys)";
    document(&agent, id, SIGNED_PROVENANCE, ENVELOPE, missing).await
}

/// Returns a file of a build that only the host writes.
async fn document(
    agent: &AgentState,
    id: BuildId,
    name: &str,
    media_type: &'static str,
    missing: &str,
) -> Result<Response, ApiError> {
    find(agent, id).await?;
    let path = agent.paths.build(id).join(name);
    match blocking(move || sys::trusted::read(path)).await {
        Ok(text) => Ok(([(header::CONTENT_TYPE, media_type)], text).into_response()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ApiError::not_found(format!("build {id} {missing}")))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_an_interrupted_attempt_is_not_that_of_the_attempt_before() {
        let build = tempfile::tempdir().unwrap();
        let build = build.path();
        let directory = |counted, attempt| directory_of_attempt(build, counted, attempt);
        assert_eq!(directory(1, 1), Ok(build.to_owned()));
        std::fs::create_dir(attempt_directory(build, 1)).unwrap();
        assert_eq!(directory(2, 2), Ok(build.to_owned()));
        // The second attempt was interrupted.
        assert_eq!(directory(1, 1), Ok(attempt_directory(build, 1)));
        assert_eq!(directory(1, 2), Err(vec![1]));
    }
}
