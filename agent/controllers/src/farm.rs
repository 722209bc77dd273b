//! The client of a farm: polls, results and releases over HTTP with JSON, and the enrolment of this host.
//!
//! The rules of a host are those of `farm_core::host`; here are only the requests. One that fails is
//! sent to the next coordinator the next time.

mod client;
mod key;
mod transfers;

pub use client::{Client, FarmError, Settled, unasked};
pub use key::{FarmKey, KeyError};
pub use reqwest_tls::{Body as SupplyBody, Upgraded};
pub use transfers::{SourceContent, Supply};
