//! The secrets of a build on their way to its guest: once, at the request of the worker, through
//! the control port or a connection to the gateway.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use config::SecretName;
use config::secrets::{Mask, RECEIVED, REQUEST, SecretMessage, SecretValue};
use sys::blocking::blocking;
use sys::observer::Observer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{info, warn};
use zeroize::Zeroizing;

/// The file in a guest's run directory that exists once the guest has its secrets, for the next
/// agent.
const MARK: &str = "secrets-received";
/// The longest line that a worker sends.
const LINE_MAX: usize = 64;
/// The time in which a guest must read a message.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// The time for which a connection may be quiet: meanwhile no other one is accepted.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The secrets of one guest. Clones share them.
#[derive(Clone, Default)]
pub struct GuestSecrets(Arc<Shared>);

#[derive(Default)]
struct Shared {
    messages: Vec<SecretMessage>,
    mask: Mask,
    requested: AtomicBool,
    received: AtomicBool,
    mark: OnceLock<PathBuf>,
}

impl fmt::Debug for GuestSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.messages.iter().map(|it| &it.name).collect();
        f.debug_tuple("GuestSecrets").field(&names).finish()
    }
}

impl GuestSecrets {
    /// Returns the secrets with these values.
    pub fn new(values: Vec<(SecretName, SecretValue)>) -> Self {
        let mask = Mask::new(values.iter().map(|(_, value)| value));
        let messages = values.into_iter();
        Self(Arc::new(Shared {
            messages: messages
                .map(|(name, value)| SecretMessage { name, value })
                .collect(),
            mask,
            ..Shared::default()
        }))
    }

    /// Returns true if the guest gets no secrets.
    pub fn is_empty(&self) -> bool {
        self.0.messages.is_empty()
    }

    /// Returns the mask of the guest's output.
    pub fn mask(&self) -> Mask {
        self.0.mask.clone()
    }

    /// Returns true if the worker has requested its secrets: it knows them.
    pub fn were_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Sets the run directory of the guest, which says after a restart of the agent whether the
    /// guest has its secrets.
    pub(super) fn set_run_dir(&self, run_dir: &Path) {
        let mark = self.0.mark.get_or_init(|| run_dir.join(MARK));
        if mark.exists() {
            self.0.requested.store(true, Ordering::SeqCst);
            self.0.received.store(true, Ordering::SeqCst);
        }
    }

    /// Returns the answer to a line of the worker; `None` for lines of other protocols.
    pub(super) async fn answer(&self, line: &[u8]) -> Option<Zeroizing<String>> {
        let line = line.trim_ascii();
        if line == RECEIVED.as_bytes() && self.were_requested() {
            self.mark_received().await;
        }
        if line != REQUEST.as_bytes() || self.is_empty() {
            return None;
        }
        self.0.requested.store(true, Ordering::SeqCst);
        if self.0.received.load(Ordering::SeqCst) {
            warn!("the guest requests its secrets a second time; it gets nothing");
            return None;
        }
        let mut answer = Zeroizing::new(String::new());
        for message in &self.0.messages {
            answer.push_str(&message.print());
        }
        Some(answer)
    }

    /// Notes that the guest has its secrets: later requests get nothing.
    async fn mark_received(&self) {
        if self.0.received.swap(true, Ordering::SeqCst) {
            return;
        }
        info!("the guest has received its secrets");
        if let Some(mark) = self.0.mark.get().cloned() {
            let marked = blocking(move || sys::file::replace(&mark, b"")).await;
            if let Err(error) = marked {
                warn!(%error, "cannot note that a guest has its secrets");
            }
        }
    }

    /// Serves requests over TCP, one connection after the other; for ever.
    pub(super) async fn serve(self, listener: TcpListener, observer: Observer) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.serve_connection(stream, &observer).await,
                // The agent may be out of descriptors for a while.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn serve_connection(&self, stream: impl AsyncRead + AsyncWrite, observer: &Observer) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (mut received, mut buffer) = (Vec::new(), [0; LINE_MAX]);
        while let Ok(Ok(count @ 1..)) = timeout(QUIET_MAX, reader.read(&mut buffer)).await {
            received.extend_from_slice(&buffer[..count]);
            observer.observe();
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = received.drain(..=end).collect();
                if let Some(answer) = self.answer(&line).await {
                    send(&mut writer, &answer).await;
                }
            }
            if received.len() > LINE_MAX {
                return;
            }
        }
    }
}

/// Sends secrets to a guest. A guest that misses them requests them again.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), answer: &str) {
    let sent = timeout(SEND_LIMIT, to.write_all(answer.as_bytes())).await;
    if !matches!(sent, Ok(Ok(()))) {
        warn!("the guest does not read its secrets");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpStream;

    use super::*;

    fn secrets() -> GuestSecrets {
        let value = |text: &str| SecretValue::new(text.into()).unwrap();
        GuestSecrets::new(vec![
            ("one".parse().unwrap(), value("password one")),
            ("two".parse().unwrap(), value("password two")),
        ])
    }

    #[tokio::test]
    async fn secrets_are_sent_until_they_are_received_and_never_again() {
        let run_dir = tempfile::tempdir().unwrap();
        let secrets = secrets();
        secrets.set_run_dir(run_dir.path());
        assert_eq!(secrets.answer(b"ready\n").await, None);
        assert!(!secrets.were_requested());
        let first = secrets.answer(b"secrets\n").await.unwrap();
        let lines: Vec<_> = first.lines().map(SecretMessage::parse).collect();
        assert_eq!(lines.len(), 2);
        // The guest missed the first answer.
        assert_eq!(secrets.answer(b"secrets\r\n").await, Some(first));
        assert_eq!(secrets.answer(b"received\n").await, None);
        assert_eq!(secrets.answer(b"secrets\n").await, None);
        // The next agent adopts the guest.
        let adopted = self::secrets();
        adopted.set_run_dir(run_dir.path());
        assert!(adopted.were_requested());
        assert_eq!(adopted.answer(b"secrets\n").await, None);
        assert!(!format!("{secrets:?}").contains("password"));
    }

    #[tokio::test]
    async fn a_guest_without_secrets_gets_no_answer() {
        let none = GuestSecrets::default();
        assert_eq!(none.answer(b"secrets\n").await, None);
        assert!(none.is_empty() && !none.were_requested() && none.mask().is_empty());
    }

    #[tokio::test]
    async fn connections_are_served_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(secrets().serve(listener, Observer::default()));
        let mut broken = TcpStream::connect(address).await.unwrap();
        broken.write_all(&[b'x'; 200]).await.unwrap();
        let guest = TcpStream::connect(address).await.unwrap();
        let mut guest = BufReader::new(guest);
        guest.write_all(b"secrets\n").await.unwrap();
        for name in ["one", "two"] {
            let mut line = String::new();
            guest.read_line(&mut line).await.unwrap();
            let message = SecretMessage::parse(&line).unwrap().unwrap();
            assert_eq!(message.name.as_str(), name);
        }
        serving.abort();
    }
}
