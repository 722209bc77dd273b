//! Tokens and keys: random secrets, of which only hashes are stored.

use std::fmt::Write;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

/// The least length of a key in its text form. Hosts make their keys themselves.
pub const KEY_LENGTH_MIN: usize = 32;

/// Returns a new secret: 64 hexadecimal digits.
///
/// # Errors
/// The kernel has no randomness.
pub fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    if count != bytes.len() {
        return Err(io::Error::other("the kernel gave too few random bytes"));
    }
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// Returns the hash that is stored.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
