//! The web pages: routes, and the rights of their readers. The pages themselves are in the crate
//! `web`; the files here gather what they show.

mod actions;
mod answer;
mod builds;
mod console;
mod host;
mod log;
mod log_file;
mod login;
mod machines;
mod overview;
mod services;
mod settings;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, MatchedPath, Path, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use config::settings::WebMode;
use web::{Frame, Section, Viewer};

use super::auth::{Auth, Caller, Peer};
use super::authorize::required_scope;
use super::error::ApiError;
use super::permission::Permission;
use super::sign_in::see_other;
use super::{events, files};
use answer::error_page;
use log_file::LogFiles;
use state::AgentState;
use tracing::info;

/// The interval at which a browser without scripts reads a page again.
const REFRESH_SECONDS: u32 = 10;

/// The state of the check of rights.
struct Access {
    agent: Arc<AgentState>,
    auth: Arc<Auth>,
    mode: WebMode,
}

/// Returns the routes of the pages; none if the settings turn them off.
pub(super) fn routes(agent: &Arc<AgentState>, auth: &Arc<Auth>) -> Router<Arc<AgentState>> {
    let mode = agent.settings().http.web;
    if mode == WebMode::Off {
        return Router::new();
    }
    let access = Access {
        agent: Arc::clone(agent),
        auth: Arc::clone(auth),
        mode,
    };
    let logs = Arc::new(LogFiles::default());
    let pages = Router::new()
        .route("/", get(overview::show))
        .route("/events", get(events::stream))
        .route("/builds", get(builds::list))
        .route("/builds/{id}", get(builds::show))
        .route("/builds/{id}/log", get(log::show))
        .route("/builds/{id}/log/lines", get(log::lines))
        .route("/builds/{id}/log/stream", get(log::stream))
        .route("/builds/{id}/log.txt", get(files::log))
        .route("/builds/{id}/artifacts/{name}", get(files::artifact))
        .route("/builds/{id}/provenance.json", get(files::provenance))
        .route(
            "/builds/{id}/provenance.intoto.jsonl",
            get(files::signed_provenance),
        )
        .route("/builds/{id}/rebuild", post(actions::rebuild))
        .route("/builds/{id}/cancel", post(actions::cancel))
        .route("/builds/{id}/resume", post(actions::resume))
        .route("/builds/{id}/release", post(actions::release))
        .route("/builds/{id}/console", get(console::show))
        .merge(machine_routes())
        .merge(host_routes());
    pages
        .layer(Extension(logs))
        .route_layer(middleware::from_fn_with_state(Arc::new(access), admit))
        .merge(login::routes())
        .route("/static/{name}", get(file))
        .route_layer(middleware::from_fn(web_server::answer::protect))
}

fn machine_routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/machines", get(machines::list))
        .route("/machines/{name}", get(machines::show))
        .route("/machines/{name}/diff", get(machines::diff))
        .route("/machines/{name}/{action}", post(machines::change))
}

fn host_routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/host", get(host::show))
        .route("/host/drain", post(host::drain))
        .route("/host/undrain", post(host::undrain))
        .route("/host/schedules/{name}/run", post(host::run_schedule))
        .route("/host/services", get(services::show))
        .route("/host/settings", get(settings::show))
        .route("/host/tokens", get(tokens::show).post(tokens::add))
        .route("/host/tokens/{name}/remove", post(tokens::remove))
        .route("/host/doctor", get(host::examine))
        .route("/host/doctor/repair", post(host::repair))
}

/// Admits the readers of pages, and adds a [`Viewer`] to the request, and the [`Caller`] if there is
/// one. Actions need a caller with the right to them, and pages that have them.
async fn admit(
    State(access): State<Arc<Access>>,
    Extension(peer): Extension<Peer>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = access
        .auth
        .identify(&peer, request.method(), request.headers());
    let refuse = |error: ApiError| error_page(&access.agent, Viewer::default(), error);
    let caller = match caller.await {
        Ok(caller) => caller,
        Err(error) => return refuse(error),
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let viewer = viewer(access.mode, caller.as_ref());
    if !reads && access.mode == WebMode::Read {
        let error = "the pages of this host have no actions (setting http.web)";
        return refuse(ApiError::forbidden(error));
    }
    if caller.is_none() && access.mode == WebMode::Full {
        return match request.method() {
            &Method::GET => see_other(&login_path(request.uri())),
            _ => refuse(ApiError::missing_token()),
        };
    }
    let required = required_scope(request.method(), &api_route(path.as_str()));
    if !reads && viewer.scope < Some(required) {
        let error = format!("this action needs the scope {required}");
        return error_page(&access.agent, viewer, ApiError::forbidden(error));
    }
    if let (false, Some(caller)) = (reads, &caller) {
        info!(by = %caller.submitter, path = request.uri().path(), "action of a page authorized");
    }
    request.extensions_mut().insert(viewer);
    let Some(caller) = caller else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    let auth = Arc::clone(&access.auth);
    Permission::new(auth, caller, required).limit(response)
}

/// Returns the path of the login page that leads back to a page.
fn login_path(page: &Uri) -> String {
    let next = page.path_and_query().map_or("/", |it| it.as_str());
    let query = serde_urlencoded::to_string([("next", next)]);
    format!("/login?{}", query.unwrap_or_default())
}

/// Returns the route of the API with the rights of an action of a page.
fn api_route(path: &str) -> String {
    match path {
        "/builds/{id}/rebuild" => "/api/v1/builds".to_owned(),
        path => format!("/api/v1{path}"),
    }
}

/// Returns the reader of a page.
fn viewer(mode: WebMode, caller: Option<&Caller>) -> Viewer {
    Viewer {
        name: caller.map(|caller| caller.submitter.to_string()),
        scope: caller
            .filter(|_| mode == WebMode::Full)
            .map(|caller| caller.scope),
    }
}

/// Returns a file that pages refer to.
async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    web_server::answer::file(&name)
        .ok_or_else(|| ApiError::not_found(format!("there is no file {name}")))
}

/// Returns the parts that all pages share.
fn frame(agent: &AgentState, viewer: Viewer, section: Section, title: impl Into<String>) -> Frame {
    Frame {
        title: title.into(),
        section,
        host: agent.settings().name.clone(),
        viewer,
        refresh_seconds: None,
    }
}
