//! TFTP (RFC 1350, 2347 to 2349, 7440): the server of one guest, and the client of its
//! worker.

pub mod server;

pub use server::{Event, Later, Map, Offer, Server};
