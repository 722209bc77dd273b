//! The progress of a stream that is received in parts.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// A part of a stream, which ends between two commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The number of bytes.
    pub length: u64,
    /// Their BLAKE3 hash, in hexadecimal digits.
    pub hash: String,
}

/// The parts of a stream that were received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The bytes that the stream began with, at least up to its header.
    pub head: Vec<u8>,
    /// The received parts, of which the first one begins with the head.
    pub parts: Vec<Part>,
}

impl Part {
    /// Reads as many bytes as this part has, and returns what they are.
    pub(super) fn read(&self, bytes: &mut impl Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let length = io::copy(&mut bytes.take(self.length), &mut hasher)?;
        Ok(Self::of(length, &hasher))
    }

    pub(super) fn of(length: u64, hasher: &blake3::Hasher) -> Self {
        let hash = hasher.finalize().to_hex().to_string();
        Self { length, hash }
    }
}
