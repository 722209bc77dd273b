//! Connects the terminal with a guest's console.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use client::Line;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// What leaves the console: `^]`.
const ESCAPE: u8 = 0x1d;

/// Who has left first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The guest.
    Guest,
    /// Whoever sits at the terminal.
    Person,
}

/// A terminal that hands on every key at once; as it was before when this is dropped.
struct Raw {
    terminal: File,
    before: Termios,
}

impl Raw {
    /// Nothing when our input is no terminal.
    fn new() -> io::Result<Option<Self>> {
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

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Connects until one of both leaves. An input that ends, such as a file, is not
/// taken for somebody who leaves.
pub(super) fn connect(mut line: Line) -> io::Result<Left> {
    let _raw = Raw::new()?;
    let mut output = io::stdout();
    output.write_all(&line.heard)?;
    output.flush()?;
    let mut input = Some(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let mut buffer = [0; 16 * 1024];
    loop {
        let (from_guest, from_person) = wait(&line.stream, input.as_ref())?;
        if from_guest {
            let count = read(&mut line.stream, &mut buffer)?;
            if count == 0 {
                return Ok(Left::Guest);
            }
            output.write_all(&buffer[..count])?;
            output.flush()?;
        }
        if from_person && let Some(file) = &mut input {
            let count = read(file, &mut buffer)?;
            let typed = &buffer[..count];
            let leaves = typed.iter().position(|byte| *byte == ESCAPE);
            line.stream.write_all(&typed[..leaves.unwrap_or(count)])?;
            if leaves.is_some() {
                return Ok(Left::Person);
            }
            if count == 0 {
                input = None;
            }
        }
    }
}

/// A connection that was cut is one that has ended.
fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    match from.read(buffer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
        read => read,
    }
}

/// Waits until there is something to read; for ever, if need be.
fn wait(stream: &UnixStream, input: Option<&File>) -> io::Result<(bool, bool)> {
    let mut all = vec![PollFd::new(stream, PollFlags::IN)];
    all.extend(input.map(|input| PollFd::new(input, PollFlags::IN)));
    match poll(&mut all, None) {
        Err(rustix::io::Errno::INTR) => return Ok((false, false)),
        polled => polled?,
    };
    let ready = |place: usize| all.get(place).is_some_and(|fd| !fd.revents().is_empty());
    Ok((ready(0), ready(1)))
}
