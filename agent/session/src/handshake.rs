//! The agent's side of the handshake on a guest's control port,
//! [`config::task::CONTROL_PORT`]: the worker reports that it is ready and begins when it
//! receives the start message. The worker of a build with secrets requests them here as well, and
//! the worker of a guest that is forked waits here until its copies are made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::task::{FORK, ForkIdentity, PRELOAD, Preload, READY, StartMessage};
use sys::observer::Observer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
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
    /// A checkpoint of the guest is to be saved: its worker preloads if it can. Its first ready
    /// line after that is not answered, and reported here.
    CheckpointSource(Preload, oneshot::Sender<()>),
}

/// A request of the agent about a guest that runs.
#[derive(Debug)]
pub enum ControlRequest {
    /// Let the worker stop its processes, and report here when it has.
    Fork(oneshot::Sender<()>),
    /// Let them go on, with this identity if the guest was forked.
    Continue(Option<ForkIdentity>),
}

/// The service of one guest's control port.
#[derive(Debug)]
pub struct ControlPort {
    /// The answer to the guest when it starts.
    pub mode: HandshakeMode,
    /// The identity of the guest after a fork.
    pub fork: Option<ForkIdentity>,
    /// Observes the arrival of bytes.
    pub observer: Observer,
    /// The requests of the agent.
    pub requests: mpsc::Receiver<ControlRequest>,
    /// The secrets that its worker may request.
    pub secrets: GuestSecrets,
}

/// The answer to a ready line.
enum Answer {
    /// The start message.
    Start,
    /// The request to preload if the worker has offered that in the line before, once.
    Preload(Preloading, Option<oneshot::Sender<()>>),
    /// None; the line is reported here once.
    Report(Option<oneshot::Sender<()>>),
}

impl Answer {
    /// Answers a line of the worker.
    async fn reply(&mut self, line: &[u8], stream: &mut UnixStream, fork: Option<ForkIdentity>) {
        match self {
            Self::Start if line == READY.as_bytes() => send_start(stream, fork).await,
            Self::Report(report) if line == READY.as_bytes() => send_report(report),
            Self::Preload(state, report) => match state.step(line) {
                Step::Wait => {}
                Step::Preload => send(stream, &state.request.print()).await,
                Step::Report => send_report(report),
            },
            Self::Start | Self::Report(_) => {}
        }
    }
}

/// Reports a ready line once. The receiver is gone when the session has ended.
fn send_report(report: &mut Option<oneshot::Sender<()>>) {
    report.take().map(|report| report.send(()));
}

/// The state of a checkpoint source whose worker may preload.
#[derive(Debug, Default)]
struct Preloading {
    request: Preload,
    is_offered: bool,
    is_requested: bool,
}

/// The next step after a line of the worker of a checkpoint source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    Preload,
    Report,
}

impl Preloading {
    /// Returns the step after a line. A worker repeats its offer until it has the request, so a
    /// line that it had sent before is no report.
    fn step(&mut self, line: &[u8]) -> Step {
        if line == PRELOAD.as_bytes() {
            self.is_offered = true;
        }
        if line != READY.as_bytes() {
            return Step::Wait;
        }
        match (
            std::mem::take(&mut self.is_offered),
            std::mem::replace(&mut self.is_requested, true),
        ) {
            (false, _) => Step::Report,
            (true, false) => Step::Preload,
            (true, true) => Step::Wait,
        }
    }
}

/// Serves the control port of one guest that is never forked. See [`ControlPort::serve`].
pub async fn serve(
    stream: UnixStream,
    mode: HandshakeMode,
    observer: Observer,
    secrets: GuestSecrets,
) {
    let (_, requests) = mpsc::channel(1);
    let port = ControlPort {
        mode,
        fork: None,
        observer,
        requests,
        secrets,
    };
    port.serve(stream).await;
}

impl ControlPort {
    /// Serves the control port until the guest has ended or breaks the protocol.
    pub async fn serve(mut self, mut stream: UnixStream) {
        let mut answer = match self.mode {
            HandshakeMode::Cold => Answer::Start,
            HandshakeMode::Restore => {
                send_start(&mut stream, self.fork).await;
                Answer::Start
            }
            HandshakeMode::CheckpointSource(request, report) => {
                let preloading = Preloading {
                    request,
                    ..Preloading::default()
                };
                Answer::Preload(preloading, Some(report))
            }
        };
        let mut received = Vec::new();
        let mut buffer = [0; LINE_MAX];
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => {
                    let Ok(count @ 1..) = read else { return };
                    received.extend_from_slice(&buffer[..count]);
                    self.observer.observe();
                }
                Some(request) = self.requests.recv() => match request {
                    ControlRequest::Fork(report) => {
                        answer = Answer::Report(Some(report));
                        send(&mut stream, &format!("{FORK}\n")).await;
                    }
                    ControlRequest::Continue(fork) => {
                        self.fork = fork.or(self.fork);
                        answer = Answer::Start;
                        send_start(&mut stream, self.fork).await;
                    }
                },
            }
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = received.drain(..=end).collect();
                if let Some(answer) = self.secrets.answer(&line).await {
                    secrets::send(&mut stream, &answer).await;
                }
                answer
                    .reply(line.trim_ascii(), &mut stream, self.fork)
                    .await;
            }
            if received.len() > LINE_MAX {
                return warn!("the guest sends too long a line on its control port");
            }
        }
    }
}

/// Sends the start message. A guest that misses it reports again that it is ready.
async fn send_start(stream: &mut UnixStream, fork: Option<ForkIdentity>) {
    match start_message(fork) {
        Ok(message) => send(stream, &message.print()).await,
        Err(error) => warn!(%error, "cannot draw random bytes for a guest"),
    }
}

async fn send(stream: &mut UnixStream, line: &str) {
    let sent = tokio::time::timeout(SEND_LIMIT, stream.write_all(line.as_bytes())).await;
    if !matches!(sent, Ok(Ok(()))) {
        warn!("the guest does not read its control port");
    }
}

fn start_message(fork: Option<ForkIdentity>) -> std::io::Result<StartMessage> {
    let random = sys::random::bytes()?;
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = time.map_err(std::io::Error::other)?;
    Ok(StartMessage { time, random, fork })
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
            HandshakeMode::CheckpointSource(Preload::default(), sender),
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

    #[tokio::test]
    async fn a_checkpoint_source_that_can_preload_is_reported_when_it_has() {
        let (agent_end, guest_end) = UnixStream::pair().unwrap();
        let (sender, mut ready) = oneshot::channel();
        let serving = tokio::spawn(serve(
            agent_end,
            HandshakeMode::CheckpointSource(
                Preload {
                    cache: true,
                    hashserv: false,
                },
                sender,
            ),
            Observer::default(),
            GuestSecrets::default(),
        ));
        let mut guest = BufReader::new(guest_end);
        guest
            .write_all(b"preload\nrehearsal\nready\n")
            .await
            .unwrap();
        let mut line = String::new();
        guest.read_line(&mut line).await.unwrap();
        assert_eq!(line, "preload cache\n");
        assert!(ready.try_recv().is_err(), "it has not preloaded");
        guest.write_all(b"rehearsal\nready\n").await.unwrap();
        ready.await.unwrap();
        drop(guest);
        serving.await.unwrap();
    }

    #[test]
    fn an_offer_that_crosses_the_request_is_no_report() {
        let mut state = Preloading::default();
        let mut step = |line: &str| state.step(line.as_bytes());
        let lines = ["preload", "rehearsal", "ready", "preload", "ready", "ready"];
        let steps: Vec<_> = lines.iter().map(|line| step(line)).collect();
        assert_eq!(
            steps,
            [
                Step::Wait,
                Step::Wait,
                Step::Preload,
                Step::Wait,
                Step::Wait,
                Step::Report
            ]
        );
    }

    #[tokio::test]
    async fn a_guest_that_is_forked_is_answered_when_its_copies_are_made() {
        let (agent_end, guest) = UnixStream::pair().unwrap();
        let mut guest = BufReader::new(guest);
        let (requests, receiver) = mpsc::channel(1);
        let port = ControlPort {
            mode: HandshakeMode::Cold,
            fork: None,
            observer: Observer::default(),
            requests: receiver,
            secrets: GuestSecrets::default(),
        };
        let serving = tokio::spawn(port.serve(agent_end));
        let (report, ready) = oneshot::channel();
        requests.send(ControlRequest::Fork(report)).await.unwrap();
        let mut line = String::new();
        guest.read_line(&mut line).await.unwrap();
        assert_eq!(line, "fork\n");
        guest.write_all(b"ready\nready\n").await.unwrap();
        ready.await.unwrap();
        let fork = ForkIdentity {
            number: 0,
            copies: 8,
        };
        let go_on = ControlRequest::Continue(Some(fork));
        requests.send(go_on).await.unwrap();
        line.clear();
        guest.read_line(&mut line).await.unwrap();
        assert_eq!(StartMessage::parse(&line).unwrap().fork, Some(fork));
        // A worker that repeats itself is answered from now on, also without requests.
        drop(requests);
        guest.write_all(b"ready\n").await.unwrap();
        line.clear();
        guest.read_line(&mut line).await.unwrap();
        assert_eq!(StartMessage::parse(&line).unwrap().fork, Some(fork));
        drop(guest);
        serving.await.unwrap();
    }
}
