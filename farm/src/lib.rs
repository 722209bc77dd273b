//! The coordinator of a farm. It drives the state machines of `farm_core` over the store and HTTP.

pub mod api;
mod attempts;
pub mod bitbake;
pub mod coordinator;
pub mod metrics;
pub mod objects;
mod problems;
pub mod secret;
pub mod server;
pub mod settings;
pub mod sources;
pub mod transfers;
pub mod view;
