//! The PR service: assigns revisions to packages that never decrease.
//!
//! A [`Value`] is a revision. A [`Tuple`] (version, architecture, checksum) is the key of a request
//! for one. [`policy`] decides which value a tuple gets, a [`store::Store`] persists the assigned
//! values, and [`Service`] joins both: it answers from its cache and never returns a value before
//! it is on disk. [`session`] restricts a service to the rights that [`access`] grants to a peer.
//! [`wire`] is BitBake's protocol without any I/O, [`server`] serves it on sockets, and [`client`]
//! is the other side.

pub mod value;

pub mod tuple;

pub mod package_rows;

pub mod policy;

pub mod store;

pub mod service;

pub mod metrics;

pub mod access;

pub mod session;

pub mod wire;

pub mod server;

pub mod client;

pub mod inc_file;

pub mod sync_plan;

mod upstream;

pub use policy::History;
pub use server::{Server, serve, serve_connection};
pub use service::{OpenOptions, Service, ServiceError};
pub use session::Peer;
pub use tuple::{Package, Tuple};
pub use value::Value;
