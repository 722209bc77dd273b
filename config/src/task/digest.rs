//! SHA-256 hashes.

use std::str::FromStr;

use super::TaskError;
use crate::newtype::text_newtype;

text_newtype!(
    /// A SHA-256 hash: 64 lower-case hexadecimal digits.
    Digest,
    TaskError
);

impl From<[u8; 32]> for Digest {
    fn from(hash: [u8; 32]) -> Self {
        Self(hexadecimal(&hash))
    }
}

impl FromStr for Digest {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() == 64 && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TaskError::Value("sha256", text.chars().take(70).collect()))
        }
    }
}

/// Returns bytes as lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
