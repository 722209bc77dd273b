//! BitBake's protocol over a websocket: each line is a text frame without its newline.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::response::Response;
use tokio::sync::watch;

use crate::server::json_session::{Framing, JsonSession, Next};
use crate::session::AuthorizedService;
use crate::wire::MESSAGE_BYTES_MAX;
use crate::wire::decoder::MessageDecoder;

/// Upgrades a connection to a websocket and serves it.
pub(super) fn upgrade(
    State(service): State<AuthorizedService>,
    Extension(stop): Extension<watch::Receiver<bool>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| serve(service, socket, stop))
}

async fn serve(service: AuthorizedService, mut socket: WebSocket, mut stop: watch::Receiver<bool>) {
    let peer = service.peer.name.clone();
    let mut session = JsonSession::new(service, MessageDecoder::for_frames(), Framing::SingleLine);
    loop {
        let received = tokio::select! {
            received = socket.recv() => received,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match received {
            Some(Ok(Message::Text(text))) => {
                let line = text.as_str().replace('\n', " "); // a frame is one line
                session.decoder.buffer().extend_from_slice(line.as_bytes());
                session.decoder.buffer().push(b'\n');
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
        }
        let next = loop {
            let handled = session.handle().await;
            if send(&mut socket, &mut session.output).await.is_err() {
                return;
            }
            session.unsent_export = None;
            match handled {
                Ok(Next::Continue) => {}
                Ok(next) => break next,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, %peer, "closing a websocket");
                    return;
                }
            }
        };
        if next == Next::Close {
            return;
        }
    }
}

/// Sends each line of the output as a frame.
async fn send(socket: &mut WebSocket, output: &mut Vec<u8>) -> Result<(), axum::Error> {
    let text = String::from_utf8(std::mem::take(output)).map_err(axum::Error::new)?;
    for line in text.split_terminator('\n') {
        socket.send(Message::text(line)).await?;
    }
    Ok(())
}
