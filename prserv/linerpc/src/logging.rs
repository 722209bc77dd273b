//! The log of a server's program.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts logging to stderr, at the levels in `levels`, or else those in `RUST_LOG`, or else at the
/// level `info`.
pub fn start(levels: Option<&str>) {
    let filter = match levels {
        Some(levels) => EnvFilter::new(levels),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let is_terminal = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(is_terminal && env::var_os("NO_COLOR").is_none())
        .init();
}
