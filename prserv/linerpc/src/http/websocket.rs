//! The protocol over a websocket: each line is a text frame without its newline.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::sync::watch;

use crate::framing::Framing;
use crate::session::{Endpoint, Next, Session};

/// Upgrades a connection to a websocket and serves it. Frames are at most as long as a message of
/// the session may be.
pub fn upgrade<E: Endpoint>(
    endpoint: E,
    stop: watch::Receiver<bool>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let mut session = endpoint.session(Framing::SingleLine);
    let bytes_max = session.buffers().decoder.message_bytes_max();
    upgrade
        .max_message_size(bytes_max)
        .on_upgrade(move |socket| serve(endpoint, session, socket, stop))
}

async fn serve<E: Endpoint>(
    endpoint: E,
    mut session: E::Session,
    mut socket: WebSocket,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let received = tokio::select! {
            received = socket.recv() => received,
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match received {
            Some(Ok(Message::Text(text))) => {
                let line = text.as_str().replace('\n', " "); // a frame is one line
                let buffer = session.buffers().decoder.buffer();
                buffer.extend_from_slice(line.as_bytes());
                buffer.push(b'\n');
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
        }
        let next = loop {
            let handled = session.handle().await;
            let output = std::mem::take(&mut session.buffers().output);
            if send(&mut socket, output).await.is_err() {
                return;
            }
            session.output_sent();
            match handled {
                Ok(Next::Continue) => {}
                Ok(next) => break next,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, peer = %endpoint.peer_name(), "closing a websocket");
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
async fn send(socket: &mut WebSocket, output: Vec<u8>) -> Result<(), axum::Error> {
    let text = String::from_utf8(output).map_err(axum::Error::new)?;
    for line in text.split_terminator('\n') {
        socket.send(Message::text(line)).await?;
    }
    Ok(())
}
