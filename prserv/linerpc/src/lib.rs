//! The line-based JSON RPC of BitBake's servers, without their requests: the parts that the PR
//! service and the hash equivalence service share.
//!
//! [`decoder`] and [`encoder`] are the framing, pure. A [`Session`] answers what one peer sends,
//! and an [`Endpoint`] creates the sessions of a peer. [`server`] serves endpoints on sockets:
//! the line-based stream, and HTTP with websockets on the same port ([`connection`], [`http`]).
//! [`listener`] limits connections, and [`host_names`] protects them against web pages.
//! [`listen`] opens sockets, on all addresses of a name; [`sockets`] and [`threads`] are those of a
//! program, and [`logging`] is its log.
//! [`batching`] is for their writers, which answer many requests at once, and [`batch_metrics`]
//! counts what they commit; [`metrics_format`] negotiates the format of such counters.
//! [`connect`] opens connections to other servers, directly or through a proxy ([`target`]).

pub mod batch_metrics;
pub mod batching;
pub mod connect;
pub mod connection;
pub mod decoder;
pub mod encoder;
pub mod framing;
pub mod host_names;
pub mod http;
pub mod listen;
pub mod listener;
pub mod logging;
pub mod metrics_format;
pub mod server;
pub mod session;
mod sniff;
pub mod sockets;
pub mod target;
pub mod threads;

pub use decoder::MessageDecoder;
pub use framing::{Framing, FramingError, Greeting};
pub use server::{Connections, Limits};
pub use session::{Buffers, Endpoint, Next, Session};
