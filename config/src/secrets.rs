//! Secrets: values that a build gets in the memory of its guest, and that are masked in its log.
//!
//! A build names secrets; nothing but the agent's store and the control port of a guest carries
//! their values. The task of such a build names them as well. The worker then writes [`REQUEST`]
//! as a line to [`crate::task::CONTROL_PORT`], or, in a guest without that port, to
//! [`TCP_PORT`] at its gateway, and again every second until the host answers with a
//! [`SecretMessage`] for each secret. It writes [`RECEIVED`] when it has all; the host sends
//! nothing more after that.

mod mask;
mod message;

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::builds::Submitter;
use crate::names::SecretName;

pub use mask::{Mask, MaskedStream};
pub use message::{MESSAGE_BYTES_MAX, SecretMessage};

/// Written by a worker: the request for the secrets of its task.
pub const REQUEST: &str = "secrets";
/// Written by a worker that has all secrets of its task.
pub const RECEIVED: &str = "received";
/// The TCP port at the gateway at which a guest without a control port requests its secrets.
pub const TCP_PORT: u16 = 8587;
/// The directory of the secrets in a guest, a file system in memory. Each is a file with the
/// secret's name.
pub const DIRECTORY: &str = "/run/buildhost/secrets";
/// The variable that tells a build the [`DIRECTORY`].
pub const VARIABLE: &str = "BUILDHOST_SECRETS";
/// The largest number of secrets of a build.
pub const COUNT_MAX: usize = 16;
/// The smallest size of a value, without line ends behind it: a shorter one would be masked
/// where it is not meant, and is guessed easily.
pub const BYTES_MIN: usize = 8;
/// The largest size of a value.
pub const BYTES_MAX: usize = 16 * 1024;

/// The error of a value that cannot be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is too short.
    #[error(
        "a secret has at least {BYTES_MIN} bytes without the line end: shorter ones can neither \
         be masked nor kept from being guessed"
    )]
    Short,
    /// It is too long.
    #[error(
        "a secret has at most {BYTES_MAX} bytes; encrypt a larger file, and make its key a secret"
    )]
    Long,
    /// The text is not base64.
    #[error("the value of a secret is base64 in this message")]
    Base64,
}

/// The value of a secret. It is overwritten in memory when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Checks the size of a value.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() > BYTES_MAX {
            return Err(SecretError::Long);
        }
        if mask::without_line_end(&bytes).len() < BYTES_MIN {
            return Err(SecretError::Short);
        }
        Ok(Self(bytes))
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the value in base64.
    fn encode(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.bytes()))
    }

    /// Parses base64.
    fn decode(text: &str) -> Result<Self, SecretError> {
        let bytes = BASE64_STANDARD.decode(text);
        Self::new(bytes.map_err(|_| SecretError::Base64)?)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

impl TryFrom<String> for SecretValue {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        Self::decode(&Zeroizing::new(text))
    }
}

impl From<SecretValue> for String {
    fn from(value: SecretValue) -> Self {
        value.encode().to_string()
    }
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The name.
    pub name: SecretName,
    /// The submitters whose builds may have it, in addition to root.
    #[serde(rename = "for")]
    pub submitters: Vec<Submitter>,
    /// The administrator who added it.
    pub by: Submitter,
    /// The time at which its value was set.
    pub added: Timestamp,
}

impl Secret {
    /// Returns true if builds of this submitter may have the secret.
    pub fn is_for(&self, submitter: &Submitter) -> bool {
        *submitter == Submitter::root() || self.submitters.contains(submitter)
    }
}

/// A request to add or replace a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// The value, in base64.
    pub value: SecretValue,
    /// The submitters whose builds may have it, in addition to root.
    #[serde(default, rename = "for")]
    pub submitters: Vec<Submitter>,
    /// Replaces a secret of the same name.
    #[serde(default)]
    pub replace: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_a_size_that_can_be_masked() {
        for (bytes, expected) in [
            (b"1234567\n\n".to_vec(), Err(SecretError::Short)),
            (b"12345678\r\n".to_vec(), Ok(())),
            (vec![b'x'; BYTES_MAX], Ok(())),
            (vec![b'x'; BYTES_MAX + 1], Err(SecretError::Long)),
        ] {
            assert_eq!(SecretValue::new(bytes).map(drop), expected);
        }
    }

    #[test]
    fn a_value_is_base64_in_json_and_hidden_elsewhere() {
        let value = SecretValue::new(b"p4ssw\xc3\xb6rd\0".to_vec()).unwrap();
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, "\"cDRzc3fDtnJkAA==\"");
        assert_eq!(serde_json::from_str::<SecretValue>(&json).unwrap(), value);
        assert!(serde_json::from_str::<SecretValue>("\"p4ssword!\"").is_err());
        assert_eq!(format!("{value:?}"), "SecretValue(…)");
    }

    #[test]
    fn a_secret_is_for_root_and_those_that_it_names() {
        let submitter = |name: &str| name.parse::<Submitter>().unwrap();
        let secret = Secret {
            name: "key".parse().unwrap(),
            submitters: vec![submitter("alice"), submitter("token:nightly")],
            by: Submitter::root(),
            added: Timestamp::UNIX_EPOCH,
        };
        for (name, expected) in [
            ("root", true),
            ("alice", true),
            ("token:nightly", true),
            ("nightly", false),
            ("token:root", false),
            ("bob", false),
        ] {
            assert_eq!(secret.is_for(&submitter(name)), expected, "{name}");
        }
    }
}
