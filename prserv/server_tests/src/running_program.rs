//! A running server and its log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{TIMEOUT, wait_until};

/// Creates a command that runs a program and logs everything. The caller adds arguments.
#[expect(clippy::disallowed_methods, reason = "tests start the program itself")]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("RUST_LOG", "debug")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// A running server, killed on drop.
#[derive(Debug)]
pub struct RunningProgram {
    child: Child,
    log: Arc<Mutex<String>>,
    /// The first address that it listens on, as it is logged.
    pub address: String,
}

impl RunningProgram {
    /// Starts a server by a command, and waits until it listens. It must log to stderr.
    pub fn launch(mut command: Command) -> Self {
        command.env("RUST_LOG", "debug").env("NO_COLOR", "1");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let shared_log = Arc::clone(&log);
        thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                shared_log.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut address = None;
        wait_until("the server listens", || {
            let log = log.lock().unwrap();
            address = listening_address(&log);
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "ended early: {log}");
            address.is_some()
        });
        Self {
            child,
            log,
            address: address.unwrap(),
        }
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the server has logged a text.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the server logs {text:?}"), || {
            self.log().contains(text)
        });
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Waits until the server has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Returns the port that the server listens on first.
    pub fn port(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// Connects to the port.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.port()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Sends bytes, shuts the sending side down and returns everything that the server sends.
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        received
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening_address(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening address=")?;
    Some(rest.split_whitespace().next()?.to_owned())
}
