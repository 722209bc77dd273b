//! Requests that move files: sources in, logs and artifacts out.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use config::builds::State as BuildState;
use config::task::Digest;
use config::{BuildId, FileName};
use http_body_util::BodyExt;
use serde::Deserialize;
use sys::file::Hasher;
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;

use super::builds::find;
use super::error::ApiError;
use crate::blocking;
use crate::jobs::build::PROVENANCE;
use crate::state::AgentState;
use crate::state::paths::ARTIFACTS;

/// How often a log that is followed is looked at.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);
/// How much of a file is on its way at once.
const PIECE: usize = 64 * 1024;

/// Takes the content of a source, and keeps it under its hash.
pub(super) async fn hand_in(
    State(agent): State<Arc<AgentState>>,
    digest: Result<Path<Digest>, PathRejection>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let Path(digest) = digest?;
    let directory = agent.paths.sources();
    let path = directory.join(digest.as_str());
    // Received even when it is here already: a client that still sends hears nothing.
    let there = path.exists();
    let bytes_max = agent.settings.builds.sources_bytes_max;
    let (file, found) = receive(NamedTempFile::new_in(&directory)?, body, bytes_max).await?;
    if found != digest {
        return Err(ApiError::bad_request(format!(
            "the content has the hash {found}, not {digest}; nothing was kept"
        )));
    }
    // Put in permit again even then: its age tells that somebody has just wanted it.
    blocking(move || sys::file::publish(file, &path)).await?;
    Ok(if there {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    })
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
            .map_err(|error| ApiError::bad_request(format!("the content was cut off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        bytes += data.len() as u64;
        if bytes > bytes_max {
            return Err(ApiError::payload_too_large(format!(
                "a source may have {bytes_max} bytes"
            )));
        }
        hash.update(&data);
        file = blocking(move || file.write_all(&data).map(|()| file)).await?;
    }
    Ok((file, hash.finish()))
}

/// Which part of a log, and whether to wait for more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    follow: bool,
}

/// The log of a build from an offset on; with `follow`, until the build is over.
pub(super) async fn log(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(id), Query(part)) = (id?, part?);
    find(&agent, id).await?;
    let (reader, writer) = tokio::io::duplex(PIECE);
    tokio::spawn(async move {
        // An error here is a client that has left, or a log that cannot be read on.
        let _ = send_log(&agent, id, part, writer).await;
    });
    let body = Body::from_stream(ReaderStream::new(reader));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

async fn send_log(
    agent: &AgentState,
    id: BuildId,
    part: Part,
    mut to: DuplexStream,
) -> io::Result<()> {
    let mut offset = part.offset;
    loop {
        // Asked first, so that what was written before the end is not missed.
        let build = agent.records.get(id).await.map_err(io::Error::other)?;
        let over = build.is_none_or(|build| build.state == BuildState::Finished);
        offset += copy(&agent.paths.build_log(id), offset, &mut to).await?;
        if over || !part.follow || agent.stopping.is_cancelled() {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
    }
}

/// Copies a file from an offset on and says how much that was.
async fn copy(path: &std::path::Path, offset: u64, to: &mut DuplexStream) -> io::Result<u64> {
    let mut file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
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

/// A file that a build gave out.
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
            "build {id} gave out no file {name}"
        )));
    };
    let file = File::open(agent.paths.build(id).join(ARTIFACTS).join(&name)).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, artifact.bytes.to_string()),
    ];
    Ok((
        headers,
        Body::from_stream(ReaderStream::with_capacity(file, PIECE)),
    )
        .into_response())
}

/// Where what a build gave out came from.
pub(super) async fn provenance(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    find(&agent, id).await?;
    match tokio::fs::read(agent.paths.build(id).join(PROVENANCE)).await {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "application/vnd.in-toto+json")];
            Ok((kind, text).into_response())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ApiError::not_found(format!(
            "build {id} has no provenance: it has not ended well, or gave nothing out"
        ))),
        Err(error) => Err(error.into()),
    }
}
