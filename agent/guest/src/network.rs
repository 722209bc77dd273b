//! The network of one guest: a namespace of its own, its packet filter, and its egress.

pub mod egress;
mod names;
mod namespace;
mod rules;
mod tap;

pub use names::{GUEST_MAC, LinkType, NetworkError};
pub use namespace::{Network, delete, list};

pub(crate) use names::HOST_LINK;
