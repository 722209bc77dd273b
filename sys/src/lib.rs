//! The everyday parts of the operating system that several programs share: child processes,
//! and their confinement, files that are replaced as a whole, files of others, random bytes, rate limits,
//! observers, error chains.

pub mod attributes;
#[cfg(feature = "blocking")]
pub mod blocking;
pub mod command;
#[cfg(feature = "confined")]
pub mod confined;
#[cfg(feature = "confined")]
pub mod descriptors;
pub mod error_report;
pub mod file;
#[cfg(feature = "confined")]
pub mod mount_view;
pub mod observer;
pub mod random;
pub mod ssh;
#[cfg(feature = "confined")]
mod syscall_filter;
pub mod token_bucket;
pub mod trusted;
pub mod untrusted;
#[cfg(feature = "confined")]
pub mod user_namespace;
