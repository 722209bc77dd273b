//! A measured server: its name, its address and its time on processors.

use std::fs;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result};

/// A server that runs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// The name in the results.
    pub(crate) name: String,
    /// The address that it listens on.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
}

impl FromStr for Server {
    type Err = Error;

    /// Parses `NAME=ADDRESS=PID`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('=').collect();
        let [name, address, pid] = parts[..] else {
            anyhow::bail!("`{text}` is not NAME=ADDRESS=PID");
        };
        Ok(Self {
            name: name.to_owned(),
            address: address.parse().context("the address is invalid")?,
            pid: pid.parse().context("the process is not a number")?,
        })
    }
}

impl Server {
    /// Returns the time on processors of the server.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid).with_context(|| format!("the server {} does not run", self.name))
    }
}

/// Returns the time on processors of all threads of a process. Its threads must not end between two
/// calls.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("schedstat");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let nanos = text.split(' ').next().unwrap_or_default();
        total += Duration::from_nanos(nanos.parse().context("schedstat is malformed")?);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_an_address_and_a_process() {
        let server: Server = "prserv=127.0.0.1:8585=42".parse().unwrap();
        assert_eq!((server.name.as_str(), server.pid), ("prserv", 42));
        for text in [
            "",
            "prserv",
            "prserv=127.0.0.1:8585",
            "prserv=x=42",
            "a=1:1=2=3",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_time_on_processors_of_a_process_grows() {
        let server: Server = format!("self=127.0.0.1:1={}", std::process::id())
            .parse()
            .unwrap();
        let before = server.cpu_time().unwrap();
        while server.cpu_time().unwrap() == before {}
    }
}
