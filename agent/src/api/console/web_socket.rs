//! The console of a build's guest over a WebSocket, for browsers. The limits, the one seat of the
//! person who types, and the record of typists are those of the other connections.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Path, Query, State};
use axum::response::Response;
use config::BuildId;
use config::tokens::Scope;
use serde::Deserialize;
use session::console::Viewer;
use state::AgentState;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tracing::debug;

use super::{Typing, console_of, record};
use crate::api::auth::{Auth, Caller};
use crate::api::error::ApiError;
use crate::api::permission::Permission;

/// The largest message of a browser: a person pastes no more at once.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The size of the pieces in which output is sent.
const PIECE_BYTES: usize = 16 * 1024;
/// The interval of pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The options of a console.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ConsoleQuery {
    /// Types on the console; it is only watched otherwise.
    #[serde(default)]
    write: bool,
}

/// Connects a WebSocket with the console of a build's guest.
pub(in crate::api) async fn of_build(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    Extension(auth): Extension<Arc<Auth>>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<ConsoleQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let (Path(id), Query(query)) = (id?, query?);
    let (typing, needed) = if query.write {
        (Typing::Types, Scope::Admin)
    } else {
        (Typing::Watches, Scope::Read)
    };
    if caller.scope < needed {
        return Err(ApiError::forbidden(format!(
            "typing on a console needs the scope {needed}; {} has {}",
            caller.submitter, caller.scope
        )));
    }
    let console = console_of(&agent, id, &caller, typing).await?;
    let upgrade = upgrade.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let viewer = console.join(typing == Typing::Types);
    let viewer = viewer.map_err(|error| ApiError::conflict(error.to_string()))?;
    let permission = Permission::new(auth, caller.clone(), needed);
    let recorded = record(agent, id.to_string(), caller.submitter);
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        connect(socket, viewer, recorded, permission).await;
    }))
}

/// Relays between a WebSocket and a console until one of them ends, or the right of the viewer.
async fn connect(
    socket: WebSocket,
    viewer: Viewer,
    before_input: impl Future<Output = std::io::Result<()>>,
    permission: Permission,
) {
    let (ours, theirs) = tokio::io::duplex(PIECE_BYTES);
    let (output, input) = tokio::io::split(ours);
    tokio::select! {
        ended = viewer.relay(theirs, before_input) => {
            if let Err(error) = ended {
                debug!(error = &error as &dyn Error, "console connection failed");
            }
        }
        () = exchange(socket, output, input, permission) => {}
    }
}

/// Exchanges the messages of a WebSocket with a stream.
async fn exchange(
    mut socket: WebSocket,
    mut output: ReadHalf<DuplexStream>,
    mut input: WriteHalf<DuplexStream>,
    permission: Permission,
) {
    let mut lost = std::pin::pin!(permission.lost());
    let mut pings = tokio::time::interval(PING_INTERVAL);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let sent = tokio::select! {
            count = output.read(&mut piece) => match count {
                Ok(count) if count > 0 => {
                    let piece = Bytes::copy_from_slice(&piece[..count]);
                    socket.send(Message::Binary(piece)).await
                }
                _ => break,
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(typed))) => match input.write_all(&typed).await {
                    Ok(()) => Ok(()),
                    Err(_) => break,
                },
                Some(Ok(Message::Text(typed))) => match input.write_all(typed.as_bytes()).await {
                    Ok(()) => Ok(()),
                    Err(_) => break,
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            },
            _ = pings.tick() => socket.send(Message::Ping(Bytes::new())).await,
            () = &mut lost => break,
        };
        if sent.is_err() {
            break;
        }
    }
    // Fails if the browser has gone.
    let _ = socket.send(Message::Close(None)).await;
}
