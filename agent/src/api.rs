//! The HTTP API: administration below `/api/v1`, at a unix socket that root and a group can
//! open and over TCP with tokens; over TCP also the public routes, Toaster's and the metrics.
//!
//! `api/openapi.json` describes every route, and a test compares it with the code.

mod auth;
mod authorize;
mod builds;
mod caches;
mod commands;
mod console;
mod controllers;
mod doctor;
mod error;
mod events;
mod feeds;
mod files;
mod layers;
mod listener;
mod machines;
mod metrics;
mod notify;
mod permission;
mod projects;
mod queue;
mod rate_limit;
mod releases;
mod reload;
mod schedules;
mod secrets;
mod sign_in;
mod slsa;
mod tls;
mod toaster;
mod tokens;
mod web;
mod web_sessions;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use config::builds::{SOCKET, Status};
use nix::unistd::{Group, chown};
use prserv::host_names::HostNames;
use prserv::listen::listen_on_port;
use prserv::listener::{Deadlines, Places};
use telemetry::metrics::Metrics;
use tokio::net::UnixListener;

use auth::{Auth, Peer};
use error::ApiError;
use listener::{Listener, TimeLimits};
use rate_limit::RateLimiter;
use sign_in::SignIn;
use state::AgentState;

/// The OpenAPI description of all routes.
pub const OPENAPI: &str = include_str!("api/openapi.json");

/// The maximum number of connections to the administration socket, and of one user.
const SOCKET_CONNECTIONS_MAX: usize = 1024;
const SOCKET_CONNECTIONS_PER_USER_MAX: usize = 512;

/// The time limit for the first byte of a connection.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// The bound sockets. Connections wait in them until [`serve`] accepts them.
#[derive(Debug)]
pub struct Api {
    listeners: Vec<Listener>,
    socket: PathBuf,
    auth: Auth,
}

impl Api {
    /// Returns the TCP address; `None` without a TCP listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners.iter().find_map(|listener| match listener {
            Listener::Unix(_) => None,
            Listener::Tcp(listener) | Listener::Tls(listener, _) => listener.local_addr().ok(),
        })
    }
}

/// Binds the administration socket in the run directory, and the TCP socket of the settings.
/// Replaces the socket of an earlier agent, so the caller must hold the lock of the run
/// directory.
///
/// # Errors
/// A socket cannot be bound, or a file that the settings name cannot be used.
pub async fn bind(agent: &AgentState) -> io::Result<Api> {
    let http = &agent.settings().http;
    let auth = Auth::new(http.token_file.clone())?;
    let socket = agent.settings().paths.run.join(SOCKET);
    let mut listeners = vec![Listener::Unix(bind_socket(&socket, http.group.as_deref())?)];
    if let Some(address) = &http.listen {
        let tls = http.tls.as_ref().map(tls::load).transpose()?;
        for listener in listen_on_port(address).await? {
            listeners.push(match &tls {
                Some(tls) => Listener::Tls(listener, Arc::clone(tls)),
                None => Listener::Tcp(listener),
            });
        }
    }
    Ok(Api {
        listeners,
        socket,
        auth,
    })
}

fn bind_socket(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = match group {
        None => 0o600,
        Some(name) => {
            let group = Group::from_name(name)?.ok_or_else(|| {
                io::Error::other(format!("the group {name} of the setting http.group does not exist; create it with `groupadd --system {name}`"))
            })?;
            // Its members may pass through the directory, and see nothing else in it.
            if let Some(directory) = path.parent() {
                chown(directory, None, Some(group.gid))?;
                std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o710))?;
            }
            chown(path, None, Some(group.gid))?;
            0o660
        }
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves requests until the agent stops.
pub async fn serve(agent: Arc<AgentState>, api: Api) {
    let stopping = agent.stopping.clone();
    let http = &agent.settings().http;
    let network = Places::new(http.connections_max, http.connections_per_peer_max);
    let limits = TimeLimits {
        transport: Deadlines {
            first_byte: FIRST_BYTE_TIMEOUT,
            // The time between requests and within a body is limited; logs and consoles may be
            // quiet for long.
            idle: None,
            write: http.write_max,
        },
        body: http.body_max,
    };
    let address = api.address();
    let router = routes(agent, api.auth, address);
    let served = api.listeners.into_iter().map(|listener| {
        let places = match listener {
            // Separate places, so that clients on the network cannot lock out root.
            Listener::Unix(_) => {
                Places::new(SOCKET_CONNECTIONS_MAX, SOCKET_CONNECTIONS_PER_USER_MAX)
            }
            Listener::Tcp(_) | Listener::Tls(..) => network.clone(),
        };
        listener::serve(listener, router.clone(), places, limits, stopping.clone())
    });
    futures_util::future::join_all(served).await;
    let _ = tokio::fs::remove_file(api.socket).await;
}

fn routes(agent: Arc<AgentState>, auth: Auth, address: Option<SocketAddr>) -> Router {
    let http = &agent.settings().http;
    let auth = Arc::new(auth);
    let sign_in = SignIn::new(Arc::clone(&auth), address, http.tls.is_some());
    let limiter = RateLimiter::new(http.requests_per_second_max);
    let host_names = HostNames::of_system(&http.allowed_hosts, &http.listen);
    protected_routes(&agent)
        .method_not_allowed_fallback(error::unsupported_method)
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&auth),
            authorize::authorize,
        ))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/metrics", get(metrics::show))
        .method_not_allowed_fallback(error::unsupported_method)
        .merge(toaster::routes(&agent))
        .merge(web::routes(&agent, &auth))
        .merge(feeds::routes())
        .layer(Extension(auth))
        .layer(Extension(Arc::new(sign_in)))
        .fallback(error::unknown_route)
        .layer(middleware::from_fn_with_state(
            Arc::new(host_names),
            refuse_foreign,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::new(limiter),
            rate_limit::rate_limit,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&agent.telemetry.metrics),
            count_request,
        ))
        .with_state(agent)
}

/// Returns the routes that need authorization.
fn protected_routes(agent: &AgentState) -> Router<Arc<AgentState>> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events::stream))
        .route(
            "/api/v1/schedules",
            get(schedules::list).post(schedules::add),
        )
        .route(
            "/api/v1/schedules/{name}",
            get(schedules::show).delete(schedules::remove),
        )
        .route("/api/v1/schedules/{name}/run", post(schedules::run))
        .route("/api/v1/secrets", get(secrets::list))
        .route(
            "/api/v1/secrets/{name}",
            put(secrets::add).delete(secrets::delete),
        )
        .route("/api/v1/tokens", get(tokens::list).post(tokens::add))
        .route("/api/v1/tokens/{name}", delete(tokens::remove))
        .route("/api/v1/caches", get(caches::list))
        .route(
            "/api/v1/caches/{name}",
            get(caches::show).delete(caches::delete),
        )
        .route("/api/v1/caches/{name}/prune", post(caches::prune))
        .route("/api/v1/controllers", get(controllers::list))
        .route("/api/v1/controllers/{name}/enrol", post(controllers::enrol))
        .route(
            "/api/v1/controllers/{name}/forget",
            post(controllers::forget),
        )
        .route("/api/v1/feeds", get(feeds::list))
        .route("/api/v1/feeds/{name}/rebuild", post(feeds::rebuild))
        .route("/api/v1/notify", get(notify::list))
        .route("/api/v1/notify/{name}/test", post(notify::test))
        .route("/api/v1/sign-in-links", post(sign_in::create_link))
        .route("/api/v1/queue", get(queue::show))
        .route("/api/v1/drain", post(queue::drain))
        .route("/api/v1/undrain", post(queue::undrain))
        .route("/api/v1/slsa", get(slsa::check))
        .route("/api/v1/doctor", get(doctor::examine))
        .route("/api/v1/doctor/repair", post(doctor::repair))
        .merge(build_routes())
        .merge(machine_routes())
        .merge(project_routes())
        .route_layer(DefaultBodyLimit::max(
            agent.settings().http.request_bytes_max,
        ))
        .route(
            "/api/v1/sources/{sha256}",
            get(files::source).merge(put(files::put_source).layer(DefaultBodyLimit::disable())),
        )
}

/// Returns the routes about builds and their guests.
fn build_routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/api/v1/builds", get(builds::list).post(builds::submit))
        .route(
            "/api/v1/builds/{id}",
            get(builds::show).delete(builds::delete),
        )
        .route("/api/v1/builds/{id}/cancel", post(builds::cancel))
        .route("/api/v1/builds/{id}/fork", post(builds::fork))
        .route("/api/v1/builds/{id}/resume", post(console::resume))
        .route("/api/v1/builds/{id}/release", post(console::release))
        .route("/api/v1/builds/{id}/attach", post(console::attach))
        .route(
            "/api/v1/builds/{id}/console",
            get(console::of_build).post(console::of_build),
        )
        .route(
            "/api/v1/builds/{id}/console/ws",
            get(console::web_socket::of_build),
        )
        .route("/api/v1/builds/{id}/log", get(files::log))
        .route("/api/v1/builds/{id}/log/times", get(files::log_times))
        .route("/api/v1/builds/{id}/artifacts/{name}", get(files::artifact))
        .route("/api/v1/builds/{id}/provenance", get(files::provenance))
        .route(
            "/api/v1/builds/{id}/provenance/signed",
            get(files::signed_provenance),
        )
        .route("/api/v1/builds/{id}/exec", post(commands::exec))
        .route("/api/v1/builds/{id}/stop", post(commands::stop))
        .route("/api/v1/builds/{id}/commands", get(commands::list))
}

/// Returns the routes about machines.
fn machine_routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/api/v1/machines", get(machines::list))
        .route("/api/v1/machines/{name}", get(machines::show))
        .route("/api/v1/machines/{name}/diff", get(machines::diff))
        .route(
            "/api/v1/machines/{name}/rollback",
            post(machines::roll_back),
        )
        .route("/api/v1/machines/{name}/pin", post(machines::pin))
        .route("/api/v1/machines/{name}/unpin", post(machines::unpin))
        .route("/api/v1/machines/{name}/prune", post(machines::prune))
        .route("/api/v1/machines/{name}/promote", post(machines::promote))
        .route("/api/v1/machines/{name}/reject", post(machines::reject))
        .route(
            "/api/v1/machines/{name}/console",
            get(console::of_machine).post(console::of_machine),
        )
}

/// Returns the routes about projects and their layers.
fn project_routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/api/v1/releases", get(releases::list))
        .route(
            "/api/v1/releases/{name}",
            get(releases::show)
                .put(releases::add)
                .delete(releases::remove),
        )
        .route("/api/v1/layers", get(layers::list))
        .route(
            "/api/v1/layers/{name}",
            get(layers::show).put(layers::add).delete(layers::remove),
        )
        .route("/api/v1/layer-sources", get(layers::sources))
        .route("/api/v1/layer-sources/fixtures", post(layers::load_fixture))
        .route("/api/v1/layer-sources/update", post(layers::update))
        .route("/api/v1/projects", get(projects::list))
        .route(
            "/api/v1/projects/{name}",
            get(projects::show)
                .put(projects::put)
                .delete(projects::remove),
        )
        .route("/api/v1/projects/{name}/builds", post(projects::build))
        .route("/api/v1/projects/{name}/commits", post(projects::commits))
}

/// Refuses requests that a browser sends on behalf of another site. Only TCP clients name a host;
/// no name resolves to the administration socket.
async fn refuse_foreign(
    State(names): State<Arc<HostNames>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let headers = request.headers();
    let checked = match peer {
        Peer::Local { .. } => Ok(()),
        Peer::Remote(_) => names.check_host(request.uri(), headers),
    };
    checked
        .and_then(|()| names.check_origin(headers))
        .map_err(|error| ApiError::forbidden(error.to_string()))?;
    Ok(next.run(request).await)
}

/// Counts a request by its route; requests without a route share an empty one.
async fn count_request(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(String::new, |path| path.as_str().to_owned());
    // A client can invent methods, and each would be a new time series.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE") => known,
        _ => "other",
    }
    .to_owned();
    let response = next.run(request).await;
    metrics.request(&method, &route, response.status().as_u16(), began.elapsed());
    response
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn status(State(agent): State<Arc<AgentState>>) -> Result<Json<Status>, ApiError> {
    agent.status().map(Json).ok_or_else(|| {
        ApiError::unavailable("the agent has not examined its volumes yet; try again")
    })
}
