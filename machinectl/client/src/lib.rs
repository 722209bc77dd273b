//! A client of the agent's HTTP API: over its unix socket, over TCP, or by ssh; and of the coordinators of
//! a farm.
//!
//! [`Client`] has a method for each operation that the command line needs. All methods block. A
//! request that the agent refuses is a [`ClientError::Refused`] with the agent's reason.

mod builds;
mod caches;
mod connect;
mod console;
mod controllers;
mod endpoint;
mod error;
mod exec;
mod farm;
mod feeds;
mod http;
mod layers;
mod machines;
mod maintenance;
mod notify;
mod projects;
mod schedules;
mod secrets;
mod web;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use builds::LogSelection;
pub use connect::{connect_socket, greeting};
pub use console::{Access, Console, ConsoleTarget};
pub use endpoint::{
    AddressError, AgentUrl, BearerToken, Endpoint, HostAddress, NetworkEndpoint, SshEndpoint,
};
pub use error::{ClientError, ConnectError};
pub use exec::{Exec, ExecError};

/// The result of a request.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// The time limit for the start of an answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A client of one agent.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    http: http::Http,
    /// The runtime of the requests, on the thread that makes them.
    runtime: Runtime,
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
        Self::of(Endpoint::Socket(socket.to_owned()))
    }

    /// Returns a client of the agent at an endpoint; connects on the first request.
    pub fn of(endpoint: Endpoint) -> Result<Self> {
        Ok(Self {
            http: http::Http::new(endpoint.clone())?,
            endpoint,
            runtime: http::runtime()?,
        })
    }

    /// Returns the place of the agent.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}
