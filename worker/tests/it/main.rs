//! The worker against the host's TFTP server.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod host;
mod runs;
