//! Tokens and keys: random secrets, of which only hashes are stored.

use std::io;

use sha2::{Digest, Sha256};

/// The least length of a key in its text form. Hosts make their keys themselves.
pub const KEY_LENGTH_MIN: usize = 32;

/// Returns a new secret: 64 hexadecimal digits.
///
/// # Errors
/// The kernel has no randomness.
pub fn random() -> io::Result<String> {
    Ok(config::task::Digest::from(sys::random::bytes()?).to_string())
}

/// Returns the hash that is stored.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
