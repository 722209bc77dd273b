//! Requests that become a connection with a guest's console: GET watches, POST types
//! as well.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::builds::{Build, CONSOLE_PROTOCOL, HoldKind};
use config::{BuildId, MachineName};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::auth::Caller;
use super::builds::find;
use super::error::ApiError;
use crate::jobs::JobError;
use crate::jobs::debug_session::{self, AttachError, DebugConsole};
use crate::session;
use crate::session::console::Console;
use crate::state::AgentState;

pub(super) async fn of_build(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let build = find(&agent, id).await?;
    let console = agent.guests.consoles.of_build(id).ok_or_else(|| {
        let state = match build.outcome {
            Some(outcome) => format!("has finished: {outcome}"),
            None => format!("is {}", build.state),
        };
        ApiError::conflict(format!(
            "build {id} {state}; it has no guest with a console"
        ))
    })?;
    wake(&agent, &build, request.method()).await?;
    connect(&console, request)
}

/// Lets a guest that is held run for whoever comes to type.
async fn wake(agent: &AgentState, build: &Build, method: &Method) -> Result<(), ApiError> {
    let held = build.interactive.held.map(|held| held.kind);
    if held == Some(HoldKind::Guest) && method == Method::POST {
        let woken = session::resume(&agent.guests, &build.id.to_string()).await;
        return woken.map_err(|error| ApiError::internal(&error));
    }
    Ok(())
}

impl From<AttachError> for ApiError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::NotHeld(_) | AttachError::Container(_) | AttachError::Rejected(..) => {
                Self::conflict(error.to_string())
            }
            AttachError::Ended(_) => Self::unavailable(error.to_string()),
            AttachError::Store(error) | AttachError::Job(JobError::Store(error)) => error.into(),
            error @ AttachError::Job(_) => Self::internal(&error),
        }
    }
}

/// Tells a guest that waits at its breakpoint to go on.
pub(super) async fn resume(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<(StatusCode, Json<Build>), ApiError> {
    let Path(id) = id?;
    let build = find(&agent, id).await?;
    if build.interactive.held.map(|held| held.kind) != Some(HoldKind::Breakpoint) {
        return Err(ApiError::conflict(format!(
            "build {id} does not wait at a breakpoint"
        )));
    }
    agent.jobs.resume_build(id);
    Ok((StatusCode::ACCEPTED, Json(build)))
}

/// Lets go of what is held of a build that has failed.
pub(super) async fn release(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<(StatusCode, Json<Build>), ApiError> {
    let Path(id) = id?;
    let build = find(&agent, id).await?;
    if !agent.jobs.release_hold(id) {
        return Err(ApiError::conflict(format!("nothing is held of build {id}")));
    }
    Ok((StatusCode::ACCEPTED, Json(build)))
}

pub(super) async fn of_machine(
    State(agent): State<Arc<AgentState>>,
    machine: Result<Path<MachineName>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path(machine) = machine?;
    let mut consoles = agent.guests.consoles.of_machine(&machine);
    match (consoles.pop(), consoles.is_empty()) {
        (Some((_, console)), true) => connect(&console, request),
        (Some((last, _)), false) => {
            let builds = consoles.into_iter().map(|(tag, _)| tag);
            let builds: Vec<_> = builds.chain([last]).collect();
            Err(ApiError::conflict(format!(
                "several guests of machine {machine} run; name the build, one of {}",
                builds.join(", ")
            )))
        }
        (None, _) => Err(ApiError::not_found(format!(
            "no guest of a machine {machine} runs; `buildhost builds` shows what does"
        ))),
    }
}

/// Boots a copy of what is held of a build; the connection becomes its console, and the
/// copy goes with it.
pub(super) async fn attach(
    State(agent): State<Arc<AgentState>>,
    Extension(Caller { submitter, .. }): Extension<Caller>,
    id: Result<Path<BuildId>, PathRejection>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let build = find(&agent, id).await?;
    let upgrade = upgrade(&mut request)?;
    let visit = debug_session::attach(&agent, build, submitter).await?;
    let console = visit.console.clone();
    relay(&console, true, upgrade, Some(visit))
}

/// Answers that the connection is the console's from now on.
fn connect(console: &Console, mut request: Request) -> Result<Response, ApiError> {
    let types = request.method() == Method::POST;
    relay(console, types, upgrade(&mut request)?, None)
}

/// What turns the connection into another one, if that is asked for.
fn upgrade(request: &mut Request) -> Result<OnUpgrade, ApiError> {
    let asked = request.headers().get(header::UPGRADE);
    let asked = asked.is_some_and(|protocol| protocol == CONSOLE_PROTOCOL);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| asked).ok_or_else(|| {
        ApiError::bad_request(format!(
            "a console needs a connection of its own: ask with `Upgrade: {CONSOLE_PROTOCOL}`"
        ))
    })
}

/// Lets the connection be the console's; what is kept is dropped at its end.
fn relay(
    console: &Console,
    types: bool,
    upgrade: OnUpgrade,
    kept: Option<DebugConsole>,
) -> Result<Response, ApiError> {
    let viewer = console.join(types);
    let viewer = viewer.map_err(|unheard| ApiError::conflict(unheard.to_string()))?;
    tokio::spawn(async move {
        let _kept = kept;
        // Whoever asked may have gone.
        let Ok(stream) = upgrade.await else { return };
        if let Err(error) = viewer.relay(TokioIo::new(stream)).await {
            debug!(%error, "somebody at a console has gone");
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
