//! A running server, its log, and a client that controls every byte it sends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::process::Command;

use serde_json::{Value as Json, json};
use server_tests::RunningProgram;

pub(crate) use server_tests::{TIMEOUT, wait_until};

/// The greeting of a client.
pub(crate) const GREETING: &str = "PRSERVICE 1.0\nneeds-headers: false\n\n";

/// Returns true if tests try many more cases, which takes minutes.
pub(crate) fn is_long_run() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// Creates a command that runs the program. The caller adds arguments.
pub(crate) fn prserv() -> Command {
    server_tests::command(env!("CARGO_BIN_EXE_prserv"))
}

/// A running server, killed on drop.
pub(crate) struct Server {
    program: RunningProgram,
    pub(crate) address: SocketAddr,
}

impl Deref for Server {
    type Target = RunningProgram;

    fn deref(&self) -> &RunningProgram {
        &self.program
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut RunningProgram {
        &mut self.program
    }
}

impl Server {
    /// Starts a server on a database.
    pub(crate) fn start(db: impl AsRef<OsStr>) -> Self {
        Self::start_with(db, &[])
    }

    /// Starts a server on a database with additional arguments.
    pub(crate) fn start_with(db: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let mut command = prserv();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--db"])
            .arg(db.as_ref())
            .args(arguments);
        Self::launch(command)
    }

    /// Starts a server by a command. It must log to stderr.
    pub(crate) fn launch(command: Command) -> Self {
        let program = RunningProgram::launch(command);
        let address = program.port();
        Self { program, address }
    }

    /// Connects a client and sends its greeting.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }
}

/// A client with one connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(GREETING.as_bytes())?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request and returns the reply. Fails if the connection ends.
    pub(crate) fn request(&mut self, request: &Json) -> std::io::Result<Json> {
        self.stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line.trim_end() != r#"{"chunk-stream": null}"# {
            return Ok(serde_json::from_str(&line)?);
        }
        let mut text = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            match line.trim_end() {
                "" => return Ok(serde_json::from_str(&text)?),
                chunk => text.push_str(chunk),
            }
        }
    }

    /// Sends `get-pr` without history.
    pub(crate) fn get(&mut self, version: &str, checksum: &str) -> std::io::Result<String> {
        let reply = self.request(&json!({"get-pr": tuple(version, checksum)}))?;
        Ok(reply["value"].as_str().unwrap().to_owned())
    }

    /// Returns all rows as version, checksum and value.
    pub(crate) fn rows(&mut self) -> Vec<[String; 3]> {
        let filter = json!({"version": null, "pkgarch": null, "checksum": null,
            "colinfo": false, "history": true});
        let reply = self.request(&json!({ "export": filter })).unwrap();
        let text = |row: &Json, name: &str| row[name].as_str().unwrap().to_owned();
        let rows = reply["datainfo"].as_array().unwrap().iter();
        rows.map(|row| ["version", "checksum", "value"].map(|name| text(row, name)))
            .collect()
    }
}

/// Returns the members of a request about a tuple.
pub(crate) fn tuple(version: &str, checksum: &str) -> Json {
    json!({"version": version, "pkgarch": "all", "checksum": checksum, "history": false})
}
