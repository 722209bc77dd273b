//! Rooms together, on fakes and localhost: no root, no sleeps.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod access;
mod client;
mod commands;
mod events;
mod install;
mod metrics;
mod nonsense;
mod records;
mod schedules;
mod schema;
mod store;
mod toaster;
mod toolchains;
