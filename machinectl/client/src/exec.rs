//! Commands in driven guests.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use config::BuildId;
use config::builds::Build;
use config::exec::{
    Command, CommandEnd, CommandRecord, DATA_BYTES_MAX, Decoder, Frame, PROTOCOL, WINDOW,
};
use http_body_util::Full;
use hyper::Method;
use serde_json::json;

use crate::console::{Console, connect, failed};
use crate::http::boxed;
use crate::{Client, Result};

/// A command that runs in a guest. Dropping it ends the command.
#[derive(Debug)]
pub struct Exec {
    console: Console,
    decoder: Decoder,
}

/// A failure of a command's streams. The command is ended.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// Its input cannot be read.
    #[error("cannot read the input of the command")]
    Input(#[source] io::Error),
    /// Its output cannot be written.
    #[error("cannot write the output of the command")]
    Output(#[source] io::Error),
    /// The agent breaks the protocol.
    #[error("the connection to the command failed")]
    Connection(#[source] io::Error),
}

impl Client {
    /// Starts a command in the guest of a build.
    pub fn exec(&self, id: BuildId, command: &Command) -> Result<Exec> {
        let body = serde_json::to_vec(command).map_err(failed)?;
        let path = format!("builds/{id}/exec");
        let body = boxed(Full::from(body));
        let mut console = connect(&self.endpoint, Method::POST, &path, PROTOCOL, body)?;
        let mut decoder = Decoder::default();
        decoder.push(&std::mem::take(&mut console.received));
        Ok(Exec { console, decoder })
    }

    /// Lets the guest of a build end with success.
    pub fn stop(&self, id: BuildId) -> Result<Build> {
        self.post(&format!("builds/{id}/stop"), &json!({}))
    }

    /// Returns the commands that have run in the guest of a build.
    pub fn commands(&self, id: BuildId) -> Result<Vec<CommandRecord>> {
        self.get(&format!("builds/{id}/commands"))
    }
}

impl Exec {
    /// Copies the streams of the command until it has ended. The thread that reads `stdin` may go on
    /// after that.
    ///
    /// # Errors
    /// A stream failed; the command is ended then.
    pub fn run(
        mut self,
        stdin: impl Read + Send + 'static,
        stdout: &mut impl Write,
        stderr: &mut impl Write,
    ) -> Result<CommandEnd, ExecError> {
        let to_worker = self
            .console
            .stream
            .try_clone()
            .map_err(ExecError::Connection)?;
        let input = Arc::new(Input::default());
        let shared = Arc::clone(&input);
        thread::spawn(move || shared.copy(stdin, to_worker));
        loop {
            let Some(frame) = self.receive()? else {
                return match input.take_error() {
                    Some(error) => Err(ExecError::Input(error)),
                    None => Ok(CommandEnd::Lost),
                };
            };
            match frame {
                Frame::Stdout(bytes) => write(stdout, &bytes)?,
                Frame::Stderr(bytes) => write(stderr, &bytes)?,
                Frame::Taken(count) => input.add_window(count),
                Frame::Ended(end) => return Ok(end),
                _ => return Err(ExecError::Connection(ErrorKind::InvalidData.into())),
            }
        }
    }

    /// Receives the next frame; `None` at the end of the connection.
    fn receive(&mut self) -> Result<Option<Frame>, ExecError> {
        let mut piece = vec![0; DATA_BYTES_MAX];
        loop {
            let frame = self.decoder.next_frame().map_err(io::Error::other);
            if let Some(frame) = frame.map_err(ExecError::Connection)? {
                return Ok(Some(frame));
            }
            match self.console.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(ExecError::Connection(error)),
            }
        }
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), ExecError> {
    to.write_all(bytes)
        .and_then(|()| to.flush())
        .map_err(ExecError::Output)
}

/// The state of a command's input.
#[derive(Debug)]
struct Input {
    state: Mutex<InputState>,
    changed: Condvar,
}

#[derive(Debug)]
struct InputState {
    /// The bytes that may be sent.
    window: usize,
    error: Option<io::Error>,
}

impl Default for Input {
    fn default() -> Self {
        let state = InputState {
            window: WINDOW,
            error: None,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }
}

impl Input {
    /// Sends the input as far as the window allows. If it cannot be read, the connection ends: a part
    /// of it must not look like all.
    fn copy(&self, mut from: impl Read, mut to: UnixStream) {
        let mut piece = vec![0; DATA_BYTES_MAX];
        loop {
            let frame = match from.read(&mut piece) {
                Ok(0) => Frame::StdinEnd,
                Ok(count) => {
                    self.wait_for_window(count);
                    Frame::Stdin(piece[..count].to_vec())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.lock().error = Some(error);
                    // It fails if the command has ended.
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            };
            let is_end = frame == Frame::StdinEnd;
            if to.write_all(&frame.to_bytes()).is_err() || is_end {
                return;
            }
        }
    }

    /// Takes bytes from the window. A command that has ended lets its thread wait for ever.
    fn wait_for_window(&self, count: usize) {
        let mut state = self.lock();
        while state.window < count {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.window -= count;
    }

    fn add_window(&self, count: u32) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut state = self.lock();
        state.window = state.window.saturating_add(count).min(WINDOW);
        self.changed.notify_all();
    }

    fn take_error(&self) -> Option<io::Error> {
        self.lock().error.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a command and the agent's end of its connection.
    fn exec() -> (Exec, UnixStream) {
        let (stream, agent) = UnixStream::pair().unwrap();
        let exec = Exec {
            console: Console::of(stream),
            decoder: Decoder::default(),
        };
        (exec, agent)
    }

    /// Reads the frames of a client up to the end of its input; takes all of it.
    fn take_input(agent: &mut UnixStream) -> Vec<u8> {
        let (mut decoder, mut input, mut piece) = (Decoder::default(), Vec::new(), [0; 1000]);
        loop {
            match decoder.next_frame().unwrap() {
                Some(Frame::Stdin(bytes)) => {
                    let taken = Frame::Taken(u32::try_from(bytes.len()).unwrap());
                    agent.write_all(&taken.to_bytes()).unwrap();
                    input.extend(bytes);
                }
                Some(_) => return input,
                None => {
                    let count = agent.read(&mut piece).unwrap();
                    assert!(count > 0);
                    decoder.push(&piece[..count]);
                }
            }
        }
    }

    #[test]
    fn the_streams_of_a_command_are_separate_and_complete() {
        let (exec, mut agent) = exec();
        let input: Vec<u8> = (0..251).cycle().take(2 * WINDOW).collect();
        let sent = input.clone();
        let worker = thread::spawn(move || {
            let input = take_input(&mut agent);
            for frame in [
                Frame::Stdout(b"\0out\xff".to_vec()),
                Frame::Stderr(b"err".to_vec()),
                Frame::Ended(CommandEnd::Exited(7)),
            ] {
                agent.write_all(&frame.to_bytes()).unwrap();
            }
            input
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let end = exec.run(io::Cursor::new(sent), &mut stdout, &mut stderr);
        assert_eq!(end.unwrap(), CommandEnd::Exited(7));
        assert_eq!(
            (stdout.as_slice(), stderr.as_slice()),
            (&b"\0out\xff"[..], &b"err"[..])
        );
        assert!(worker.join().unwrap() == input);
    }

    #[test]
    fn input_that_cannot_be_read_ends_the_command() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is broken"))
            }
        }
        let (exec, mut agent) = exec();
        let end = exec.run(Broken, &mut Vec::new(), &mut Vec::new());
        assert!(matches!(end, Err(ExecError::Input(_))), "{end:?}");
        let mut received = Vec::new();
        agent.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"", "no end of the input");
    }

    #[test]
    fn a_connection_that_ends_before_the_command_loses_it() {
        let (exec, agent) = exec();
        drop(agent);
        let end = exec.run(io::empty(), &mut Vec::new(), &mut Vec::new());
        assert_eq!(end.unwrap(), CommandEnd::Lost);
    }
}
