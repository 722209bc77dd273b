//! The connection between the terminal and a guest's console.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use client::Console;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The key that disconnects: `^]`.
const ESCAPE: u8 = 0x1d;

/// The side that ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The guest has ended.
    Guest,
    /// The user has disconnected.
    User,
}

/// The terminal in raw mode. Its former mode is restored on drop.
struct RawMode {
    terminal: File,
    before: Termios,
}

impl RawMode {
    /// Enters raw mode. Returns `None` if stdin is not a terminal.
    fn enter() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !isatty(input.as_fd()) {
            return Ok(None);
        }
        let terminal = File::from(input.as_fd().try_clone_to_owned()?);
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // It fails only for a terminal that no longer exists.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Copies between the terminal and a console until one side ends. The end of an input that is not
/// a terminal, such as a file, does not disconnect.
pub(super) fn connect(mut console: Console) -> io::Result<End> {
    let _raw = RawMode::enter()?;
    let mut output = io::stdout();
    output.write_all(&console.received)?;
    output.flush()?;
    let mut input = Some(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let mut buffer = [0; 16 * 1024];
    loop {
        let ready = wait(&console.stream, input.as_ref())?;
        if ready.console {
            let count = read(&mut console.stream, &mut buffer)?;
            if count == 0 {
                return Ok(End::Guest);
            }
            output.write_all(&buffer[..count])?;
            output.flush()?;
        }
        if ready.input
            && let Some(file) = &mut input
        {
            let count = read(file, &mut buffer)?;
            let typed = &buffer[..count];
            let escape = typed.iter().position(|byte| *byte == ESCAPE);
            console
                .stream
                .write_all(&typed[..escape.unwrap_or(count)])?;
            if escape.is_some() {
                return Ok(End::User);
            }
            if count == 0 {
                input = None;
            }
        }
    }
}

/// Reads from a connection or the terminal. A reset connection has ended.
fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    match from.read(buffer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
        read => read,
    }
}

/// The sides that can be read without blocking.
struct Ready {
    console: bool,
    input: bool,
}

/// Waits, without a time limit, until a side can be read or has ended.
fn wait(console: &UnixStream, input: Option<&File>) -> io::Result<Ready> {
    let mut fds = vec![PollFd::new(console, PollFlags::IN)];
    fds.extend(input.map(|input| PollFd::new(input, PollFlags::IN)));
    match poll(&mut fds, None) {
        // No descriptor has events then.
        Err(rustix::io::Errno::INTR) => {}
        polled => drop(polled?),
    }
    let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    Ok(Ready {
        console: is_ready(0),
        input: is_ready(1),
    })
}
