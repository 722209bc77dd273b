//! TFTP (RFC 1350, 2347 to 2349, 7440): the server of one guest and the client that its
//! worker uses.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod client;
#[cfg(feature = "server")]
pub mod server;

mod codec;
mod rto;
