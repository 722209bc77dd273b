//! The administration API: HTTP on a unix socket that only root can open.
//!
//! | route | what |
//! |---|---|
//! | `GET /api/v1/status` | what this host is and can do |
//! | `PUT /api/v1/sources/{sha256}` | hand in a source |
//! | `POST /api/v1/builds` | ask for a build |
//! | `GET /api/v1/builds?before=&count=` | the newest builds |
//! | `GET /api/v1/builds/{id}` | one build |
//! | `POST /api/v1/builds/{id}/cancel` | cancel it |
//! | `GET /api/v1/builds/{id}/log?offset=&follow=` | its log |
//! | `GET /api/v1/builds/{id}/artifacts/{name}` | a file that it gave out |
//! | `GET /api/v1/doctor` | what is not as it should be |
//! | `POST /api/v1/doctor/repair` | repair what was found and is still so |

mod builds;
mod doctor;
mod files;
mod problem;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Json;
use axum::routing::{get, post, put};
use config::builds::{SOCKET, Status};
use tokio::net::UnixListener;

use crate::host::Host;
use problem::Refused;

/// The size of a request, sources aside.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// The socket, bound; requests wait in it until [`serve`] takes them.
#[derive(Debug)]
pub struct Api {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket in the run directory. One that an earlier agent left is
/// replaced: the caller holds the lock of the run directory.
pub fn bind(host: &Host) -> io::Result<Api> {
    let path = host.settings.paths.run.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Api { listener, path })
}

/// Answers requests until the agent stops.
pub async fn serve(host: Arc<Host>, api: Api) -> io::Result<()> {
    let stopping = host.stopping.clone();
    let served = axum::serve(api.listener, routes(host))
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .await;
    let _ = std::fs::remove_file(api.path);
    served
}

fn routes(host: Arc<Host>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/builds", get(builds::list).post(builds::submit))
        .route("/api/v1/builds/{id}", get(builds::show))
        .route("/api/v1/builds/{id}/cancel", post(builds::cancel))
        .route("/api/v1/builds/{id}/log", get(files::log))
        .route("/api/v1/builds/{id}/artifacts/{name}", get(files::artifact))
        .route("/api/v1/doctor", get(doctor::examine))
        .route("/api/v1/doctor/repair", post(doctor::repair))
        .route_layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .route(
            "/api/v1/sources/{sha256}",
            put(files::hand_in).layer(DefaultBodyLimit::disable()),
        )
        .fallback(problem::no_route)
        .with_state(host)
}

async fn status(State(host): State<Arc<Host>>) -> Result<Json<Status>, Refused> {
    host.status().map(Json).ok_or_else(|| {
        Refused::unavailable("the agent has not looked at its volumes yet; ask again")
    })
}
