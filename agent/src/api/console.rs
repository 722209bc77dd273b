//! Requests whose connection becomes that of a guest's console: read-only with GET,
//! interactive with POST.

pub(super) mod web_socket;

use std::error::Error;
use std::io;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::builds::{Build, CONSOLE_PROTOCOL, HoldKind, Submitter, Typist};
use config::tokens::Scope;
use config::{AuxiliaryTag, BuildId, GuestTag, MachineName};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use secrets::SecretsError;
use serde::Deserialize;
use session::console::Console;
use sys::blocking::blocking;
use tracing::debug;

use super::auth::Caller;
use super::builds::find;
use super::error::ApiError;
use super::permission::Permission;
use jobs::JobError;
use jobs::debug_session::{self, AttachError, DebugConsole};
use state::AgentState;

/// The part that a person has at a console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typing {
    /// The person types.
    Types,
    /// The person only watches.
    Watches,
}

impl Typing {
    /// Returns the part of the sender of a request.
    fn of(method: &Method) -> Self {
        if method == Method::POST {
            Self::Types
        } else {
            Self::Watches
        }
    }
}

pub(super) async fn of_build(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<ConsoleQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (Path(id), Query(query)) = (id?, query?);
    if let Some(number) = query.auxiliary {
        return of_auxiliary(&agent, &find(&agent, id).await?, number, request);
    }
    let typing = Typing::of(request.method());
    let console = console_of(&agent, id, &caller, typing).await?;
    connect(
        &console,
        request,
        record(agent, id.to_string(), caller.submitter),
    )
}

/// Returns the console of a build's guest for a person who may use it, and resumes a suspended guest
/// for one who types.
async fn console_of(
    agent: &AgentState,
    id: BuildId,
    caller: &Caller,
    typing: Typing,
) -> Result<Console, ApiError> {
    let build = find(agent, id).await?;
    refuse_secrets(agent, &build, caller, typing).await?;
    let console = agent.guests.consoles.of_build(id).ok_or_else(|| {
        let state = match build.outcome {
            Some(outcome) => format!("has finished: {outcome}"),
            None => format!("is {}", build.state),
        };
        ApiError::conflict(format!(
            "build {id} {state}; it has no guest with a console"
        ))
    })?;
    resume_held_guest(agent, &build, typing).await?;
    Ok(console)
}

/// The guest of a build whose console is requested.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsoleQuery {
    /// The number of an auxiliary guest, instead of the build's own.
    auxiliary: Option<u8>,
}

/// Connects to the console of an auxiliary guest.
fn of_auxiliary(
    agent: &AgentState,
    build: &Build,
    number: u8,
    request: Request,
) -> Result<Response, ApiError> {
    let tag = auxiliary_tag(build, number)?;
    let console = agent.guests.consoles.of(&tag.to_string()).ok_or_else(|| {
        ApiError::conflict(format!(
            "auxiliary guest {number} of build {} does not run; `buildhost log {0} --auxiliary` prints what its console has shown",
            build.id
        ))
    })?;
    connect(&console, request, std::future::ready(Ok(())))
}

/// Returns the short name of an auxiliary guest of a build.
///
/// # Errors
/// The build has no such guest.
pub(super) fn auxiliary_tag(build: &Build, number: u8) -> Result<AuxiliaryTag, ApiError> {
    let mut tags = jobs::build::auxiliary_tags(build);
    tags.find(|tag| tag.number == number).ok_or_else(|| {
        ApiError::not_found(format!(
            "build {} has no auxiliary machine {number}; it has {}",
            build.id,
            build.auxiliaries().count()
        ))
    })
}

/// Refuses a person who wants to type on the console of a guest that has secrets which the person
/// may not have.
async fn refuse_secrets(
    agent: &AgentState,
    build: &Build,
    caller: &Caller,
    typing: Typing,
) -> Result<(), ApiError> {
    let (is_admin, submitter) = (caller.scope == Scope::Admin, caller.submitter.clone());
    if build.secrets.is_empty() || is_admin || typing == Typing::Watches {
        return Ok(());
    }
    let (store, names) = (agent.secrets.clone(), build.secrets.clone());
    let checked = blocking(move || store.check(&names, &submitter)).await;
    checked.map_err(|error| {
        let detail = format!(
            "the guest of build {} has secrets, so only --read-only is allowed: {error}",
            build.id
        );
        match error {
            SecretsError::Forbidden { .. } | SecretsError::Missing(_) => {
                ApiError::forbidden(detail)
            }
            error => ApiError::internal(&error),
        }
    })
}

/// Records a person on the console of a build's guest. The people on the consoles of other
/// guests are not recorded: see [`Console::was_typed_on`].
async fn record(agent: Arc<AgentState>, tag: String, submitter: Submitter) -> io::Result<()> {
    let Ok(GuestTag::Build(id)) = tag.parse() else {
        return Ok(());
    };
    let at = Timestamp::now();
    let typist = Typist { submitter, at };
    let recorded = agent.records.add_typist(id, typist).await;
    recorded.map_err(io::Error::other)
}

/// Resumes a suspended guest before an interactive connection.
async fn resume_held_guest(
    agent: &AgentState,
    build: &Build,
    typing: Typing,
) -> Result<(), ApiError> {
    let held = build.interactive.held.map(|held| held.kind);
    if held == Some(HoldKind::Guest) && typing == Typing::Types {
        let resumed = session::resume(&agent.guests, &build.id.to_string()).await;
        return resumed.map_err(|error| ApiError::internal(&error));
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

/// Lets a build continue from its breakpoint.
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

/// Ends the hold of a failed build.
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
    Extension(caller): Extension<Caller>,
    machine: Result<Path<MachineName>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path(machine) = machine?;
    let mut consoles = agent.guests.consoles.of_machine(&machine);
    match (consoles.pop(), consoles.is_empty()) {
        (Some((tag, console)), true) => {
            if let Ok(GuestTag::Build(id)) = tag.parse() {
                let build = find(&agent, id).await?;
                let typing = Typing::of(request.method());
                refuse_secrets(&agent, &build, &caller, typing).await?;
            }
            connect(&console, request, record(agent, tag, caller.submitter))
        }
        (Some((last, _)), false) => {
            let builds = consoles.into_iter().map(|(tag, _)| tag);
            let builds: Vec<_> = builds.chain([last]).collect();
            Err(ApiError::conflict(format!(
                "several guests of machine {machine} run; name one of the builds {}",
                builds.join(", ")
            )))
        }
        (None, _) => Err(ApiError::not_found(format!(
            "no guest of a machine {machine} runs; `buildhost builds` lists the running builds"
        ))),
    }
}

/// Starts a debug session in a copy of a held build. The session ends with the connection.
pub(super) async fn attach(
    State(agent): State<Arc<AgentState>>,
    Extension(Caller { submitter, .. }): Extension<Caller>,
    id: Result<Path<BuildId>, PathRejection>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let build = find(&agent, id).await?;
    let connection = Connection::of(&mut request)?;
    let session = debug_session::attach(&agent, build, submitter).await?;
    let console = session.console.clone();
    let not_recorded = std::future::ready(Ok(()));
    relay(&console, true, connection, Some(session), not_recorded)
}

/// Turns the request's connection into one with the console. Runs `before_input` before the
/// guest receives input.
fn connect(
    console: &Console,
    mut request: Request,
    before_input: impl Future<Output = io::Result<()>> + Send + 'static,
) -> Result<Response, ApiError> {
    let is_interactive = request.method() == Method::POST;
    let connection = Connection::of(&mut request)?;
    relay(console, is_interactive, connection, None, before_input)
}

/// The connection of a request that becomes that of a console.
struct Connection {
    upgrade: OnUpgrade,
    permission: Permission,
}

impl Connection {
    /// Takes the connection of an authorized request.
    ///
    /// # Errors
    /// The request does not ask for an upgrade to the protocol of consoles.
    fn of(request: &mut Request) -> Result<Self, ApiError> {
        let upgrade = upgrade(request, CONSOLE_PROTOCOL)?;
        let permission = request.extensions_mut().remove::<Permission>();
        let permission = permission.ok_or_else(ApiError::missing_token)?;
        Ok(Self {
            upgrade,
            permission,
        })
    }
}

/// Returns the upgrade of the request's connection.
///
/// # Errors
/// The request does not ask for an upgrade to this protocol.
pub(super) fn upgrade(request: &mut Request, protocol: &str) -> Result<OnUpgrade, ApiError> {
    let requested = request.headers().get(header::UPGRADE);
    let is_requested = requested.is_some_and(|it| it == protocol);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| is_requested).ok_or_else(|| {
        ApiError::bad_request(format!(
            "this request needs the header `Upgrade: {protocol}`"
        ))
    })
}

/// Returns the answer that switches to a protocol.
pub(super) fn switch(protocol: &'static str) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(protocol)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Relays between the upgraded connection and the console in a task of its own, until the caller
/// has lost the right to it. The task ends the debug session, if any, with the connection.
fn relay(
    console: &Console,
    is_interactive: bool,
    connection: Connection,
    session: Option<DebugConsole>,
    before_input: impl Future<Output = io::Result<()>> + Send + 'static,
) -> Result<Response, ApiError> {
    let viewer = console.join(is_interactive);
    let viewer = viewer.map_err(|error| ApiError::conflict(error.to_string()))?;
    tokio::spawn(async move {
        let _session = session;
        // Fails if the client has disconnected.
        let Ok(stream) = connection.upgrade.await else {
            return;
        };
        tokio::select! {
            ended = viewer.relay(TokioIo::new(stream), before_input) => {
                if let Err(error) = ended {
                    debug!(error = &error as &dyn Error, "console connection failed");
                }
            }
            () = connection.permission.lost() => {}
        }
    });
    Ok(switch(CONSOLE_PROTOCOL))
}
