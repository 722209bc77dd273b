//! A running server, its log, and a client that controls every byte it sends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

/// The timeout of every wait. A correct run takes much less.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The greeting of a client.
pub(crate) const GREETING: &str = "PRSERVICE 1.0\nneeds-headers: false\n\n";

/// Returns true if tests try many more cases, which takes minutes.
pub(crate) fn is_long_run() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// Waits until a condition is true.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < TIMEOUT, "timed out waiting until {what}");
        thread::yield_now();
    }
}

/// Creates a command that runs the program. The caller adds arguments.
#[expect(clippy::disallowed_methods, reason = "tests start the program itself")]
pub(crate) fn prserv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prserv"));
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
    pub(crate) address: SocketAddr,
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
    pub(crate) fn launch(mut command: Command) -> Self {
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
            address = listening_address(&log.lock().unwrap());
            assert!(
                child.try_wait().unwrap().is_none(),
                "ended early: {}",
                log.lock().unwrap()
            );
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
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Sends bytes, shuts the sending side down and returns everything that the server sends.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        received
    }

    /// Connects a client and sends its greeting.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening address=")?;
    rest.split_whitespace().next()?.parse().ok()
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
