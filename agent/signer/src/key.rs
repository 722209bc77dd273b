//! Ed25519 keys, in the files that `openssl` and `cosign` use: PEM with PKCS #8 or SPKI.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// The bytes before the seed in PKCS #8 (RFC 8410, section 7), version 1: OpenSSL does not read
/// the version 2 that ring writes.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];
/// The bytes before the key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// The length of a seed, and of a public key, in bytes.
const KEY_BYTES: usize = 32;

/// A private key. It is never shown.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

/// The reason for which a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text contains no private Ed25519 key.
    #[error("it is not a private Ed25519 key (PKCS #8 in PEM)")]
    Private,
    /// The text contains no public Ed25519 key.
    #[error("it is not a public Ed25519 key (SubjectPublicKeyInfo in PEM)")]
    Public,
}

/// The text of a new private key.
pub struct NewKey {
    /// The key.
    pub key: SigningKey,
    /// The text of its file.
    pub pem: String,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.public.id())
            .finish()
    }
}

impl NewKey {
    /// Makes a key from random bytes of the kernel.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn generate() -> std::io::Result<Self> {
        let seed = sys::random::bytes::<KEY_BYTES>()?;
        let key = SigningKey::from_seed(&seed);
        let key = key.ok_or_else(|| std::io::Error::other("the kernel returned no key"))?;
        let der = [&PKCS8_PREFIX[..], &seed].concat();
        Ok(Self {
            key,
            pem: pem("PRIVATE KEY", &der),
        })
    }
}

impl SigningKey {
    /// Returns the key with this seed.
    pub(crate) fn from_seed(seed: &[u8; KEY_BYTES]) -> Option<Self> {
        Self::new(Ed25519KeyPair::from_seed_unchecked(seed).ok()?)
    }

    /// Parses a private key.
    ///
    /// # Errors
    /// The text contains none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .ok()
            .and_then(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok())
            .and_then(Self::new)
            .ok_or(KeyError::Private)
    }

    fn new(pair: Ed25519KeyPair) -> Option<Self> {
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the signature of a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl PublicKey {
    /// Parses a public key.
    ///
    /// # Errors
    /// The text contains none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| KeyError::Public)?;
        der.as_ref()
            .strip_prefix(&SPKI_PREFIX)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or(KeyError::Public)
    }

    /// Returns the text of the key's file.
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }

    /// Returns the identity of the key: the SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    pub fn id(&self) -> String {
        sys::file::digest_of(&self.der()).to_string()
    }

    fn der(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Returns true if a signature of a message is this key's.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// Returns a PEM text. Keys are short enough for one line.
fn pem(label: &str, der: &[u8]) -> String {
    let line = BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{line}\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_keys_are_read_again() {
        let NewKey { key, pem } = NewKey::generate().unwrap();
        let read = SigningKey::from_pem(&pem).unwrap();
        assert_eq!(read.public(), key.public());
        let public = PublicKey::from_pem(&key.public().to_pem()).unwrap();
        assert_eq!(public, *key.public());
        assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
    }

    #[test]
    fn other_texts_are_refused() {
        let NewKey { key, pem } = NewKey::generate().unwrap();
        let public = key.public().to_pem();
        assert_eq!(
            SigningKey::from_pem(&public).unwrap_err(),
            KeyError::Private
        );
        assert_eq!(PublicKey::from_pem(&pem).unwrap_err(), KeyError::Public);
        for text in [
            "",
            "key",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(PublicKey::from_pem(text).is_err());
            assert!(SigningKey::from_pem(text).is_err());
        }
    }
}
