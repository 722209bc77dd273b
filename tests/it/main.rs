//! Rooms together, on fakes and localhost: no root, no sleeps.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod access;
mod commands;
mod events;
mod generated_client;
mod install;
mod invalid_requests;
mod metrics;
mod openapi;
mod retention;
mod schedules;
mod store;
mod toaster;
mod toolchains;
