//! The agent's side of the handshake on a guest's control port,
//! [`config::task::CONTROL_PORT`]: the worker reports that it is ready and begins when it
//! receives the start message. The worker of a build with secrets requests them here as well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::task::{READY, StartMessage};
use rustix::rand::{GetRandomFlags, getrandom};
use sys::observer::Observer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tracing::warn;

use super::secrets::{self, GuestSecrets};

/// The longest line that a worker sends.
const LINE_MAX: usize = 64;
/// The time in which a guest must read the start message.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The answer to a guest that is ready.
#[derive(Debug)]
pub enum HandshakeMode {
    /// The guest booted: each of its ready lines is answered.
    Cold,
    /// The guest was restored and was ready when its checkpoint was saved: it is answered
    /// at once, and again for each ready line.
    Restore,
    /// A checkpoint of the guest is to be saved: it is never answered, and its first ready
    /// line is reported here.
    CheckpointSource(oneshot::Sender<()>),
}

/// Serves the control port of one guest until the guest has ended or breaks the protocol.
/// `observer` observes the arrival of bytes.
pub async fn serve(
    mut stream: UnixStream,
    mode: HandshakeMode,
    observer: Observer,
    secrets: GuestSecrets,
) {
    let (is_answered, mut report) = match mode {
        HandshakeMode::Cold => (true, None),
        HandshakeMode::Restore => {
            send_start(&mut stream).await;
            (true, None)
        }
        HandshakeMode::CheckpointSource(report) => (false, Some(report)),
    };
    let mut received = Vec::new();
    let mut buffer = [0; LINE_MAX];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        received.extend_from_slice(&buffer[..count]);
        observer.observe();
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = received.drain(..=end).collect();
            if let Some(answer) = secrets.answer(&line).await {
                secrets::send(&mut stream, &answer).await;
            }
            if line.trim_ascii() != READY.as_bytes() {
                continue;
            }
            if is_answered {
                send_start(&mut stream).await;
            } else if let Some(report) = report.take() {
                // The receiver is gone when the session has ended.
                let _ = report.send(());
            }
        }
        if received.len() > LINE_MAX {
            return warn!("the guest sends too long a line on its control port");
        }
    }
}

/// Sends the start message. A guest that misses it reports again that it is ready.
async fn send_start(stream: &mut UnixStream) {
    let message = match start_message() {
        Ok(message) => message.print(),
        Err(error) => return warn!(%error, "cannot draw random bytes for a guest"),
    };
    let sent = tokio::time::timeout(SEND_LIMIT, stream.write_all(message.as_bytes())).await;
    if !matches!(sent, Ok(Ok(()))) {
        warn!("the guest does not read its control port");
    }
}

fn start_message() -> std::io::Result<StartMessage> {
    let mut random = [0; 64];
    // The kernel never interrupts a read of so few bytes.
    let drawn = getrandom(&mut random[..], GetRandomFlags::empty())?;
    if drawn < random.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = time.map_err(std::io::Error::other)?;
    Ok(StartMessage { time, random })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn each_start_message_has_other_random_bytes() {
        let (agent_end, guest_end) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(serve(
            agent_end,
            HandshakeMode::Restore,
            Observer::default(),
            GuestSecrets::default(),
        ));
        let mut guest = BufReader::new(guest_end);
        let mut messages = Vec::new();
        for _ in 0..2 {
            let mut line = String::new();
            guest.read_line(&mut line).await.unwrap();
            messages.push(StartMessage::parse(&line).unwrap());
            guest.write_all(b"hello\nready\n").await.unwrap();
        }
        assert_ne!(messages[0].random, messages[1].random);
        drop(guest);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_checkpoint_source_is_reported_and_never_answered() {
        let (agent_end, mut guest) = UnixStream::pair().unwrap();
        let (sender, ready) = oneshot::channel();
        let serving = tokio::spawn(serve(
            agent_end,
            HandshakeMode::CheckpointSource(sender),
            Observer::default(),
            GuestSecrets::default(),
        ));
        guest.write_all(b"ready\nready\n").await.unwrap();
        ready.await.unwrap();
        // A line without an end breaks the protocol.
        guest.write_all(&[b'x'; 500]).await.unwrap();
        serving.await.unwrap();
        let mut answer = Vec::new();
        // The unread rest makes this an error; an answer would have come before it.
        let _ = guest.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }
}
