//! The hash equivalence service: tells which tasks of BitBake have equivalent output.
//!
//! A task has a *taskhash*, the hash of its input. After it has run, its *outhash* is the hash of
//! its output. Tasks with equal outhashes are equivalent and get the same *unihash*, so that tasks
//! that depend on them need not run again.
//!
//! [`equivalence`] decides which unihash a task gets, a [`store::Store`] persists the reports, and
//! [`Service`] joins both: it answers from its cache and acknowledges nothing before it is on disk.
//! [`protocol`] is BitBake's protocol without any I/O, [`session`] answers it within the
//! [`permission`]s of a user, and [`server`] serves it on sockets.

pub mod client;
pub mod condition;
pub mod equivalence;
pub mod metrics;
pub mod permission;
pub mod protocol;
pub mod row;
pub mod server;
pub mod service;
pub mod session;
mod statistics;
pub mod store;
pub mod token;
mod upstream;

pub use server::Server;
pub use service::{OpenOptions, Service, ServiceError};
