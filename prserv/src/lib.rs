//! The PR service: a package's revision for (version, architecture, checksum), which only goes up.
//!
//! Read in this order: a [`Value`] is a revision, a [`Tuple`] is what one is asked for,
//! [`policy`] decides which value a tuple gets, a [`store::Store`] keeps what was given, and
//! [`Service`] joins them: it answers from memory and gives nothing away before it is on disk. A
//! peer asks at its [`desk::Desk`], within the rights that [`access`] gives it. [`wire`] is the
//! protocol that BitBake speaks, without any input or output; [`server`] speaks it on sockets, and
//! [`client`] is the other side.

pub mod value;

pub mod tuple;

pub mod rows;

pub mod policy;

pub mod store;

pub mod service;

pub mod metrics;

pub mod access;

pub mod desk;

pub mod wire;

pub mod server;

pub mod client;

pub mod inc;

pub mod sync;

mod upstream;

pub use desk::Peer;
pub use policy::History;
pub use server::{Server, serve, serve_connection};
pub use service::{OpenOptions, Service, ServiceError};
pub use tuple::{Package, Tuple};
pub use value::Value;
