//! Coordinators, hosts and a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a failure fails the test")]

mod bitbake_checkout;
mod browser;
mod chaos;
mod farm;
mod host;
mod http;
mod long;
mod metrics;
mod notifications;
mod object_store;
mod objects;
mod openapi;
mod pages;
mod processes;
mod program;
mod schedules;
mod server;
mod sources;
mod storm;
mod toaster;
mod transfers;
mod trials;
