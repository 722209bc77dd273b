//! The streams of a guest: its console, its log channel and its control port.

use std::io;

use guest::{Console, Guest};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedWriteHalf, pipe};

/// The output of a guest as it arrives.
pub(super) type Output = Box<dyn AsyncRead + Send + Unpin>;

/// The streams of a guest. A container has a console only.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) console: Option<Console>,
    pub(super) log: Option<std::os::unix::net::UnixStream>,
    pub(super) control: Option<std::os::unix::net::UnixStream>,
    pub(super) events: Option<std::os::unix::net::UnixStream>,
}

impl Streams {
    /// Connects to the streams of a guest. Blocks.
    pub(super) fn connect(guest: &Guest) -> io::Result<Self> {
        Ok(Self {
            console: Some(guest.console()?),
            log: guest.log()?,
            control: guest.control()?,
            events: guest.events()?,
        })
    }
}

/// The input of a guest's console. Dropping a virtual machine's closes the connection of its
/// output as well.
#[derive(Debug)]
pub enum ConsoleInput {
    /// A virtual machine's.
    Socket(OwnedWriteHalf),
    /// A container's.
    Pipe(pipe::Sender),
}

impl ConsoleInput {
    /// Writes these bytes. Waits while the guest accepts none.
    ///
    /// # Errors
    /// When the guest is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.write_all(bytes).await,
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
        }
    }
}

/// Registers a console with the runtime. Returns its output, and its input if it has one.
pub(super) fn console(console: Console) -> io::Result<(Output, Option<ConsoleInput>)> {
    match console {
        Console::Socket(socket) => {
            let (output, input) = unix_stream(socket)?.into_split();
            Ok((Box::new(output), Some(ConsoleInput::Socket(input))))
        }
        Console::Pipes { output, input } => {
            let output = pipe::Receiver::from_owned_fd(output.into())?;
            let input = input.map(|input| pipe::Sender::from_owned_fd(input.into()));
            Ok((Box::new(output), input.transpose()?.map(ConsoleInput::Pipe)))
        }
    }
}

/// Registers a socket with the runtime.
pub(super) fn unix_stream(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
