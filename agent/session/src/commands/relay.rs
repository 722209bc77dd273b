//! The relay between the client of a command and the worker that runs it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use config::exec::{CommandEnd, Decoder, Frame};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::warn;

use super::{Commands, Shared};

/// The size of one read.
const PIECE: usize = 32 * 1024;
/// The interval at which a command that may be quiet counts as activity.
const QUIET_POLL: Duration = Duration::from_millis(500);

/// A command that was started, before its client is connected with it. Dropping it ends the command.
#[derive(Debug)]
pub struct RunningCommand {
    pub(super) stream: TcpStream,
    pub(super) number: u32,
    pub(super) commands: Commands,
}

impl RunningCommand {
    /// Connects a client with the command until one of them ends, and records its end before the
    /// client learns it. A client that leaves ends its command.
    pub async fn relay(mut self, client: impl AsyncRead + AsyncWrite) {
        let (from_client, mut to_client) = tokio::io::split(client);
        let end = self.connect(from_client, &mut to_client).await;
        self.record(end).await;
        // A client that has left does not need it.
        let _ = send(&mut to_client, &Frame::Ended(end)).await;
        let _ = to_client.shutdown().await;
    }

    /// Records the end of a command.
    pub async fn record(self, end: CommandEnd) {
        let ended = self.commands.0.log.end(self.number, end, Timestamp::now());
        if let Err(error) = ended.await {
            warn!(%error, "cannot record the end of a command");
        }
    }

    async fn connect(
        &mut self,
        from_client: impl AsyncRead + Unpin,
        to_client: &mut (impl AsyncWrite + Unpin),
    ) -> CommandEnd {
        let shared = &self.commands.0;
        let (from_worker, to_worker) = self.stream.split();
        let activity = LastActivity::new();
        tokio::select! {
            end = copy_output(from_worker, to_client, &activity) => end,
            () = copy_input(from_client, to_worker, &activity) => CommandEnd::Abandoned,
            () = keep_active(shared, &activity) => CommandEnd::Lost,
            () = shared.closed.cancelled() => CommandEnd::Lost,
        }
    }
}

/// Copies the frames of the worker to the client until the command has ended.
async fn copy_output(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    activity: &LastActivity,
) -> CommandEnd {
    let mut decoder = Decoder::default();
    while let Ok(Some(frame)) = receive(&mut from, &mut decoder).await {
        activity.record();
        match frame {
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Taken(_) => {
                if send(to, &frame).await.is_err() {
                    return CommandEnd::Abandoned;
                }
            }
            Frame::Ended(end @ (CommandEnd::Exited(_) | CommandEnd::Signal(_))) => return end,
            _ => return CommandEnd::Lost,
        }
    }
    CommandEnd::Lost
}

/// Copies the input of the client to the worker until the client leaves or breaks the protocol. The
/// window of the input bounds what waits for a worker that is slow.
async fn copy_input(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &LastActivity,
) {
    let mut decoder = Decoder::default();
    while let Ok(Some(frame)) = receive(&mut from, &mut decoder).await {
        activity.record();
        if !matches!(frame, Frame::Stdin(_) | Frame::StdinEnd) {
            return;
        }
        if send(&mut to, &frame).await.is_err() {
            // The end of the output says why.
            std::future::pending::<()>().await;
        }
    }
}

/// Counts a command as activity of its guest until it has been quiet for too long; for ever.
async fn keep_active(shared: &Shared, activity: &LastActivity) {
    loop {
        if activity.quiet() < shared.quiet_max {
            shared.observer.observe();
        }
        tokio::time::sleep(QUIET_POLL).await;
    }
}

/// The time of the last frame of a command.
struct LastActivity {
    since: Instant,
    milliseconds: AtomicU64,
}

impl LastActivity {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }
    }

    fn record(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.store(now, Ordering::Relaxed);
    }

    fn quiet(&self) -> Duration {
        let last = Duration::from_millis(self.milliseconds.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }
}

/// Receives the next frame; `None` at the end of the stream. Cancel-safe, as the decoder keeps what
/// has arrived.
pub(super) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> io::Result<Option<Frame>> {
    let mut piece = vec![0; PIECE];
    loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            return Ok(Some(frame));
        }
        match from.read(&mut piece).await? {
            0 => return Ok(None),
            count => decoder.push(&piece[..count]),
        }
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    to.write_all(&frame.to_bytes()).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a frame's relay result with these frames of the worker, and what the client got.
    async fn output_of(frames: &[Frame]) -> (CommandEnd, Vec<u8>) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        let mut client = Vec::new();
        let end = copy_output(bytes.as_slice(), &mut client, &LastActivity::new()).await;
        (end, client)
    }

    #[tokio::test]
    async fn only_output_and_the_end_come_from_a_worker() {
        let output = Frame::Stdout(b"\0binary\xff".to_vec());
        let ended = Frame::Ended(CommandEnd::Exited(3));
        let (end, client) = output_of(&[output.clone(), ended]).await;
        assert_eq!((end, client), (CommandEnd::Exited(3), output.to_bytes()));
        for hostile in [
            Frame::Stop,
            Frame::Stdin(Vec::new()),
            Frame::Ended(CommandEnd::Abandoned),
        ] {
            let (end, client) = output_of(&[output.clone(), hostile]).await;
            assert_eq!((end, client), (CommandEnd::Lost, output.to_bytes()));
        }
        assert_eq!(output_of(&[]).await.0, CommandEnd::Lost);
    }

    #[tokio::test]
    async fn only_input_comes_from_a_client() {
        let bytes = [
            Frame::Stdin(b"in".to_vec()).to_bytes(),
            Frame::StdinEnd.to_bytes(),
            Frame::Stop.to_bytes(),
            Frame::Stdin(b"more".to_vec()).to_bytes(),
        ];
        let mut worker = Vec::new();
        let activity = LastActivity::new();
        copy_input(bytes.concat().as_slice(), &mut worker, &activity).await;
        assert_eq!(worker, bytes[..2].concat());
    }
}
