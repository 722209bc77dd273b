//! The common parts of the measurements: statistics and tables, an agent process, the environment
//! of a single guest, and a small HTTP client.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a measurement ends at the first error, and its tables are its output"
)]

pub mod agent_process;
pub mod guest_fixture;
pub mod http_client;
pub mod statistics;
pub mod table;
