//! The pages of the farm: routes, and the rights of their readers. The pages themselves are in the crate
//! `web`; the files here gather what they show.

mod actions;
mod events;
mod files;
mod show;
mod sign_in;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use config::tokens::Scope;
use tracing::{info, warn};
use web::{FarmSection, Frame, Message, Section, Template, Viewer};
use web_server::answer::{file, passing, protect, see_other};
use web_server::{cookie, origin};

use super::auth::{Client, authenticate};
use super::{Refusal, Service};
use crate::secret;

/// The interval at which a browser without scripts reads a page again.
const REFRESH_SECONDS: u32 = 10;

/// Returns the routes of the pages.
pub(super) fn routes(service: &Arc<Service>) -> Router<Arc<Service>> {
    Router::new()
        .route("/", get(show::overview))
        .route("/events", get(events::stream))
        .route("/builds", get(show::builds))
        .route("/builds/{build}", get(show::build))
        .route("/builds/{build}/cancel", post(actions::cancel))
        .route("/builds/{build}/log.txt", get(files::log))
        .route("/builds/{build}/artifacts", get(files::artifacts))
        .route("/builds/{build}/artifacts/{name}", get(files::artifact))
        .route("/hosts", get(show::hosts))
        .route("/hosts/{host}", get(show::host))
        .route("/hosts/{host}/{action}", post(actions::drain))
        .route("/machines", get(show::machines))
        .route("/schedules", get(show::schedules))
        .route("/schedules/{name}/{action}", post(actions::schedule))
        .route_layer(from_fn_with_state(Arc::clone(service), admit))
        .merge(sign_in::routes())
        .route("/static/{name}", get(static_file))
        .route_layer(from_fn(protect))
}

/// Admits browsers with a session, and adds its [`Client`] to the request. Actions need the browser's word
/// that a page of this server made the request.
async fn admit(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let client = match client(&service, request.headers()).await {
        Ok(client) => client,
        Err(refusal) => return error_page(&service, None, refusal),
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(client) = client else {
        return if reads {
            see_other(&login_path(request.uri()))
        } else {
            error_page(&service, None, signed_out())
        };
    };
    if origin::needs_own_page(request.method(), request.headers())
        && !origin::is_from_own_page(request.headers())
    {
        return error_page(&service, Some(&client), foreign_page());
    }
    if !reads {
        info!(
            by = client.name,
            path = request.uri().path(),
            "action of a page"
        );
    }
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// Returns the client whose session a request has.
async fn client(service: &Service, headers: &HeaderMap) -> Result<Option<Client>, Refusal> {
    let Some(session) = cookie::of_request(headers) else {
        return Ok(None);
    };
    let token = service.coordinator.store().session(secret::hash(session));
    match token.await.map_err(|error| {
        warn!(
            error = &error as &dyn std::error::Error,
            "cannot read the sessions"
        );
        Refusal::unavailable()
    })? {
        // The rights are looked up with each request, so that a revoked token ends its sessions.
        Some(token) => authenticate(service, token).await,
        None => Ok(None),
    }
}

fn signed_out() -> Refusal {
    let message = "the session has ended; sign in again";
    Refusal(StatusCode::UNAUTHORIZED, message.to_owned())
}

fn foreign_page() -> Refusal {
    let message = "the request was made by a page of another site";
    Refusal(StatusCode::FORBIDDEN, message.to_owned())
}

/// Refuses an action that needs more rights.
fn require(client: &Client, needed: Scope) -> Result<(), Refusal> {
    if client.scope >= needed {
        return Ok(());
    }
    let message = format!("this action needs the scope {needed}");
    Err(Refusal(StatusCode::FORBIDDEN, message))
}

/// Returns the path of the login page that leads back to a page.
fn login_path(page: &Uri) -> String {
    let next = page.path_and_query().map_or("/", |it| it.as_str());
    let query = serde_urlencoded::to_string([("next", next)]);
    format!("/login?{}", query.unwrap_or_default())
}

/// Returns the parts that all pages share.
fn frame(
    service: &Service,
    client: Option<&Client>,
    section: FarmSection,
    title: impl Into<String>,
) -> Frame {
    Frame {
        title: title.into(),
        section: Section::Farm(section),
        host: service.name.clone(),
        viewer: Viewer {
            name: client.map(|it| it.name.clone()),
            scope: client.map(|it| it.scope),
        },
        refresh_seconds: (section != FarmSection::None).then_some(REFRESH_SECONDS),
    }
}

/// Returns the response with a page.
fn page(headers: &HeaderMap, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => web_server::answer::page(headers, html),
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot render a page"
            );
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Returns the response that shows an error as a page.
fn error_page(
    service: &Service,
    client: Option<&Client>,
    Refusal(status, detail): Refusal,
) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let message = Message {
        frame: frame(service, client, FarmSection::None, title),
        detail,
    };
    passing(status, message.render().unwrap_or_default())
}

async fn static_file(Path(name): Path<String>) -> Response {
    file(&name).unwrap_or_else(|| {
        let message = format!("there is no file {name}");
        Refusal(StatusCode::NOT_FOUND, message).into_response()
    })
}
