//! The PR service: assigns package revisions that never decrease.
//!
//! A [`Value`] is a revision. A [`Tuple`] (version, architecture, checksum) is the key of a value.
//! [`policy`] decides which value a tuple gets, a [`store::Store`] persists the assigned values,
//! and [`Service`] joins both: it answers from its cache and never returns a value before it is on
//! disk. [`session`] restricts a service to the rights that [`access`] grants to a peer. [`wire`]
//! is BitBake's protocol without any I/O, [`server`] serves it on sockets, and [`client`] is the
//! other side.

pub mod access;
mod audit;
pub mod client;
pub mod forget;
pub mod identity;
pub mod inc_file;
pub mod metrics;
pub mod package_rows;
pub mod policy;
pub mod server;
pub mod service;
pub mod session;
pub mod store;
pub mod sync_plan;
pub mod tuple;
mod upstream;
pub mod value;
pub mod wire;

pub use linerpc::{host_names, listen, listener, logging, metrics_format, sockets, threads};
pub use policy::History;
pub use server::{Server, serve, serve_connection};
pub use service::{OpenOptions, Service, ServiceError};
pub use session::Peer;
pub use tuple::{Package, Tuple};
pub use value::Value;
