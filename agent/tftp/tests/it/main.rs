//! The client against a fake server, a lossy link, and foreign servers.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod fake_server;
mod foreign_servers;
mod lossy_link;
mod transfers;
