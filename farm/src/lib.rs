//! The coordinator of a farm. It drives the state machines of `farm_core` over the store and HTTP.

pub mod api;
pub mod coordinator;
pub mod secret;
pub mod transfers;
pub mod view;
