//! The network of a guest, or of a build's guest and its auxiliary ones: a namespace of its own, its
//! packet filter, and its egress.

mod bridge;
pub mod egress;
mod names;
mod namespace;
mod port;
mod rules;
mod tap;

pub use names::{GUEST_MAC, LinkType, NetworkError};
pub use namespace::{Network, delete, list};
pub use port::Port;

pub(crate) use names::HOST_LINK;
