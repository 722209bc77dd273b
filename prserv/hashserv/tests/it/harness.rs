//! A running server, its log, and a client that controls every byte it sends.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use server_tests::RunningProgram;

pub(crate) use server_tests::{TIMEOUT, wait_until};

/// The greeting of a client.
pub(crate) const GREETING: &str = "OEHASHEQUIV 1.1\nneeds-headers: false\n\n";

/// Creates a command that runs the program. The caller adds arguments.
pub(crate) fn hashserv() -> Command {
    server_tests::command(env!("CARGO_BIN_EXE_hashserv"))
}

/// A running server, killed on drop.
pub(crate) struct Server(RunningProgram);

impl Deref for Server {
    type Target = RunningProgram;

    fn deref(&self) -> &RunningProgram {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut RunningProgram {
        &mut self.0
    }
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
    pub(crate) fn launch(command: Command) -> Self {
        Self(RunningProgram::launch(command))
    }

    /// Sends bytes, shuts the sending side down and returns everything that the server sends.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> String {
        String::from_utf8(self.0.exchange(bytes)).unwrap()
    }

    /// Sends the greeting and lines, and returns the lines that the server sends.
    pub(crate) fn dialogue(&self, lines: &str) -> Vec<String> {
        let received = self.exchange(format!("{GREETING}{lines}").as_bytes());
        received.lines().map(str::to_owned).collect()
    }

    /// Connects a client and sends its greeting.
    pub(crate) fn client(&self) -> Client<TcpStream> {
        Client::new(self.connect())
    }
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
