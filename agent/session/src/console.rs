//! The consoles of guests: a guest's output goes to all viewers, and the input of one of them
//! goes to the guest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::{BuildId, CopyTag, MachineName};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::console_tail::ConsoleTail;
pub use super::streams::ConsoleInput;

/// The size of the earlier output that a new viewer is shown.
const SCROLLBACK_MAX: usize = 16 * 1024;
/// The number of pieces of output that wait for a viewer; a slower viewer misses some.
const PIECES_MAX: usize = 256;
/// The time in which a viewer must accept a piece of output.
const VIEWER_LIMIT: Duration = Duration::from_mins(1);

/// A guest's console. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct Console {
    scrollback: Arc<Mutex<Scrollback>>,
    input: Arc<tokio::sync::Mutex<Option<ConsoleInput>>>,
    typed: Arc<AtomicBool>,
    closed: CancellationToken,
}

/// The end of a guest's output, and the channel of what follows.
#[derive(Debug)]
struct Scrollback {
    recent: VecDeque<u8>,
    live: broadcast::Sender<Arc<[u8]>>,
}

/// A reason why a viewer cannot type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Another viewer types.
    #[error("another person types on this console; --read-only watches it")]
    Busy,
    /// The console has no input.
    #[error("the console of this guest can only be watched: use --read-only")]
    Unsupported,
}

/// A viewer of a console, who may type.
#[derive(Debug)]
pub struct Viewer {
    recent: Vec<u8>,
    live: broadcast::Receiver<Arc<[u8]>>,
    input: Option<OwnedMutexGuard<Option<ConsoleInput>>>,
    typed: Arc<AtomicBool>,
    closed: CancellationToken,
}

impl Console {
    fn new(input: Option<ConsoleInput>) -> Self {
        Self {
            scrollback: Arc::new(Mutex::new(Scrollback {
                recent: VecDeque::new(),
                live: broadcast::Sender::new(PIECES_MAX),
            })),
            input: Arc::new(tokio::sync::Mutex::new(input)),
            typed: Arc::default(),
            closed: CancellationToken::new(),
        }
    }

    /// Shows a piece of the guest's output to all viewers.
    pub fn show(&self, piece: &[u8]) {
        let mut scrollback = self.scrollback.lock();
        scrollback.recent.extend(piece);
        let excess = scrollback.recent.len().saturating_sub(SCROLLBACK_MAX);
        scrollback.recent.drain(..excess);
        // Fails without viewers.
        let _ = scrollback.live.send(piece.into());
    }

    /// Adds a viewer. With `types`, the viewer holds the console's input until it is dropped.
    ///
    /// # Errors
    /// When the console has no input, or another viewer holds it.
    pub fn join(&self, types: bool) -> Result<Viewer, InputError> {
        let input = if types {
            let input = Arc::clone(&self.input).try_lock_owned();
            let input = input.map_err(|_| InputError::Busy)?;
            if input.is_none() {
                return Err(InputError::Unsupported);
            }
            Some(input)
        } else {
            None
        };
        let scrollback = self.scrollback.lock();
        Ok(Viewer {
            recent: scrollback.recent.iter().copied().collect(),
            live: scrollback.live.subscribe(),
            input,
            typed: Arc::clone(&self.typed),
            closed: self.closed.clone(),
        })
    }

    /// Returns the last lines of the output.
    pub fn tail(&self) -> ConsoleTail {
        let recent: Vec<u8> = self.scrollback.lock().recent.iter().copied().collect();
        ConsoleTail::of_output(&recent)
    }

    /// Returns true if a person has typed something on the console.
    pub fn was_typed_on(&self) -> bool {
        self.typed.load(Ordering::SeqCst)
    }
}

impl Viewer {
    /// Connects a person's stream with the console until one of them ends. Waits for
    /// `before_input` before the guest receives the person's first input.
    ///
    /// # Errors
    /// When the stream or `before_input` fails, or the person's side accepts no output for too
    /// long.
    pub async fn relay(
        self,
        stream: impl AsyncRead + AsyncWrite,
        before_input: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        let (reader, writer) = tokio::io::split(stream);
        let (closed, input, typed) = (self.closed.clone(), self.input, self.typed);
        let before_input = async move {
            before_input.await?;
            typed.store(true, Ordering::SeqCst);
            Ok(())
        };
        tokio::select! {
            ended = write_output(self.recent, self.live, writer) => ended,
            ended = read_input(reader, input, before_input) => ended,
            () = closed.cancelled() => Ok(()),
        }
    }
}

async fn write_output(
    recent: Vec<u8>,
    mut live: broadcast::Receiver<Arc<[u8]>>,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece: Arc<[u8]> = recent.into();
    loop {
        let written = async {
            to.write_all(&piece).await?;
            to.flush().await
        };
        timeout(VIEWER_LIMIT, written).await??;
        piece = match live.recv().await {
            Ok(piece) => piece,
            Err(broadcast::error::RecvError::Lagged(count)) => {
                format!("\r\n[{count} pieces of output were skipped]\r\n")
                    .into_bytes()
                    .into()
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
    }
}

/// Copies a person's input to the guest, or drops it if the person only watches.
async fn read_input(
    mut from: impl AsyncRead + Unpin,
    mut input: Option<OwnedMutexGuard<Option<ConsoleInput>>>,
    before_input: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let mut before_input = Some(Box::pin(before_input));
    let mut buffer = [0; 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if let Some(input) = input.as_mut().and_then(|input| input.as_mut()) {
            if let Some(before_input) = before_input.take() {
                before_input.await?;
            }
            input.write(&buffer[..count]).await?;
        }
    }
}

/// The consoles of all running guests, by the guests' tags.
#[derive(Debug, Clone, Default)]
pub struct ConsoleRegistry(Arc<Mutex<BTreeMap<String, (MachineName, Console)>>>);

/// The entry of a console in the registry. Dropping it closes the console for all viewers.
#[derive(Debug)]
pub struct ConsoleHandle {
    registry: ConsoleRegistry,
    tag: String,
    console: Console,
}

impl Drop for ConsoleHandle {
    fn drop(&mut self) {
        self.console.closed.cancel();
        self.registry.0.lock().remove(&self.tag);
    }
}

impl ConsoleHandle {
    /// Returns the console.
    pub fn console(&self) -> Console {
        self.console.clone()
    }
}

impl ConsoleRegistry {
    /// Adds the console of the guest with this tag.
    pub fn add(
        &self,
        tag: &str,
        machine: &MachineName,
        input: Option<ConsoleInput>,
    ) -> ConsoleHandle {
        let console = Console::new(input);
        let entry = (machine.clone(), console.clone());
        self.0.lock().insert(tag.to_owned(), entry);
        ConsoleHandle {
            registry: self.clone(),
            tag: tag.to_owned(),
            console,
        }
    }

    /// Returns the console of a build's guest while it runs.
    pub fn of_build(&self, id: BuildId) -> Option<Console> {
        self.of(&id.to_string())
    }

    /// Returns the console of the guest with this tag.
    pub fn of(&self, tag: &str) -> Option<Console> {
        self.0.lock().get(tag).map(|(_, console)| console.clone())
    }

    /// Returns the consoles of a machine's guests with the guests' tags, except those of
    /// debug sessions, which belong to the person who is attached.
    pub fn of_machine(&self, machine: &MachineName) -> Vec<(String, Console)> {
        let is_copy = |tag: &str| tag.parse::<CopyTag>().is_ok();
        self.0
            .lock()
            .iter()
            .filter(|(tag, (of, _))| of == machine && !is_copy(tag))
            .map(|(tag, (_, console))| (tag.clone(), console.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> (ConsoleRegistry, ConsoleHandle, tokio::net::UnixStream) {
        let (guest, input) = tokio::net::UnixStream::pair().unwrap();
        let registry = ConsoleRegistry::default();
        let input = ConsoleInput::Socket(input.into_split().1);
        let handle = registry.add("7", &"demo".parse().unwrap(), Some(input));
        (registry, handle, guest)
    }

    #[tokio::test]
    async fn all_viewers_see_the_output_and_one_types() {
        let (registry, handle, mut guest) = console();
        let console = registry.of_build(BuildId(7)).unwrap();
        handle.console().show(b"login: ");
        let (mut person, stream) = tokio::io::duplex(64);
        let typing = tokio::spawn(console.join(true).unwrap().relay(stream, recorded()));
        assert_eq!(console.join(true).unwrap_err(), InputError::Busy);
        let (mut other, stream) = tokio::io::duplex(64);
        let watching = tokio::spawn(console.join(false).unwrap().relay(stream, recorded()));
        let mut seen = [0; 7];
        for viewer in [&mut person, &mut other] {
            viewer.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen, b"login: ");
        }
        other.write_all(b"not this").await.unwrap();
        assert!(!console.was_typed_on());
        person.write_all(b"root").await.unwrap();
        let mut received = [0; 4];
        guest.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"root");
        assert!(console.was_typed_on());
        drop(person);
        typing.await.unwrap().unwrap();
        assert!(console.join(true).is_ok());
        drop(handle);
        watching.await.unwrap().unwrap();
        assert!(registry.of_machine(&"demo".parse().unwrap()).is_empty());
    }

    fn recorded() -> std::future::Ready<io::Result<()>> {
        std::future::ready(Ok(()))
    }

    #[tokio::test]
    async fn input_that_cannot_be_recorded_does_not_reach_the_guest() {
        let (_registry, handle, mut guest) = console();
        let (mut person, stream) = tokio::io::duplex(64);
        let viewer = handle.console().join(true).unwrap();
        let fails = async { Err(io::Error::other("the disk is full")) };
        person.write_all(b"root").await.unwrap();
        viewer.relay(stream, fails).await.unwrap_err();
        assert!(!handle.console().was_typed_on());
        drop(handle);
        let mut received = Vec::new();
        guest.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"");
    }

    #[tokio::test]
    async fn a_new_viewer_sees_the_end_of_earlier_output() {
        let (_registry, handle, _guest) = console();
        handle.console().show(&[b'x'; SCROLLBACK_MAX]);
        handle.console().show(b"the end");
        let viewer = handle.console().join(false).unwrap();
        assert_eq!(viewer.recent.len(), SCROLLBACK_MAX);
        assert!(viewer.recent.ends_with(b"xthe end"));
    }
}
