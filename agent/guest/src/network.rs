//! The network of one guest: a namespace of its own, its packet filter, and its egress.

pub mod egress;
mod namespace;
mod rules;
mod tap;

pub use namespace::{Cable, GUEST_MAC, Network, NetworkError, delete, list};

pub(crate) use namespace::PORT;

use namespace::{CARD, DIRECTORY, HOST_MAC, LIMIT};
