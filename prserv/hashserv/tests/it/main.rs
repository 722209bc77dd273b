//! Tests of the program through its sockets and files.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod bitbake_checkout;
mod databases;
mod dialogues;
mod durability;
mod harness;
mod hostile;
mod maintenance;
mod postgres;
mod upstream;
mod users;
mod websocket;
