//! BitBake's protocol over a websocket: each line is a text frame without its newline.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::response::Response;
use tokio::sync::watch;

use crate::desk::Desk;
use crate::server::dialogue::{Dialogue, Framing, Next};
use crate::wire::MESSAGE_BYTES_MAX;
use crate::wire::inbox::Inbox;

/// Takes the connection over.
pub(super) fn upgrade(
    State(desk): State<Desk>,
    Extension(stop): Extension<watch::Receiver<bool>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| serve(desk, socket, stop))
}

async fn serve(desk: Desk, mut socket: WebSocket, mut stop: watch::Receiver<bool>) {
    let peer = desk.peer.name.clone();
    let mut dialogue = Dialogue::new(desk, Inbox::of_frames(), Framing::Whole);
    loop {
        let received = tokio::select! {
            received = socket.recv() => received,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match received {
            Some(Ok(Message::Text(text))) => {
                let line = text.as_str().replace('\n', " "); // a frame is one line
                dialogue.inbox.buffer().extend_from_slice(line.as_bytes());
                dialogue.inbox.buffer().push(b'\n');
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
        }
        let next = loop {
            let handled = dialogue.handle().await;
            if send(&mut socket, &mut dialogue.outbox).await.is_err() {
                return;
            }
            match handled {
                Ok(Next::Go) => {}
                Ok(next) => break next,
                Err(error) => {
                    tracing::warn!(%peer, %error, "closing a websocket");
                    return;
                }
            }
        };
        if next == Next::Close {
            return;
        }
    }
}

/// Sends each line as a frame.
async fn send(socket: &mut WebSocket, outbox: &mut Vec<u8>) -> Result<(), axum::Error> {
    let text = String::from_utf8(std::mem::take(outbox)).map_err(axum::Error::new)?;
    for line in text.split_terminator('\n') {
        socket.send(Message::text(line)).await?;
    }
    Ok(())
}
