//! One guest on the host: its process, its network and its gateway.

mod guest;

pub mod gateway;
pub mod network;

pub use guest::*;
