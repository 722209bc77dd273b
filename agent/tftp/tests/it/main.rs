//! The client against a fake server, a lossy link, and foreign servers.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests read files that they have made"
)]

mod fake_server;
mod foreign_servers;
mod lossy_link;
mod transfers;
