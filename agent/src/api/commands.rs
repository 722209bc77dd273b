//! Requests about driven guests: run a command, list the commands, stop the guest.

use std::error::Error;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{Json, Response};
use config::BuildId;
use config::builds::{Build, State as BuildState};
use config::exec::{Command, CommandEnd, CommandRecord, PROTOCOL};
use config::tokens::Scope;
use hyper_util::rt::TokioIo;
use session::commands::{COMMANDS_FILE, Commands, StartError, read_commands};
use sys::blocking::blocking;
use tracing::{Instrument, debug, info, info_span};

use super::auth::Caller;
use super::builds::find;
use super::console::{switch, upgrade};
use super::error::ApiError;
use state::AgentState;

/// Runs a command in the guest of a build. The connection becomes that of the command.
pub(super) async fn exec(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<BuildId>, PathRejection>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let upgrade = upgrade(&mut request, PROTOCOL);
    let Json(command) = Json::<Command>::from_request(request, &()).await?;
    command
        .check()
        .map_err(|error| ApiError::unprocessable(error.to_string()))?;
    let commands = find_commands(&agent, id, &caller).await?;
    let upgrade = upgrade?;
    info!(build = %id, by = %caller.submitter, "starting a command");
    let running = commands.start(command, caller.submitter).await?;
    // It ends with its guest or its client: the agent does not wait for it.
    tokio::spawn(
        async move {
            match upgrade.await {
                Ok(stream) => running.relay(TokioIo::new(stream)).await,
                Err(error) => {
                    debug!(error = &error as &dyn Error, "the client of a command left");
                    running.record(CommandEnd::Abandoned).await;
                }
            }
        }
        .instrument(info_span!("command", build = %id)),
    );
    Ok(switch(PROTOCOL))
}

/// Lets the guest of a build end with success.
pub(super) async fn stop(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<(StatusCode, Json<Build>), ApiError> {
    let Path(id) = id?;
    find_commands(&agent, id, &caller).await?.stop().await?;
    Ok((StatusCode::ACCEPTED, Json(find(&agent, id).await?)))
}

/// Lists the commands of a build, the oldest first.
pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<Json<Vec<CommandRecord>>, ApiError> {
    let Path(id) = id?;
    let build = find(&agent, id).await?;
    let path = agent.paths.build(id).join(COMMANDS_FILE);
    let commands = blocking(move || read_commands(&path)).await;
    let mut commands = commands.map_err(|error| ApiError::internal(&error))?;
    if build.outcome.is_some() {
        for command in &mut commands {
            command.end.get_or_insert(CommandEnd::Lost);
        }
    }
    Ok(Json(commands))
}

/// Returns the commands of a build's guest, which the caller may use.
async fn find_commands(
    agent: &AgentState,
    id: BuildId,
    caller: &Caller,
) -> Result<Commands, ApiError> {
    let build = find(agent, id).await?;
    if build.interactive.commands.is_none() {
        return Err(ApiError::conflict(format!(
            "build {id} runs the task that it was submitted with; only a guest of `buildhost guest start` runs commands"
        )));
    }
    if caller.scope < Scope::Admin && caller.submitter != build.submitter {
        return Err(ApiError::forbidden(format!(
            "the guest of build {id} is for {}; {} may not use it",
            build.submitter, caller.submitter
        )));
    }
    let commands = match build.state {
        BuildState::Running => agent.guests.commands.of_build(id),
        _ => None,
    };
    commands.ok_or_else(|| {
        ApiError::conflict(match build.outcome {
            Some(outcome) => format!("build {id} has finished: {outcome}"),
            None if build.state < BuildState::Running => format!(
                "build {id} is {}; its guest takes commands once it is running, and `buildhost cancel {id}` ends it",
                build.state
            ),
            None => format!("build {id} is {}; its guest has ended", build.state),
        })
    })
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Busy | StartError::Ended => Self::conflict(error.to_string()),
            error @ StartError::Worker(_) => Self::unavailable(sys::error_report::chain(&error)),
            error @ StartError::Record(_) => Self::internal(&error),
        }
    }
}
