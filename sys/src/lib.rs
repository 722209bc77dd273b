//! The one door to the operating system's everyday parts: child processes, files that
//! are replaced whole, error chains.

pub mod command;
pub mod error_report;
pub mod file;
