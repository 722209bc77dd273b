//! A PR service in a process of its own, which ends when this is dropped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Child;

use rustix::process::Pid;
use sys::command;
use tempfile::TempDir;

use crate::{process_status, program, wait_until};

/// A running `prserv serve` on a free port of the loopback interface.
#[derive(Debug)]
pub struct PrProcess {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl PrProcess {
    /// Starts the server with its default limits.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let mut serve = command::prepare(program("prserv"));
        serve.args(["serve", "--listen", "127.0.0.1:0", "--db"]);
        serve.arg(directory.path().join("prserv.sqlite3"));
        serve.env("RUST_LOG", "info").env("NO_COLOR", "1");
        serve.stderr(File::create(&log).expect("a log"));
        let child = serve.spawn().expect("a server");
        let mut address = None;
        wait_until("the server listens", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let word = text.split_once("address=").map(|(_, rest)| rest.to_owned());
            address = word.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            address.is_some()
        });
        Self {
            child,
            address: address.expect("an address"),
            _directory: directory,
        }
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the memory of the server.
    pub fn memory_kib(&self) -> u64 {
        process_status::number(Pid::from_child(&self.child), "VmRSS:")
    }
}

impl Drop for PrProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
