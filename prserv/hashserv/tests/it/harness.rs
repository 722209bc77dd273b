//! A running server, its log, and a client that controls every byte it sends.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

/// The timeout of every wait. A correct run takes much less.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The greeting of a client.
pub(crate) const GREETING: &str = "OEHASHEQUIV 1.1\nneeds-headers: false\n\n";

/// Waits until a condition is true.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < TIMEOUT, "timed out waiting until {what}");
        thread::yield_now();
    }
}

/// Creates a command that runs the program under a name. The caller adds arguments.
#[expect(clippy::disallowed_methods, reason = "tests start the program itself")]
pub(crate) fn hashserv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hashserv"));
    command
        .env("RUST_LOG", "debug")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// A running server, killed on drop.
pub(crate) struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    pub(crate) address: String,
}

impl Server {
    /// Starts a server on a database.
    pub(crate) fn start(db: impl AsRef<OsStr>) -> Self {
        Self::start_with(db, &[])
    }

    /// Starts a server on a database with additional arguments.
    pub(crate) fn start_with(db: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let mut command = hashserv();
        command.arg("serve").arg("--db").arg(db.as_ref());
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(arguments);
        Self::launch(command)
    }

    /// Starts a server by a command. It must log to stderr.
    pub(crate) fn launch(mut command: Command) -> Self {
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
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(&mut self) {
        wait_until("the server ends", || {
            self.child.try_wait().unwrap().is_some()
        });
    }

    /// Returns the socket's address.
    pub(crate) fn port(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// Sends bytes, shuts the sending side down and returns everything that the server sends.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.port()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        String::from_utf8(received).unwrap()
    }

    /// Sends the greeting and lines, and returns the lines that the server sends.
    pub(crate) fn dialogue(&self, lines: &str) -> Vec<String> {
        let received = self.exchange(format!("{GREETING}{lines}").as_bytes());
        received.lines().map(str::to_owned).collect()
    }

    /// Connects a client and sends its greeting.
    pub(crate) fn client(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.port()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client::new(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening_address(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening address=")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

/// A client with one connection.
pub(crate) struct Client<S: Read + Write> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Client<S> {
    /// Sends the greeting on a connection.
    pub(crate) fn new(mut stream: S) -> Self {
        stream.write_all(GREETING.as_bytes()).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends a line without waiting for its answer.
    pub(crate) fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
    }

    /// Receives a line.
    pub(crate) fn receive(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Sends a request and returns the reply. Fails if the connection ends.
    pub(crate) fn request(&mut self, request: &Json) -> io::Result<Json> {
        self.send(&request.to_string())?;
        let line = self.receive()?;
        if line != r#"{"chunk-stream": null}"# {
            return Ok(serde_json::from_str(&line)?);
        }
        let mut text = String::new();
        loop {
            match self.receive()?.as_str() {
                "" => return Ok(serde_json::from_str(&text)?),
                chunk => text.push_str(chunk),
            }
        }
    }

    /// Reports a task and returns its unihash.
    pub(crate) fn report(&mut self, task: u64, outhash: u64) -> io::Result<String> {
        let reply = self.request(&json!({ "report": report(task, outhash) }))?;
        Ok(reply["unihash"].as_str().unwrap_or_default().to_owned())
    }

    /// Returns the unihash of a task.
    pub(crate) fn get(&mut self, task: u64) -> io::Result<Option<String>> {
        let reply = self.request(&json!({"get": {"method": "m", "taskhash": hash(task)}}))?;
        Ok(reply["unihash"].as_str().map(str::to_owned))
    }
}

/// Returns the hash that stands for a number.
pub(crate) fn hash(number: u64) -> String {
    format!("{number:064x}")
}

/// Returns the members of a report, whose own unihash is that of the task's number.
pub(crate) fn report(task: u64, outhash: u64) -> Json {
    json!({
        "method": "m", "taskhash": hash(task), "outhash": hash(outhash), "unihash": hash(task),
    })
}

/// Returns the path of a database in a directory.
pub(crate) fn database(directory: &tempfile::TempDir) -> std::path::PathBuf {
    directory.path().join("hashserv.db")
}

/// Executes SQL on a file as another program.
pub(crate) fn execute(db: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(db).unwrap();
    connection.busy_timeout(TIMEOUT).unwrap();
    connection.execute_batch(sql).unwrap();
}
