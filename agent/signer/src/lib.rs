//! The provenance of builds: its statement, its signature, and the keys.
//!
//! [`statement`] is pure. [`sign`] runs in a process of its own, `buildhost-signer`, which alone
//! reads a private key; [`keys`] is the directory of the keys, and [`dsse`] the envelope.

pub mod dsse;
pub mod key;
pub mod key_log;
pub mod keys;
pub mod level;
pub mod sign;
pub mod statement;
pub mod verify;
