//! Tests that combine several crates, with fakes and on localhost. They need no root.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod access;
mod bbot_worker;
mod bitbake_checkout;
mod bitbake_toolchain;
mod browser;
mod caches;
mod commands;
mod completions;
mod connections;
mod controllers;
mod events;
mod feeds;
mod flood;
mod generated_client;
mod hostile_peers;
mod install;
mod invalid_requests;
mod lighthouse;
mod logs;
mod machines;
mod metrics;
mod notifications;
mod openapi;
mod openapi_linters;
mod projects;
mod remote_agent;
mod retention;
mod schedules;
mod secrets;
mod store;
mod toaster;
mod tokens;
mod toolchains;
mod volumes;
mod web;
mod web_console;
mod web_host;
mod web_machines;
mod web_sessions;
