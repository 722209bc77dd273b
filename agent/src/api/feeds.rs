//! Package feeds: their state, and their files for clients.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use config::feeds::{FeedRebuilt, FeedStatus};
use config::settings::FeedRules;
use config::{FeedName, MachineName};
use feeds::repository::PUBLIC;
use jiff::Timestamp;
use sys::blocking::blocking;
use sys::error_report::chain;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::error::{self, ApiError};
use crate::triggers::feeds as publication;
use state::AgentState;

/// Returns the routes of the files, which need no authorization and are no part of the API.
pub(super) fn routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/feed/{feed}/{machine}/{*path}", get(file))
        .method_not_allowed_fallback(error::unsupported_method)
}

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<FeedStatus>>, ApiError> {
    Ok(Json(publication::describe(&agent).await?))
}

/// Makes the indexes of a feed again.
pub(super) async fn rebuild(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<FeedName>, PathRejection>,
) -> Result<Json<Vec<FeedRebuilt>>, ApiError> {
    let Path(name) = name?;
    let rules = find(&agent, &name).ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no feed {name}; [[feeds]] in the settings adds one, and a restart reads it"
        ))
    })?;
    let rebuilt = publication::rebuild(&rules).await;
    rebuilt
        .map(Json)
        .map_err(|error| ApiError::conflict(chain(&error)))
}

fn find(agent: &AgentState, name: &FeedName) -> Option<FeedRules> {
    let settings = agent.settings();
    settings
        .feeds
        .iter()
        .find(|rules| rules.name == *name)
        .cloned()
}

/// Returns a file of a repository to everybody, if the feed is served.
async fn file(
    State(agent): State<Arc<AgentState>>,
    path: Result<Path<(FeedName, MachineName, String)>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path((name, machine, path)) = path?;
    let rules = find(&agent, &name).filter(|rules| rules.serve && is_public(&path));
    let missing = || ApiError::not_found(format!("no feed has /feed/{name}/{machine}/{path}"));
    let rules = rules.ok_or_else(missing)?;
    let file = publication::directory(&rules, &machine).join(&path);
    let file = blocking(move || validate(&file)).await;
    Ok(respond(request, file.ok_or_else(missing)?).await)
}

/// Returns true for a path of a repository that clients may get.
fn is_public(path: &str) -> bool {
    let mut parts = path.split('/');
    let is_hidden = |part: &str| part.is_empty() || part.starts_with('.');
    parts
        .clone()
        .next()
        .is_some_and(|first| PUBLIC.contains(&first))
        && !parts.any(is_hidden)
}

/// A file with its validators.
struct Validated {
    path: PathBuf,
    tag: String,
    changed: String,
}

/// Returns a regular file by its path without links, so that a new generation changes nothing below a
/// response. Blocks.
fn validate(path: &std::path::Path) -> Option<Validated> {
    let path = path.canonicalize().ok()?;
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let changed = Timestamp::try_from(metadata.modified().ok()?).ok()?;
    Some(Validated {
        path,
        tag: format!("\"{:x}-{:x}\"", changed.as_nanosecond(), metadata.len()),
        changed: changed.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
    })
}

async fn respond(mut request: Request, file: Validated) -> Response {
    let Validated {
        path: file,
        tag,
        changed,
    } = file;
    let headers = request.headers_mut();
    if has_tag(headers, &header::IF_NONE_MATCH, &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    // The service knows no entity tags: a tag that differs asks for the whole file.
    if headers.remove(header::IF_NONE_MATCH).is_some() {
        headers.remove(header::IF_MODIFIED_SINCE);
    }
    // Nor does it know `If-Range`: a part of another content would spoil the file of a client.
    let is_other = headers
        .remove(header::IF_RANGE)
        .is_some_and(|it| it != tag && it != changed);
    if is_other {
        headers.remove(header::RANGE);
    }
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let kind = media_type(name);
    let response = ServeFile::new(&file).oneshot(request).await;
    let mut response = response.into_response().map(Body::new);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Returns true if a header has an entity tag, or `*`.
fn has_tag(headers: &HeaderMap, name: &header::HeaderName, tag: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|it| it.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|it| it == "*" || it.trim_start_matches("W/") == tag)
}

/// Returns the media type of a file of a repository.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "deb")) => "application/vnd.debian.binary-package",
        Some((_, "gz")) => "application/gzip",
        Some((_, "asc")) if name == "key.asc" => "application/pgp-keys",
        Some((_, "asc" | "gpg" | "sig")) => "application/pgp-signature",
        Some((_, "ipk")) => "application/octet-stream",
        _ => "text/plain; charset=utf-8",
    }
}
