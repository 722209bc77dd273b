//! The store of a farm on PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a failure fails the test")]

mod contract;
mod harness;
mod notifications;
mod schedules;
mod statements;
mod views;
