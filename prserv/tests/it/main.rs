//! Tests of the program through its sockets and files.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod access;
#[cfg(feature = "xmlrpc")]
mod browser;
mod client;
mod commands;
mod crash;
mod database_files;
#[cfg(feature = "xmlrpc")]
mod durability;
mod harness;
mod json_protocol;
mod library;
mod limits;
mod linearizability;
#[cfg(feature = "xmlrpc")]
mod long_values;
mod mutation;
mod postgres;
mod rest;
mod startup;
mod upstream;
mod websocket;
#[cfg(feature = "xmlrpc")]
mod xmlrpc;
