//! A client of the agent's HTTP API over its unix socket.
//!
//! [`Client`] has a method for each operation that the command line needs. All methods block. A
//! request that the agent refuses is a [`ClientError::Refused`] with the agent's reason.

mod builds;
mod caches;
mod console;
mod controllers;
mod error;
mod http;
mod layers;
mod maintenance;
mod projects;
mod schedules;
mod secrets;
mod web;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use builds::LogSelection;
pub use console::{Access, Console, ConsoleTarget};
pub use error::ClientError;

/// The result of a request.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// The time limit for the start of an answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A client of the agent behind one socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    http: reqwest::blocking::Client,
}

/// The answer to a request that creates something unless an equivalent exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<T> {
    /// The created or existing object.
    pub value: T,
    /// False if the object existed before.
    pub is_new: bool,
}

impl Client {
    /// Returns a client of the agent at `socket`; connects on the first request.
    pub fn new(socket: &Path) -> Result<Self> {
        let http = reqwest::blocking::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .timeout(None)
            .build()?;
        Ok(Self {
            socket: socket.to_owned(),
            http,
        })
    }
}
