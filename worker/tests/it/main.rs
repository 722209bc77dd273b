//! The worker against the host's TFTP server.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod host;
mod runs;
