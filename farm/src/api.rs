//! The HTTP interface of a coordinator, for hosts and for clients.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use config::task::Digest;
use farm_core::messages::Reply;
use serde_json::json;

pub use crate::attempts::Attempts;
use crate::coordinator::Coordinator;
use crate::secret;
pub use openapi::OPENAPI;

mod archives;
mod auth;
mod clients;
mod errors;
mod hosts;
mod metrics;
mod openapi;
mod pages;
mod schedules;
mod sources;
mod toaster;
mod transfers;
mod trials;
mod views;
mod windows;

/// The most bytes of a document that a host or client sends. Streams have limits of their own.
const BODY_MAX: usize = 1 << 20;

/// Everything that the handlers share.
#[derive(Debug)]
pub struct Service {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// The hash of the token of a file, which may do everything; `None` if all tokens are in the
    /// database.
    pub client_token: FileToken,
    /// The attempts with unknown secrets.
    pub attempts: Attempts,
    /// The name of the farm on its pages.
    pub name: String,
}

/// The hash of the token in a file, which is read again while the coordinator runs.
#[derive(Debug, Default)]
pub struct FileToken(RwLock<Option<[u8; 32]>>);

impl From<Option<[u8; 32]>> for FileToken {
    fn from(hash: Option<[u8; 32]>) -> Self {
        Self(RwLock::new(hash))
    }
}

impl FileToken {
    /// Replaces the hash.
    pub fn replace(&self, hash: Option<[u8; 32]>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = hash;
    }

    /// Returns true for the hash of the token.
    fn is(&self, hash: [u8; 32]) -> bool {
        *self.0.read().unwrap_or_else(PoisonError::into_inner) == Some(hash)
    }
}

/// Returns the routes of hosts and, for sources and transfers, of coordinators.
fn routes_of_hosts() -> Router<Arc<Service>> {
    Router::new()
        .route("/farm/v1/enrol", post(hosts::enrol))
        .route("/farm/v1/terms", get(hosts::terms))
        .route("/farm/v1/poll", post(hosts::poll))
        .route("/farm/v1/report", post(hosts::report))
        .route("/farm/v1/release", post(hosts::release))
        .route(
            "/farm/v1/transfers/{transfer}",
            get(transfers::join).post(transfers::supply),
        )
        .route(
            "/farm/v1/machines/{machine}/revisions/{revision}",
            get(transfers::fetch),
        )
        .route(
            "/farm/v1/sources/{digest}",
            get(sources::fetch).put(sources::upload).post(sources::copy),
        )
}

/// Returns the routes of clients.
fn routes_of_clients() -> Router<Arc<Service>> {
    Router::new()
        .route("/farm/v1/builds", get(views::builds).post(clients::submit))
        .route("/farm/v1/builds/{build}", get(views::build))
        .route("/farm/v1/builds/{build}/cancel", post(clients::cancel))
        .route("/farm/v1/builds/{build}/log", get(transfers::log))
        .route(
            "/farm/v1/builds/{build}/artifacts",
            get(transfers::artifacts),
        )
        .route(
            "/farm/v1/builds/{build}/artifacts/{name}",
            get(transfers::artifact),
        )
        .route(
            "/farm/v1/builds/{build}/provenance",
            get(transfers::provenance),
        )
        .route(
            "/farm/v1/builds/{build}/provenance/signed",
            get(transfers::signed_provenance),
        )
        .route("/farm/v1/queue", get(views::queue))
        .route("/farm/v1/sources/{digest}/offer", get(sources::offer))
        .route(
            "/farm/v1/schedules",
            get(schedules::list).post(schedules::add),
        )
        .route(
            "/farm/v1/schedules/{name}",
            get(schedules::show).delete(schedules::remove),
        )
        .route("/farm/v1/schedules/{name}/run", post(schedules::run))
        .route("/farm/v1/schedules/{name}/pause", post(schedules::pause))
        .route("/farm/v1/schedules/{name}/resume", post(schedules::resume))
        .route("/farm/v1/projects", get(schedules::projects))
        .route("/farm/v1/machines", get(views::machines))
        .route("/farm/v1/machines/{machine}", post(trials::publish))
        .route("/farm/v1/machines/{machine}/promote", post(trials::promote))
        .route(
            "/farm/v1/machines/{machine}/rollback",
            post(trials::roll_back),
        )
        .route("/farm/v1/hosts", get(views::hosts))
        .route("/farm/v1/hosts/{host}", get(views::host))
        .route("/farm/v1/hosts/{host}/drain", post(clients::drain))
        .route("/farm/v1/hosts/{host}/undrain", post(clients::undrain))
        .route("/farm/v1/hosts/{host}/windows", post(windows::add))
        .route(
            "/farm/v1/hosts/{host}/windows/{window}",
            delete(windows::remove),
        )
}

/// Returns the routes.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .merge(routes_of_hosts())
        .merge(routes_of_clients())
        .route("/farm/v1/openapi.json", get(openapi::show))
        .route("/metrics", get(metrics::show))
        .method_not_allowed_fallback(errors::wrong_method)
        .fallback(errors::no_such_path)
        .layer(map_response(errors::as_json))
        .merge(pages::routes(&service))
        .merge(toaster::routes(&service))
        .with_state(service)
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

/// An answer that is an error: its status and its sentence.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl Refusal {
    fn unavailable() -> Self {
        let message = "the database of the farm does not answer; repeat the request";
        Self(StatusCode::SERVICE_UNAVAILABLE, message.to_owned())
    }

    /// Counts an attempt with a secret that may be unknown.
    fn check_attempt(service: &Service, secret: &[u8; 32]) -> Result<(), Self> {
        service
            .attempts
            .admit(secret, Instant::now())
            .map_err(|wait| {
                let seconds = wait.as_secs() + 1;
                let message = format!(
                    "too many requests with unknown secrets; repeat this one in {seconds} s"
                );
                Self(StatusCode::TOO_MANY_REQUESTS, message)
            })
    }

    /// Returns the error for a reply that does not belong to its request.
    fn of(reply: Reply) -> Self {
        match reply {
            Reply::NotFound(message) => Self(StatusCode::NOT_FOUND, message),
            Reply::Stale(lease) => Self(
                StatusCode::CONFLICT,
                format!("lease {lease} is not the newest one of its build, or not of this host"),
            ),
            Reply::OtherContent(machine, published) => Self(
                StatusCode::CONFLICT,
                format!(
                    "revision {} of {machine} is published with other content ({}); publish the new content under a higher number",
                    published.revision.0,
                    published.content.as_ref().map_or("", Digest::as_str),
                ),
            ),
            Reply::TrialOver(machine) => Self(
                StatusCode::CONFLICT,
                format!(
                    "the trial of {machine} has ended meanwhile, or a newer revision is published"
                ),
            ),
            Reply::NotCopied(digest, reason) => Self(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "source {digest} needs a second copy before the build is accepted: {reason}; \
                     repeat the request"
                ),
            ),
            Reply::Finished(build, outcome) => Self(
                StatusCode::CONFLICT,
                format!("build {build} has ended already, as {outcome}"),
            ),
            _ => Self::unavailable(),
        }
    }
}

/// Returns the hash of the secret that a request carries.
fn bearer(headers: &HeaderMap) -> Result<[u8; 32], Refusal> {
    let value = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    let secret = value.and_then(|it| it.strip_prefix("Bearer "));
    secret.map(|it| secret::hash(it.trim())).ok_or_else(|| {
        let message = "the request needs the header `Authorization: Bearer …`";
        Refusal(StatusCode::UNAUTHORIZED, message.to_owned())
    })
}
