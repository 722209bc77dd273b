//! The consoles of guests, for people: what a guest prints goes to everybody who
//! watches, and what one of them types goes to the guest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use config::{BuildId, MachineName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::state::guest_tag::CopyTag;
use guest::ConsoleInput;

/// How much of what was printed before is shown to whoever comes.
const RECENT_MAX: usize = 16 * 1024;
/// How many pieces may wait for one who watches; one who is slower misses some.
const PIECES_MAX: usize = 256;
/// How long one who watches may take nothing.
const PATIENCE: Duration = Duration::from_mins(1);

/// A guest's console. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct Console {
    said: Arc<Mutex<Scrollback>>,
    keyboard: Arc<tokio::sync::Mutex<Option<ConsoleInput>>>,
    over: CancellationToken,
}

#[derive(Debug)]
struct Scrollback {
    recent: VecDeque<u8>,
    live: broadcast::Sender<Arc<[u8]>>,
}

/// Why nobody may type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Somebody does.
    #[error("somebody types on this console already; --read-only watches it")]
    Busy,
    /// Nobody ever can.
    #[error("the console of this guest can only be watched: use --read-only")]
    Unsupported,
}

/// Somebody at a console.
#[derive(Debug)]
pub struct Viewer {
    recent: Vec<u8>,
    live: broadcast::Receiver<Arc<[u8]>>,
    keyboard: Option<OwnedMutexGuard<Option<ConsoleInput>>>,
    over: CancellationToken,
}

impl Console {
    fn new(keyboard: Option<ConsoleInput>) -> Self {
        Self {
            said: Arc::new(Mutex::new(Scrollback {
                recent: VecDeque::new(),
                live: broadcast::Sender::new(PIECES_MAX),
            })),
            keyboard: Arc::new(tokio::sync::Mutex::new(keyboard)),
            over: CancellationToken::new(),
        }
    }

    fn said(&self) -> MutexGuard<'_, Scrollback> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows everybody what the guest has printed.
    pub fn show(&self, piece: &[u8]) {
        let mut said = self.said();
        said.recent.extend(piece);
        let beyond = said.recent.len().saturating_sub(RECENT_MAX);
        said.recent.drain(..beyond);
        // Nobody may be there.
        let _ = said.live.send(piece.into());
    }

    /// Sits down at the console, to watch or to type as well.
    ///
    /// # Errors
    /// When it cannot be typed on.
    pub fn join(&self, types: bool) -> Result<Viewer, InputError> {
        let keyboard = if types {
            let taken = Arc::clone(&self.keyboard).try_lock_owned();
            let keyboard = taken.map_err(|_| InputError::Busy)?;
            if keyboard.is_none() {
                return Err(InputError::Unsupported);
            }
            Some(keyboard)
        } else {
            None
        };
        let said = self.said();
        Ok(Viewer {
            recent: said.recent.iter().copied().collect(),
            live: said.live.subscribe(),
            keyboard,
            over: self.over.clone(),
        })
    }
}

impl Viewer {
    /// Connects whoever is at the other end of `stream` with the console, until one
    /// of both goes.
    ///
    /// # Errors
    /// When the other end goes without a word.
    pub async fn relay(self, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (reader, writer) = tokio::io::split(stream);
        let (over, keyboard) = (self.over.clone(), self.keyboard);
        tokio::select! {
            ended = show(self.recent, self.live, writer) => ended,
            ended = type_in(reader, keyboard) => ended,
            () = over.cancelled() => Ok(()),
        }
    }
}

async fn show(
    recent: Vec<u8>,
    mut live: broadcast::Receiver<Arc<[u8]>>,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece: Arc<[u8]> = recent.into();
    loop {
        let shown = async {
            to.write_all(&piece).await?;
            to.flush().await
        };
        timeout(PATIENCE, shown).await??;
        piece = match live.recv().await {
            Ok(piece) => piece,
            Err(broadcast::error::RecvError::Lagged(count)) => {
                format!("\r\n[{count} pieces were too fast for you]\r\n")
                    .into_bytes()
                    .into()
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
    }
}

/// What is typed by one who only watches is lost.
async fn type_in(
    mut from: impl AsyncRead + Unpin,
    mut keyboard: Option<OwnedMutexGuard<Option<ConsoleInput>>>,
) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if let Some(keyboard) = keyboard.as_mut().and_then(|keyboard| keyboard.as_mut()) {
            keyboard.press(&buffer[..count]).await?;
        }
    }
}

/// The consoles of all guests that run.
#[derive(Debug, Clone, Default)]
pub struct ConsoleRegistry(Arc<Mutex<BTreeMap<String, (MachineName, Console)>>>);

/// A guest's place on the board; dropping it ends its console for everybody.
#[derive(Debug)]
pub struct ConsoleHandle {
    board: ConsoleRegistry,
    tag: String,
    console: Console,
}

impl Drop for ConsoleHandle {
    fn drop(&mut self) {
        self.console.over.cancel();
        self.board.all().remove(&self.tag);
    }
}

impl ConsoleHandle {
    /// The console.
    pub fn console(&self) -> Console {
        self.console.clone()
    }
}

impl ConsoleRegistry {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, (MachineName, Console)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the console of the guest with this short name on the board.
    pub fn add(
        &self,
        tag: &str,
        machine: &MachineName,
        keyboard: Option<ConsoleInput>,
    ) -> ConsoleHandle {
        let console = Console::new(keyboard);
        let entry = (machine.clone(), console.clone());
        self.all().insert(tag.to_owned(), entry);
        ConsoleHandle {
            board: self.clone(),
            tag: tag.to_owned(),
            console,
        }
    }

    /// The console of a build's guest, while it runs.
    pub fn of_build(&self, id: BuildId) -> Option<Console> {
        self.of(&id.to_string())
    }

    /// The console of the guest with this short name.
    pub fn of(&self, tag: &str) -> Option<Console> {
        self.all().get(tag).map(|(_, console)| console.clone())
    }

    /// The consoles of a machine's guests, with the short names of these; that of a
    /// copy is of nobody but who is attached to it.
    pub fn of_machine(&self, machine: &MachineName) -> Vec<(String, Console)> {
        let all = self.all();
        let is_copy = |tag: &String| tag.parse::<CopyTag>().is_ok();
        let of_it = all.iter().filter(|(_, (of, _))| of == machine);
        let of_it = of_it.filter(|(tag, _)| !is_copy(tag));
        of_it
            .map(|(tag, (_, console))| (tag.clone(), console.clone()))
            .collect()
    }
}

/// A stream that lets somebody else hear what is read from it.
#[derive(Debug)]
pub struct TeeReader<R, F> {
    stream: R,
    ear: F,
}

impl<R, F: FnMut(&[u8])> TeeReader<R, F> {
    /// Lets `ear` hear every piece.
    pub fn new(stream: R, ear: F) -> Self {
        Self { stream, ear }
    }
}

impl<R: AsyncRead + Unpin, F: FnMut(&[u8]) + Unpin> AsyncRead for TeeReader<R, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let piece = &buffer.filled()[before..];
        if !piece.is_empty() {
            (self.ear)(piece);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat() -> (ConsoleRegistry, ConsoleHandle, tokio::net::UnixStream) {
        let (guest, keyboard) = tokio::net::UnixStream::pair().unwrap();
        let board = ConsoleRegistry::default();
        let keyboard = ConsoleInput::Socket(keyboard.into_split().1);
        let seat = board.add("7", &"demo".parse().unwrap(), Some(keyboard));
        (board, seat, guest)
    }

    #[tokio::test]
    async fn all_see_what_is_printed_and_one_types() {
        let (board, seat, mut guest) = seat();
        let console = board.of_build(BuildId(7)).unwrap();
        seat.console().show(b"login: ");
        let (mut person, theirs) = tokio::io::duplex(64);
        let typing = tokio::spawn(console.join(true).unwrap().relay(theirs));
        assert_eq!(console.join(true).unwrap_err(), InputError::Busy);
        let (mut other, theirs) = tokio::io::duplex(64);
        let watching = tokio::spawn(console.join(false).unwrap().relay(theirs));
        let mut seen = [0; 7];
        for viewer in [&mut person, &mut other] {
            viewer.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen, b"login: ");
        }
        other.write_all(b"not this").await.unwrap();
        person.write_all(b"root").await.unwrap();
        let mut heard = [0; 4];
        guest.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"root");
        drop(person);
        typing.await.unwrap().unwrap();
        assert!(console.join(true).is_ok());
        drop(seat);
        watching.await.unwrap().unwrap();
        assert!(board.of_machine(&"demo".parse().unwrap()).is_empty());
    }

    #[tokio::test]
    async fn who_comes_late_sees_the_end_of_what_was_printed() {
        let (_board, seat, _guest) = seat();
        seat.console().show(&[b'x'; RECENT_MAX]);
        seat.console().show(b"the end");
        let viewer = seat.console().join(false).unwrap();
        assert_eq!(viewer.recent.len(), RECENT_MAX);
        assert!(viewer.recent.ends_with(b"xthe end"));
    }

    #[tokio::test]
    async fn what_is_read_is_overheard() {
        let mut heard = Vec::new();
        let mut stream = TeeReader::new(&b"one two"[..], |piece: &[u8]| heard.extend(piece));
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(
            (all.as_bytes(), &heard[..]),
            (&b"one two"[..], &b"one two"[..])
        );
    }
}
