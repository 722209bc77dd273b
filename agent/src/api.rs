//! HTTP. Administration, below `/api/v1`, at a unix socket that root and a group can
//! open, and over TCP for the bearers of tokens; over TCP also what is public:
//! [`crate::api::toaster`] and the metrics.
//!
//! `api/openapi.json` describes every route, and a test holds both together.

mod access;
mod builds;
mod console;
mod doctor;
mod events;
mod files;
mod problem;
mod queue;
mod rates;
mod reread;
mod schedules;
mod serve;
pub mod toaster;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use config::builds::{SOCKET, Status};
use nix::unistd::{Group, chown};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use crate::blocking;
use crate::state::AgentState;
use crate::telemetry::metrics::{CONTENT_TYPE, HostGauges, Metrics};
use access::Gate;
use problem::Refused;
use serve::Door;

/// The description of all routes.
pub const OPENAPI: &str = include_str!("api/openapi.json");

/// The sockets, bound; requests wait in them until [`serve`] takes them.
#[derive(Debug)]
pub struct Api {
    doors: Vec<Door>,
    path: PathBuf,
    gate: Arc<Gate>,
}

impl Api {
    /// Where it is found over TCP.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.doors.iter().find_map(|door| match door {
            Door::Unix(_) => None,
            Door::Tcp(listener) | Door::Tls(listener, _) => listener.local_addr().ok(),
        })
    }
}

/// Binds the socket in the run directory, and the one on the network if the settings
/// have one. A socket that an earlier agent left is replaced: the caller holds the
/// lock of the run directory.
///
/// # Errors
/// When a socket cannot be bound, or a file that the settings name cannot be used.
pub async fn bind(agent: &AgentState) -> io::Result<Api> {
    let http = &agent.settings.http;
    let gate = Gate::new(http.token_file.clone(), http.requests_per_second_max)?;
    let path = agent.settings.paths.run.join(SOCKET);
    let mut doors = vec![Door::Unix(bind_socket(&path, http.group.as_deref())?)];
    if let Some(address) = &http.listen {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        doors.push(match &http.tls {
            Some(tls) => Door::Tls(listener, serve::secret(tls)?),
            None => Door::Tcp(listener),
        });
    }
    Ok(Api {
        doors,
        path,
        gate: Arc::new(gate),
    })
}

fn bind_socket(path: &PathBuf, group: Option<&str>) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = match group {
        None => 0o600,
        Some(name) => {
            let group = Group::from_name(name)?.ok_or_else(|| {
                io::Error::other(format!("the group {name} of the setting http.group does not exist; make it with `groupadd --system {name}`"))
            })?;
            chown(path, None, Some(group.gid))?;
            0o660
        }
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Answers requests until the agent stops.
pub async fn serve(agent: Arc<AgentState>, api: Api) {
    let stopping = agent.stopping.clone();
    let places = Arc::new(Semaphore::new(agent.settings.http.connections_max));
    let router = routes(agent, &api.gate);
    let doors = api.doors.into_iter().map(|door| {
        // The socket has places of its own, so that strangers cannot lock root out.
        let places = match door {
            Door::Unix(_) => Arc::new(Semaphore::new(SOCKET_CONNECTIONS_MAX)),
            Door::Tcp(_) | Door::Tls(..) => Arc::clone(&places),
        };
        serve::serve(door, router.clone(), places, stopping.clone())
    });
    futures_util::future::join_all(doors).await;
    let _ = std::fs::remove_file(api.path);
}

/// How many connections there are at once at the socket.
const SOCKET_CONNECTIONS_MAX: usize = 1024;

fn routes(agent: Arc<AgentState>, gate: &Arc<Gate>) -> Router {
    administration(&agent)
        .method_not_allowed_fallback(problem::no_method)
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(gate),
            access::admit,
        ))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(problem::no_method)
        .merge(toaster::routes())
        .fallback(problem::no_route)
        .layer(middleware::from_fn_with_state(
            Arc::clone(gate),
            access::pace,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(agent.records.metrics()),
            count,
        ))
        .with_state(agent)
}

/// What needs to be allowed.
fn administration(agent: &AgentState) -> Router<Arc<AgentState>> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/builds", get(builds::list).post(builds::submit))
        .route(
            "/api/v1/builds/{id}",
            get(builds::show).delete(builds::delete),
        )
        .route("/api/v1/builds/{id}/cancel", post(builds::cancel))
        .route("/api/v1/builds/{id}/resume", post(console::resume))
        .route("/api/v1/builds/{id}/release", post(console::release))
        .route("/api/v1/builds/{id}/attach", post(console::attach))
        .route(
            "/api/v1/builds/{id}/console",
            get(console::of_build).post(console::of_build),
        )
        .route(
            "/api/v1/machines/{name}/console",
            get(console::of_machine).post(console::of_machine),
        )
        .route("/api/v1/builds/{id}/log", get(files::log))
        .route("/api/v1/builds/{id}/artifacts/{name}", get(files::artifact))
        .route(
            "/api/v1/schedules",
            get(schedules::list).post(schedules::add),
        )
        .route(
            "/api/v1/schedules/{name}",
            get(schedules::show).delete(schedules::remove),
        )
        .route("/api/v1/schedules/{name}/run", post(schedules::run))
        .route("/api/v1/queue", get(queue::show))
        .route("/api/v1/drain", post(queue::drain))
        .route("/api/v1/undrain", post(queue::undrain))
        .route("/api/v1/builds/{id}/provenance", get(files::provenance))
        .route("/api/v1/doctor", get(doctor::examine))
        .route("/api/v1/doctor/repair", post(doctor::repair))
        .route_layer(DefaultBodyLimit::max(agent.settings.http.request_bytes_max))
        .route(
            "/api/v1/sources/{sha256}",
            put(files::hand_in).layer(DefaultBodyLimit::disable()),
        )
}

/// Counts requests by their routes; what has none is counted as one.
async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(String::new, |path| path.as_str().to_owned());
    // A client may make methods up.
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

async fn metrics(State(agent): State<Arc<AgentState>>) -> Result<Response, Refused> {
    let unfinished = agent.records.unfinished().await?;
    let (task_agent, status) = (Arc::clone(&agent), agent.status());
    let free = blocking(move || free_space(&task_agent)).await;
    let mut text = agent.records.metrics().to_text(&HostGauges {
        unfinished: &unfinished,
        jobs: &agent.jobs.running(),
        status: status.as_ref(),
        free: &free,
    });
    text.push_str(&agent.pr.metrics().to_text());
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Returns the free bytes of the volumes and of the state directory.
fn free_space(agent: &AgentState) -> Vec<(&'static str, PathBuf, Option<u64>)> {
    let volumes = agent.volumes.iter().map(|volume| ("volume", volume.path()));
    volumes
        .chain([("state", agent.paths.state())])
        .map(|(kind, path)| (kind, path.to_owned(), store::space::bytes_free(path).ok()))
        .collect()
}

async fn status(State(agent): State<Arc<AgentState>>) -> Result<Json<Status>, Refused> {
    agent.status().map(Json).ok_or_else(|| {
        Refused::unavailable("the agent has not looked at its volumes yet; ask again")
    })
}
