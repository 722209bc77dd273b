//! Envelopes of signed documents: [DSSE] version 1.
//!
//! [DSSE]: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::key::{PublicKey, SigningKey};

/// A document with its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The document, in Base64.
    payload: String,
    /// The media type of the document.
    payload_type: String,
    /// The signatures.
    signatures: Vec<Signature>,
}

/// A signature of a document and its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// The [identity](PublicKey::id) of the key: a hint, which nothing relies on.
    #[serde(default)]
    keyid: String,
    /// The signature, in Base64.
    sig: String,
}

/// The reason for which an envelope is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A field is not Base64.
    #[error("the envelope's {0} is not Base64")]
    Encoding(&'static str),
    /// The document is of another type.
    #[error("the envelope contains `{found}`, not `{expected}`")]
    Type {
        /// The type of the document.
        found: String,
        /// The expected type.
        expected: &'static str,
    },
    /// The key has not signed the document.
    #[error("the envelope has no valid signature of the key {0}")]
    NotSigned(String),
}

impl Envelope {
    /// Signs a document with each of the keys.
    pub fn sign(payload_type: &str, payload: &[u8], keys: &[&SigningKey]) -> Self {
        let message = encode(payload_type, payload);
        let sign = |key: &&SigningKey| Signature {
            keyid: key.public().id(),
            sig: BASE64.encode(key.sign(&message)),
        };
        Self {
            payload: BASE64.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: keys.iter().map(sign).collect(),
        }
    }

    /// Returns the document if the key has signed it.
    ///
    /// # Errors
    /// The document has another type, or no signature is the key's.
    pub fn verify(
        &self,
        payload_type: &'static str,
        key: &PublicKey,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let payload = self.unverified(payload_type)?;
        let message = encode(payload_type, &payload);
        for Signature { sig, .. } in &self.signatures {
            let signature = decode(sig, "signature")?;
            if key.verify(&message, &signature) {
                return Ok(payload);
            }
        }
        Err(EnvelopeError::NotSigned(key.id()))
    }

    /// Returns the document without a look at its signatures.
    ///
    /// # Errors
    /// The document has another type, or is not Base64.
    pub fn unverified(&self, payload_type: &'static str) -> Result<Vec<u8>, EnvelopeError> {
        if self.payload_type != payload_type {
            return Err(EnvelopeError::Type {
                found: self.payload_type.chars().take(80).collect(),
                expected: payload_type,
            });
        }
        decode(&self.payload, "payload")
    }
}

fn decode(text: &str, field: &'static str) -> Result<Vec<u8>, EnvelopeError> {
    BASE64
        .decode(text)
        .map_err(|_| EnvelopeError::Encoding(field))
}

/// Returns the bytes that are signed: DSSE's pre-authentication encoding.
pub fn encode(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "http://example.com/HelloWorld";

    /// The private key of the first test of RFC 8032, section 7.1.
    fn key() -> SigningKey {
        SigningKey::from_seed(&[
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ])
        .unwrap()
    }

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The example of protocol.md.
        let message = encode(TYPE, b"hello world");
        let expected = "DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(String::from_utf8(message).unwrap(), expected);
        assert_eq!(encode("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn an_envelope_never_changes() {
        let envelope = Envelope::sign(TYPE, b"hello world", &[&key()]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&envelope).unwrap());
    }

    #[test]
    fn only_what_the_key_has_signed_is_accepted() {
        let (key, other) = (key(), SigningKey::from_seed(&[7; 32]).unwrap());
        let envelope = Envelope::sign(TYPE, b"hello world", &[&other, &key]);
        for key in [&key, &other] {
            let payload = envelope.verify(TYPE, key.public()).unwrap();
            assert_eq!(payload, b"hello world");
        }
        let stranger = SigningKey::from_seed(&[8; 32]).unwrap();
        let error = envelope.verify(TYPE, stranger.public()).unwrap_err();
        assert!(matches!(error, EnvelopeError::NotSigned(_)));
        let error = envelope.verify("text/plain", key.public()).unwrap_err();
        assert!(matches!(error, EnvelopeError::Type { .. }));
        let changed = Envelope {
            payload: BASE64.encode("hello worle"),
            ..envelope.clone()
        };
        let error = changed.verify(TYPE, key.public()).unwrap_err();
        assert!(matches!(error, EnvelopeError::NotSigned(_)));
        let unsigned = Envelope {
            signatures: Vec::new(),
            ..envelope
        };
        assert!(unsigned.verify(TYPE, key.public()).is_err());
    }
}
