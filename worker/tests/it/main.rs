//! The worker against the other side: a host of our own, a line that loses
//! packets, and servers of others.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod host;

mod line;

mod transfers;

mod runs;

mod others;
