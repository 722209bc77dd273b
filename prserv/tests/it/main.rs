//! Tests of the program through its sockets and files.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod access;
mod audit;
mod bitbake_checkout;
#[cfg(feature = "xmlrpc")]
mod browser;
mod client;
mod commands;
mod crash;
mod database_files;
#[cfg(feature = "xmlrpc")]
mod durability;
mod forget;
mod harness;
mod json_protocol;
mod library;
mod limits;
mod linearizability;
#[cfg(feature = "xmlrpc")]
mod long_values;
mod mutation;
mod postgres;
mod read_only_media;
mod rest;
mod startup;
mod tokens;
mod upstream;
mod websocket;
#[cfg(feature = "xmlrpc")]
mod xmlrpc;
